import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from dinov2 import manifest
from dinov2.config.preprocess import PreprocessConfig, Privacy, Resample
from dinov2.errors import LaunchError
from dinov2.phantom.anatomy import HEART, LEFT_LUNG, RIGHT_LUNG, render
from dinov2.phantom.body import Findings, draw_body
from dinov2.phantom.dicom import BITS_STORED, SYNTAXES, Identification, Technique, write_film
from dinov2.phantom.series import draw_series, plan_series
from dinov2.preprocess.quality.likeness import likeness
from tests.preprocess.films import convert


def draw(folder: Path, **words) -> Path:
    list(draw_series(folder, **({"count": 10, "seed": 3, "short_side": 128} | words)))
    return folder


def labels(folder: Path) -> list[dict[str, str]]:
    with (folder / "labels.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_films(tmp_path):
    first, again, other = draw(tmp_path / "a"), draw(tmp_path / "b"), draw(tmp_path / "c", seed=4)
    files = sorted(p.relative_to(first) for p in first.rglob("*") if p.is_file())
    assert len(files) == 21
    assert all((first / f).read_bytes() == (again / f).read_bytes() for f in files)
    assert all((first / f).read_bytes() != (other / f).read_bytes() for f in files if f.suffix == ".dcm")


def test_a_film_does_not_depend_on_how_many_are_drawn(tmp_path):
    few, many = draw(tmp_path / "few", count=2), draw(tmp_path / "many", count=5)
    for name in ("phantom_00000.dcm", "phantom_00001.dcm"):
        assert (few / "dicom" / name).read_bytes() == (many / "dicom" / name).read_bytes()


def test_every_film_says_that_it_is_synthetic(tmp_path):
    for path in draw(tmp_path / "p").glob("dicom/*.dcm"):
        dataset = pydicom.dcmread(path)
        assert str(dataset.PatientName).startswith("PHANTOM^")
        assert "SYNTHETIC" in dataset.ImageComments
        assert "SYNTHETIC" in dataset.SeriesDescription
        assert (dataset.BurnedInAnnotation, dataset.BodyPartExamined) == ("NO", "CHEST")


def test_a_series_goes_round_all_syntaxes_depths_and_polarities():
    techniques = [plan.technique for plan in plan_series(70, seed=0)]
    assert {t.syntax for t in techniques} == set(SYNTAXES)
    assert {t.bits_stored for t in techniques} == set(BITS_STORED)
    assert {t.monochrome1 for t in techniques} == {True, False}
    assert len({(t.syntax, t.bits_stored, t.monochrome1) for t in techniques}) == 70


def test_no_patient_is_in_two_splits_and_every_split_has_some():
    plans = plan_series(64, seed=0)
    by_patient = {plan.patient: {p.split for p in plans if p.patient == plan.patient} for plan in plans}
    assert all(len(splits) == 1 for splits in by_patient.values())
    assert len(by_patient) < len(plans), "some patients have several films"
    assert {plan.split for plan in plans} == {"train", "val", "test"}


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.name)
def test_what_is_written_is_what_is_read_back(tmp_path, syntax):
    film = np.random.default_rng(0).random((80, 91), dtype=np.float32)
    for bits in BITS_STORED:
        technique = Technique(
            syntax=syntax, bits_stored=bits, monochrome1=bits == 10, slope=-1.0 if bits == 14 else 1.0
        )
        who = Identification(series="s", patient="P", number=0, view="PA")
        write_film(tmp_path / "a.dcm", film, technique=technique, identification=who)
        dataset = pydicom.dcmread(tmp_path / "a.dcm")
        top = 2**bits - 1
        expected = np.rint(top * (0.05 + 0.9 * film.astype(np.float64)))
        turned = bits in (10, 14)
        assert dataset.file_meta.TransferSyntaxUID == syntax
        assert (dataset.BitsStored, dataset.HighBit) == (bits, bits - 1)
        assert np.array_equal(dataset.pixel_array, top - expected if turned else expected)


def test_a_technique_that_cannot_be_stored_is_refused(tmp_path):
    who = Identification(series="s", patient="P", number=0, view="PA")
    with pytest.raises(ValueError, match="17 bits"):
        write_film(
            tmp_path / "a", np.zeros((9, 9), np.float32), technique=Technique(bits_stored=17), identification=who
        )


