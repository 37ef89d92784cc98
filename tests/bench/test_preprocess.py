import argparse

import numpy as np
import pydicom
import pytest
from PIL import Image

from dinov2.bench.plain_preprocess import plain_convert
from dinov2.bench.preprocess import add_arguments, compare_engines, draw_film, run, table, write_films
from dinov2.config.preprocess import Limits, PreprocessConfig
from dinov2.errors import ConfigError
from dinov2.preprocess.decode.film import open_film
from dinov2.preprocess.render.picture import render


def words(*given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(list(given))


def test_the_films_are_uncompressed_sixteen_bit_dicom_of_different_persons(tmp_path):
    write_films(tmp_path / "films", count=6, size=(300, 260), seed=0)
    datasets = [pydicom.dcmread(path) for path in sorted((tmp_path / "films").iterdir())]
    assert all((d.Rows, d.Columns, d.BitsStored) == (300, 260, 16) for d in datasets)
    assert all(not d.file_meta.TransferSyntaxUID.is_compressed for d in datasets)
    assert len({d.SOPInstanceUID for d in datasets}) == len({d.PatientID for d in datasets}) == 6
    assert len(np.unique(datasets[0].pixel_array)) > 10_000, "grain at full size"


def test_the_engines_are_compared_on_their_results_too():
    compared = compare_engines(draw_film((700, 600), seed=1), repeats=1)
    assert compared.largest_difference < 2e-6
    assert compared.equal_levels > 0.999
    assert compared.largest_level_difference <= 1
    assert compared.ratio > 1


def test_the_benchmark_measures_real_workers_and_says_what_they_cost():
    result = run(words("--films=16", "--repeats=1", "--height=640", "--width=560"))
    assert result["file_to_png"]["ratio"] > 0
    assert all(rate > 0 for rate in result["workers"]["files_per_second"].values())
    assert all(2e7 < peak < 4e8 for peak in result["peak_resident_bytes"].values())
    assert table(result).row_count == 4


def test_the_yardstick_makes_the_pictures_that_ours_makes(tmp_path):
    write_films(tmp_path / "films", count=6, size=(640, 560), seed=0)
    for path in (tmp_path / "films" / "0000.dcm", tmp_path / "films" / "0005.dcm"):  # MONOCHROME2 and MONOCHROME1
        plain_convert(path, tmp_path / "plain.png")
        config = PreprocessConfig()
        film = open_film(path.read_bytes(), policy=config.decode, limits=Limits()).frame(0)
        with Image.open(tmp_path / "plain.png") as opened:
            away = np.abs(np.asarray(opened).astype(int) - render(film, config=config))
        assert (away == 0).mean() > 0.999
        assert away.max() <= 1


def test_too_few_films_to_time_are_refused():
    with pytest.raises(ConfigError, match="at least 16 and 1"):
        run(words("--films=4"))
