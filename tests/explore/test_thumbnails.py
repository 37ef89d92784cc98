"""Small pictures are made once, and memory has an end."""

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from dinov2.explore.features import read_features
from dinov2.explore.films import join_films
from dinov2.explore.thumbnails import Thumbnails
from tests.explore.made import write_features, write_films


def test_the_long_side_shrinks_to_its_size_and_small_films_stay(tmp_path: Path) -> None:
    manifest = write_films(tmp_path / "films", num=2)
    Image.fromarray(np.zeros((600, 300), np.uint8)).save(tmp_path / "films" / "film-0.png")
    films = join_films(read_features(write_features(tmp_path / "f.parquet", num=2)), manifest=str(manifest))
    sizes = [Image.open(io.BytesIO(Thumbnails(films).jpeg(row, size="small"))).size for row in (0, 1)]
    assert sizes == [(112, 224), (20, 30)]


def test_a_second_look_reads_no_file_until_memory_is_full(tmp_path: Path) -> None:
    manifest = write_films(tmp_path / "films", num=3)
    films = join_films(read_features(write_features(tmp_path / "f.parquet", num=3)), manifest=str(manifest))
    roomy, narrow = Thumbnails(films), Thumbnails(films, kept_bytes=1)
    for thumbnails in (roomy, narrow):
        first = [thumbnails.jpeg(row, size="small") for row in range(2)]
    Image.fromarray(np.full((30, 20), 250, np.uint8)).save(tmp_path / "films" / "film-0.png")
    assert roomy.jpeg(0, size="small") == first[0]
    assert narrow.jpeg(0, size="small") != first[0]


def test_several_readers_at_once_get_each_film_right(tmp_path: Path) -> None:
    films = join_films(
        read_features(write_features(tmp_path / "f.parquet")), manifest=str(write_films(tmp_path / "films"))
    )
    thumbnails = Thumbnails(films)
    rows = [row % 40 for row in range(120)]
    with ThreadPoolExecutor(6) as pool:
        made = list(pool.map(lambda row: thumbnails.jpeg(row, size="small"), rows))
    for row, jpeg in zip(rows, made, strict=True):
        assert abs(int(np.asarray(Image.open(io.BytesIO(jpeg)))[15, 10]) - 5 * row % 256) <= 2