def body_of(seed: int, **findings: bool):
    return draw_body(np.random.default_rng(seed), view="PA", findings=Findings(**findings))


@pytest.mark.parametrize("seed", range(4))
def test_the_mask_says_where_the_organs_of_the_film_are(seed):
    phantom = render(body_of(seed), short_side=192)
    assert phantom.film.shape == phantom.mask.shape
    assert min(phantom.film.shape) == 192
    assert set(np.unique(phantom.mask)) == {0, 1, 2, 3}
    columns = {organ: np.nonzero(phantom.mask == organ)[1].mean() for organ in (LEFT_LUNG, RIGHT_LUNG, HEART)}
    assert columns[RIGHT_LUNG] < columns[HEART] < columns[LEFT_LUNG], "the patient's left is on the right"
    lungs = phantom.film[(phantom.mask == LEFT_LUNG) | (phantom.mask == RIGHT_LUNG)].mean()
    assert phantom.film[phantom.mask == HEART].mean() > lungs + 0.1
    assert (phantom.film.min(), phantom.film.max()) >= (0, 0.9)


def test_a_larger_heart_a_nodule_and_fluid_are_seen_on_the_film():
    plain, large = (render(body_of(1, cardiomegaly=flag), short_side=192) for flag in (False, True))
    assert (large.mask == HEART).sum() > 1.4 * (plain.mask == HEART).sum()
    for finding in ("nodule", "effusion"):
        body = body_of(2, **{finding: True})
        from dataclasses import replace

        healthy = replace(body, nodules=(), effusion=None)
        change = render(body, short_side=192).film - render(healthy, short_side=192).film
        assert change.max() > 0.08, finding
        assert (np.abs(change) > 0.05).mean() < 0.35, "only a part of the film changes"


def test_phantoms_look_like_chest_films_to_the_polarity_check():
    for seed in range(6):
        film = render(body_of(seed, effusion=seed % 2 == 0), short_side=128).film
        assert likeness((film * 255).astype(np.uint8)) > 0.1


def test_a_series_goes_through_the_conversion_with_its_labels(tmp_path):
    folder = draw(tmp_path / "p", count=14)
    config = PreprocessConfig(resample=Resample(short_side=96), privacy=Privacy(source_names="path"))
    summary, _ = convert(folder / "dicom", tmp_path / "out", config=config, table=folder / "labels.csv")
    assert (summary.num_pictures, dict(summary.reasons), dict(summary.flags)) == (14, {}, {})
    rows = manifest.read(tmp_path / "out/manifest.parquet").table.to_pylist()
    for row, label in zip(rows, labels(folder), strict=True):
        assert label["file"].endswith(row["source"])
        assert (row["view"], row["split"], str(row["label_nodule"])) == (
            label["view"],
            label["split"],
            label["label_nodule"],
        )
        mask = np.asarray(Image.open(folder / label["mask"]))
        assert mask.shape[0] / mask.shape[1] == pytest.approx(row["height"] / row["width"], rel=0.02)


def test_a_series_that_makes_no_sense_or_is_there_already_is_refused(tmp_path):
    for words in ({"count": 0}, {"seed": -1}, {"short_side": 10}):
        with pytest.raises(LaunchError, match="give at least 1 film"):
            draw(tmp_path / "p", **words)
    draw(tmp_path / "p", count=1)
    with pytest.raises(LaunchError, match="finished series"):
        draw(tmp_path / "p", count=1)


def test_an_interrupted_series_is_drawn_anew_and_leaves_nothing_of_the_old(tmp_path):
    films = draw_series(tmp_path / "p", count=9, seed=9, short_side=128)
    for _ in range(4):
        next(films)
    films.close()
    draw(tmp_path / "p", count=2)
    assert len(list((tmp_path / "p/dicom").iterdir())) == 2


def test_the_command_draws_and_names_the_next_one(tmp_path):
    words = ["--output", tmp_path / "p", "--count", "2", "--seed", "0", "--short-side", "128"]
    done = subprocess.run(
        [sys.executable, "-m", "dinov2", "phantom", *map(str, words)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"dinov2 preprocess --input {tmp_path / 'p'}/dicom" in done.stdout
