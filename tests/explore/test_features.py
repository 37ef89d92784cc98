"""A features file is read as `dinov2 embed` writes it, and refused in words where it cannot be a map."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dinov2.errors import ConfigError, ManifestError
from dinov2.explore.features import read_features
from tests.explore.made import NUM, WIDTH, write_features


def test_vectors_and_ids_come_back_row_by_row(tmp_path: Path) -> None:
    vectors = np.arange(12, dtype=np.float32).reshape(4, 3)
    read = read_features(write_features(tmp_path / "f.parquet", vectors=vectors))
    np.testing.assert_array_equal(read.vectors, vectors)
    assert read.ids == ["film-0", "film-1", "film-2", "film-3"]


def test_the_fingerprint_follows_the_numbers_and_their_order_alone(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(6, 4))
    one = read_features(write_features(tmp_path / "a.parquet", vectors=vectors)).fingerprint
    same = read_features(write_features(tmp_path / "b.parquet", vectors=vectors, columns={"x": [1] * 6})).fingerprint
    turned = read_features(write_features(tmp_path / "c.parquet", vectors=vectors[::-1])).fingerprint
    assert one == same != turned


def test_a_film_without_an_id_is_called_by_its_picture_or_its_row(tmp_path: Path) -> None:
    lists = pa.array([[1.0, 2.0]] * 3, pa.list_(pa.float32(), 2))
    pq.write_table(
        pa.table({"image_id": ["a", None, ""], "image": ["x.png", "y.png", None], "cls": lists}), tmp_path / "f.parquet"
    )
    assert read_features(tmp_path / "f.parquet").ids == ["a", "y.png", "row 2"]


def test_lists_of_other_writers_are_taken(tmp_path: Path) -> None:
    pq.write_table(pa.table({"emb": [[1.0, 0.0], [0.0, 1.0]]}), tmp_path / "f.parquet")
    read = read_features(tmp_path / "f.parquet", column="emb")
    assert read.vectors.shape == (2, 2)
    assert read.ids == ["row 0", "row 1"]


@pytest.mark.parametrize(
    ("vectors", "says"),
    [([[1.0, 2.0], [3.0]], "differ in length"), ([[1.0, float("nan")], [1.0, 2.0]], "the first is row 0")],
)
def test_ragged_or_not_finite_features_are_refused(tmp_path: Path, vectors: list[list[float]], says: str) -> None:
    pq.write_table(pa.table({"cls": pa.array(vectors, pa.list_(pa.float32()))}), tmp_path / "f.parquet")
    with pytest.raises(ManifestError, match=says):
        read_features(tmp_path / "f.parquet")


def test_files_that_are_absent_empty_or_something_else_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="dinov2 embed --backbone"):
        read_features(tmp_path / "absent.parquet")
    (tmp_path / "text.parquet").write_text("no Parquet")
    with pytest.raises(ManifestError, match="not a readable Parquet file"):
        read_features(tmp_path / "text.parquet")
    with pytest.raises(ManifestError, match="no row"):
        read_features(write_features(tmp_path / "empty.parquet", vectors=np.zeros((0, 3))))
    with pytest.raises(ConfigError, match=r"no column of features named pooled\. It has cls"):
        read_features(write_features(tmp_path / "f.parquet"), column="pooled")
    assert read_features(tmp_path / "f.parquet").vectors.shape == (NUM, WIDTH)
