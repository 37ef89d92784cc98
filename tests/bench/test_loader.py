import argparse

import cv2
import numpy as np
import pytest

from dinov2.bench.loader import FILM_HEIGHT_PX, FILM_WIDTH_PX, add_arguments, draw_films, run, table
from dinov2.bench.pillow_pipeline import MEAN, STD, pillow_crops
from dinov2.config.schema import Augmentation, Crops
from dinov2.data.augmentation import apply_crop, draw_crops, resolve
from dinov2.data.dataset import read_picture


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    return draw_films(tmp_path_factory.mktemp("films"), count=3)


def test_the_films_are_as_large_on_disk_as_chest_films_of_their_size(films):
    for row in range(len(films)):
        assert read_picture(films.path(row)).shape == (FILM_HEIGHT_PX, FILM_WIDTH_PX)
        assert 150_000 < films.path(row).stat().st_size < 250_000


def test_the_yardstick_makes_the_crops_that_ours_makes(films):
    """Without jitter, whose hue step does nothing to a grey picture but round it, both give the same pixels."""
    crops = Crops(global_crops_size=140, local_crops_size=56, local_crops_number=2)
    quiet = {"jitter_p": 0.0, "global1_blur_p": 0.0, "global2_blur_p": 0.0, "local_blur_p": 0.0}
    recipe = resolve(Augmentation(preset="cxr", **quiet))
    draws = draw_crops(recipe, crops=crops, seed=0, position=0)
    sizes = [140, 140, 56, 56]
    theirs = pillow_crops(films.path(0), draws, sizes=sizes, seed=0)
    for draw, size, crop in zip(draws, sizes, theirs, strict=True):
        ours = (apply_crop(read_picture(films.path(0)), draw, size=size).astype(np.float32) / 255 - MEAN) / STD
        assert crop.shape == (3, size, size)
        assert np.abs(crop - ours).mean() * 255 * STD.mean() < 1.5


def test_the_benchmark_measures_all_three_and_leaves_opencvs_threads_as_they_were(films):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    words = ["--rounds=1", "--batch-size=2", "--global-size=56", "--local-size=28", "--local-number=1"]
    before = cv2.getNumThreads()
    result = run(parser.parse_args([*words, f"--dataset={films.root}"]))
    assert cv2.getNumThreads() == before
    assert list(result["rows"]) == ["ours", "pillow", "decode only"]
    assert all(rate > 0 for row in result["rows"].values() for rate in row.values())
    assert result["share_of_decode_rate"] > 0
    assert result["ratio_to_pillow"] > 1
    assert table(result).row_count == 3
