import argparse

import cv2
import numpy as np
import pytest
from rich.console import Console

from dinov2.bench.loader import FILM_HEIGHT_PX, FILM_WIDTH_PX, add_arguments, draw_films, run, table
from dinov2.bench.loader_pipelines import PIPELINES, decode_rate
from dinov2.bench.pillow_pipeline import MEAN, STD, pillow_crops
from dinov2.config.schema import Augmentation, Crops, Data
from dinov2.data.augmentation import apply_crop, draw_crops, resolve
from dinov2.data.dataset import read_picture
from dinov2.data.source import open_pictures
from dinov2.manifest.edit import measure, with_measures
from dinov2.manifest.pack import Packing


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


TINY = ["--rounds=1", "--batch-size=2", "--global-size=56", "--local-size=28", "--local-number=1"]
SHORT = ["--worker-rounds=1", "--worker-films=8", "--films-flat=24", "--start-rows", "10", "40"]


def measured(*words):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args([*TINY, *SHORT, *words]))


def printed(result) -> str:
    console = Console(width=200, record=True)
    console.print(table(result))
    return console.export_text()


@pytest.fixture(scope="module")
def packed(films, tmp_path_factory):
    """The films in a tar shard."""
    folder = tmp_path_factory.mktemp("packed")
    packing = Packing(with_measures(films, list(measure(films))), folder, shard_mb=1)
    assert list(packing.run())[-1] == 3
    packing.manifest().write(folder / "manifest.parquet")
    return folder / "manifest.parquet"


def test_every_part_is_measured_and_opencvs_threads_are_left_as_they_were(films):
    before = cv2.getNumThreads()
    result = measured(f"--dataset={films.root}")
    assert cv2.getNumThreads() == before
    assert tuple(result["pipelines"]) == PIPELINES
    assert all(rate > 0 for row in result["pipelines"].values() for rate in row.values())
    assert result["share_of_decode_rate"] > 0
    assert result["ratio_to_pillow"] > 1
    assert all(rate > 0 for rate in result["ceilings"].values())
    assert list(result["workers"]) == ["1", "2"]
    assert result["workers"]["1"]["ratio"] == 1
    assert (result["memory"]["films"], result["memory"]["compared_films"]) == (24, 12)
    assert result["memory"]["first_bytes"] > 30e6
    assert [line["rows"] for line in result["start"]] == [10, 40]
    text = printed(result)
    for title in ("times the Pillow pipeline", "the loader by its workers", "resident memory", "start of a loader"):
        assert title in text


def test_pictures_in_shards_are_measured_too(packed):
    result = measured(f"--dataset={packed}", "--parts", "pipelines", "start")
    assert 150_000 < result["mean_file_bytes"] < 250_000
    assert "workers" not in result
    assert "the loader by its workers" not in printed(result)


def test_a_part_that_was_not_asked_for_is_not_measured(films):
    result = measured(f"--dataset={films.root}", "--parts", "memory", "--films-flat", "5")
    assert result["memory"]["films"] == 4
    assert not {"pipelines", "workers", "start"} & set(result)


def test_a_number_below_one_is_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        measured("--workers", "0")
    assert "argument --workers: 0 is less than 1" in capsys.readouterr().err


def test_the_rate_of_decoding_counts_every_picture(packed):
    rate = decode_rate(open_pictures(str(packed), data=Data(), seed=0), num_pictures=5)
    assert rate.per_core > 0
    assert rate.by_clock > 0
