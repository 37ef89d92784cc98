"""Films of a features file meet the rows of their manifest, wherever that lies now."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dinov2.errors import ManifestError
from dinov2.explore.features import read_features
from dinov2.explore.films import join_films
from tests.explore.made import write_features, write_films


def test_every_film_gets_its_own_row_and_picture_whatever_the_order(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(6, 4))
    features = read_features(write_features(tmp_path / "f.parquet", vectors=vectors))
    turned = [f"film-{row}" for row in reversed(range(6))]
    manifest = write_films(tmp_path / "films", num=6, image_id=turned, image=[f"{name}.png" for name in turned])
    films = join_films(features, manifest=str(manifest))
    assert films.remarks == ()
    assert films.table.column("image_id").to_pylist() == features.ids
    for row in range(6):
        assert films.levels(row).max() == 5 * row
        assert films.fields(row)["age"] == 20.5 + (5 - row)


def test_films_that_the_manifest_lacks_stay_on_the_map_without_picture(tmp_path: Path) -> None:
    features = read_features(write_features(tmp_path / "f.parquet", num=8))
    films = join_films(features, manifest=str(write_films(tmp_path / "films", num=6)))
    assert "2 of 8 films" in films.remarks[0]
    assert films.fields(7) == {"image_id": "film-7"}
    with pytest.raises(ManifestError, match="not in the manifest"):
        films.levels(7)


def test_pictures_that_have_moved_are_told_and_the_film_says_why_it_is_blank(tmp_path: Path) -> None:
    features = read_features(write_features(tmp_path / "f.parquet", num=4))
    manifest = write_films(tmp_path / "films", num=4, skip=range(4))
    films = join_films(features, manifest=str(manifest))
    assert "4 of 4 pictures looked for cannot be read" in films.remarks[0]
    assert "Have they moved?" in films.remarks[0]
    with pytest.raises(ManifestError, match=r"film-2\.png: No such file"):
        films.levels(2)


def test_a_manifest_of_other_films_is_refused(tmp_path: Path) -> None:
    features = read_features(write_features(tmp_path / "f.parquet", num=4))
    manifest = write_films(tmp_path / "films", num=2, image_id=["a", "b"])
    with pytest.raises(ManifestError, match="Give the manifest that the features were made from"):
        join_films(features, manifest=str(manifest))


def test_a_manifest_whose_ids_repeat_is_met_by_the_pictures_path(tmp_path: Path) -> None:
    features = read_features(write_features(tmp_path / "f.parquet", num=4))
    films = join_films(features, manifest=str(write_films(tmp_path / "films", num=4, image_id=["same"] * 4)))
    assert [films.levels(row).max() for row in range(4)] == [0, 5, 10, 15]


def test_ids_that_repeat_among_the_features_are_told_and_met_by_the_pictures_path(tmp_path: Path) -> None:
    file = write_features(tmp_path / "f.parquet", num=4)
    table = pq.read_table(file)
    pq.write_table(table.set_column(0, "image_id", pa.array(["same"] * 3 + ["film-3"])), file)
    films = join_films(read_features(file), manifest=str(write_films(tmp_path / "films", num=4)))
    assert films.remarks == (
        "2 films have image_ids of films before: a saved selection of ids means all films of an id.",
    )
    assert [films.levels(row).max() for row in range(4)] == [0, 5, 10, 15]


def test_without_a_manifest_there_are_the_columns_of_the_features_file(tmp_path: Path) -> None:
    features = read_features(write_features(tmp_path / "f.parquet", num=3, columns={"split": ["a", "b", "b"]}))
    films = join_films(features, manifest=None)
    assert "--manifest" in films.remarks[0]
    assert films.fields(1)["split"] == "b"
    with pytest.raises(ManifestError, match="opened without a manifest"):
        films.levels(0)
