"""A map is the same for the same features, tells groups apart, and is made once."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from dinov2.errors import ConfigError
from dinov2.explore import maps
from dinov2.explore.features import Floats, read_features
from dinov2.explore.maps import Method, choose_method, place_films
from tests.explore.made import write_features

METHODS = ["pca", "tsne"]
UMAP = """
import sys
from pathlib import Path
from dinov2.explore.features import read_features
from dinov2.explore.maps import place_films
features = read_features(Path(sys.argv[1]))
for _ in range(2):
    placed = place_films(features, method="umap")
    print(placed.was_kept, placed.kept)
"""


def check_two_groups(positions: Floats, *, num: int) -> None:
    assert positions.shape == (num, 2)
    assert positions.min() >= 0
    assert positions.max() <= 1
    even, odd = positions[::2], positions[1::2]
    apart = np.linalg.norm(even.mean(axis=0) - odd.mean(axis=0))
    assert apart > max(even.std(axis=0).max(), odd.std(axis=0).max())


@pytest.mark.parametrize("method", METHODS)
def test_components_and_tsne_tell_two_groups_apart_within_the_unit_square(tmp_path: Path, method: Method) -> None:
    check_two_groups(
        place_films(read_features(write_features(tmp_path / "f.parquet")), method=method).positions, num=40
    )


@pytest.mark.skipif(not find_spec("umap"), reason="umap-learn is absent")
def test_umap_tells_two_groups_apart_and_its_map_is_kept(tmp_path: Path) -> None:
    # Few films, and in a process that runs umap-learn as it is written: to compile it takes a dozen seconds.
    file = write_features(tmp_path / "f.parquet", num=24)
    said = subprocess.run(
        [sys.executable, "-c", UMAP, file],
        env=os.environ | {"NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert said[::2] == ["False", "True"]
    assert said[1] == said[3]
    with np.load(said[1]) as kept:
        check_two_groups(kept["positions"], num=24)


def test_a_map_is_read_where_it_was_made_and_made_anew_for_other_features(tmp_path: Path) -> None:
    features = read_features(write_features(tmp_path / "f.parquet"))
    first = place_films(features, method="pca")
    again = place_films(features, method="pca")
    assert (first.was_kept, again.was_kept) == (False, True)
    assert again.kept is not None
    assert again.kept.parent == tmp_path / "f.maps"
    np.testing.assert_array_equal(first.positions, again.positions)
    other = read_features(write_features(tmp_path / "f.parquet", vectors=features.vectors[::-1]))
    assert not place_films(other, method="pca").was_kept


def test_a_damaged_map_is_made_again(tmp_path: Path) -> None:
    features = read_features(write_features(tmp_path / "f.parquet"))
    first = place_films(features, method="pca")
    assert first.kept is not None
    first.kept.write_bytes(first.kept.read_bytes()[:100])
    mended = place_films(features, method="pca")
    assert not mended.was_kept
    np.testing.assert_array_equal(first.positions, mended.positions)
    assert place_films(features, method="pca").was_kept


def test_where_the_folder_takes_no_file_the_map_is_shown_all_the_same(tmp_path: Path) -> None:
    features = read_features(write_features(tmp_path / "f.parquet"))
    (tmp_path / "f.maps").write_text("a file in its place")
    placed = place_films(features, method="pca")
    assert placed.kept is None
    assert placed.positions.shape == (40, 2)


@pytest.mark.parametrize("num", [1, 2, 3])
def test_one_two_or_three_films_have_places(tmp_path: Path, num: int) -> None:
    placed = place_films(read_features(write_features(tmp_path / "f.parquet", num=num)), method="pca")
    assert np.isfinite(placed.positions).all()
    assert len(placed.positions) == num


@pytest.mark.parametrize("method", METHODS)
def test_films_that_are_all_alike_have_places(tmp_path: Path, method: Method) -> None:
    alike = read_features(write_features(tmp_path / "f.parquet", vectors=np.ones((20, 4))))
    assert np.isfinite(place_films(alike, method=method).positions).all()


def test_auto_takes_umap_then_tsne_then_components_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps.importlib.util, "find_spec", lambda _name: object())
    assert choose_method("auto", num_films=50_000)[0] == "umap"
    assert choose_method("auto", num_films=3)[0] == "pca"
    monkeypatch.setattr(maps.importlib.util, "find_spec", lambda _name: None)
    assert choose_method("auto", num_films=5_000)[0] == "tsne"
    method, why = choose_method("auto", num_films=50_000)
    assert method == "pca"
    assert "dinov2[explore]" in why
    with pytest.raises(ConfigError, match="umap-learn is not installed"):
        choose_method("umap", num_films=5_000)
