"""The table of the example radiographs, row by row; skipped where they are absent."""

import numpy as np
import pyarrow.parquet as pq
import pydicom
import pytest
from PIL import Image

from dinov2.config.preprocess import Decode, Filters, Intensity, PreprocessConfig
from dinov2.errors import DicomRejected
from dinov2.preprocess.decode.dicom import read_dicom
from dinov2.preprocess.quality.likeness import likeness
from dinov2.preprocess.render.picture import render
from dinov2.preprocess.work.task import read_film
from tests.preprocess.films import CXR, convert, needs_radiographs

pytestmark = needs_radiographs
DEFAULT = PreprocessConfig()
OPEN = PreprocessConfig(filters=Filters(modalities=(), body_parts=()))


def picture(name: str, config: PreprocessConfig = DEFAULT) -> np.ndarray:
    return render(read_film(CXR / "dicom" / name, config=config)[0], config=config)


def reason(name: str) -> str:
    with pytest.raises(DicomRejected) as caught:
        picture(name)
    return caught.value.reason


def test_a_monochrome1_chest_film_has_dark_lungs_and_a_bright_spine():
    film = picture("chest_mono1_15bit_j2k.dcm")
    assert film.shape == (550, 518)
    assert likeness(film) > 0.3
    assert film[60:120, 245:275].mean() > film[150:250, 120:170].mean() + 50, "spine against right lung"


def test_near_lossless_jpeg_ls_gives_the_same_picture_within_a_few_levels():
    first, second = (picture(f"chest_mono1_{name}.dcm").astype(int) for name in ("15bit_j2k", "jpegls_near"))
    assert np.abs(first - second).max() <= 5


def test_an_eight_bit_jpeg_baseline_film_is_accepted_upright():
    assert likeness(picture("chest_mono2_jpeg_baseline.dcm")) > 0.3


def test_the_relabelled_film_is_the_negative_and_is_flagged(tmp_path):
    good, bad = picture("chest_mono2_jpeg_baseline.dcm"), picture("chest_mono1_relabelled.dcm")
    assert np.abs(255 - good.astype(int) - bad).max() <= 1
    convert(CXR / "dicom" / "chest_mono1_relabelled.dcm", tmp_path / "out", config=DEFAULT)
    assert pq.read_table(tmp_path / "out/manifest.parquet").column("flags").to_pylist() == ["polarity_suspect"]


@pytest.mark.parametrize("name", ["hip_mono2_jpeg_lossless", "hip_mono2_rle", "ankle_mono1_j2k_lossless"])
def test_other_parts_of_the_body_decode_and_are_left_out(name):
    assert reason(f"{name}.dcm") == "body_part"
    assert min(picture(f"{name}.dcm", OPEN).shape) == 518


def test_the_two_copies_of_the_hip_decode_to_the_same_picture():
    assert np.array_equal(picture("hip_mono2_jpeg_lossless.dcm", OPEN), picture("hip_mono2_rle.dcm", OPEN))


@pytest.mark.parametrize("name", ["mlut_18.dcm", "vlut_04.dcm"])
def test_lut_test_objects_are_left_out_by_their_modality(name):
    assert reason(name) == "modality"


def test_the_modality_lut_of_the_test_object_is_applied_entry_by_entry():
    path = CXR / "dicom" / "mlut_18.dcm"
    dataset = pydicom.dcmread(path)
    item = dataset.ModalityLUTSequence[0]
    table = (
        np.asarray(item.LUTData).astype("<u2")
        if not isinstance(item.LUTData, bytes)
        else np.frombuffer(item.LUTData, "<u2")
    )
    first = int(item.LUTDescriptor[1])
    expected = table[np.clip(dataset.pixel_array.astype(int) - first, 0, len(table) - 1)]
    assert np.array_equal(read_dicom(path, policy=Decode()).pixels, expected)


def test_the_voi_lut_of_the_test_object_is_applied_where_asked_for():
    path = CXR / "dicom" / "vlut_04.dcm"
    dataset = pydicom.dcmread(path)
    item = dataset.VOILUTSequence[0]
    table = (
        np.asarray(item.LUTData).astype("<u2")
        if not isinstance(item.LUTData, bytes)
        else np.frombuffer(item.LUTData, "<u2")
    )
    film = read_dicom(path, policy=Decode(voi=True))
    assert np.array_equal(film.pixels, table[dataset.pixel_array])
    assert film.flags == ()
    assert not np.array_equal(film.pixels, read_dicom(path, policy=Decode()).pixels)


def test_in_one_run_three_films_are_accepted_and_each_of_the_rest_has_its_reason(tmp_path):
    summary, _ = convert(CXR / "dicom", tmp_path / "out", config=DEFAULT)
    rows = pq.read_table(tmp_path / "out/manifest.parquet").to_pylist()
    accepted = ["chest_mono1_15bit_j2k.dcm", "chest_mono1_jpegls_near.dcm", "chest_mono2_jpeg_baseline.dcm"]
    assert [row["source"] for row in rows] == accepted
    assert {str(reason): count for reason, count in summary.reasons.items()} == {
        "body_part": 3,
        "modality": 2,
        "duplicate_uid": 1,
    }
    assert all(row["flags"] == "" and row["view"] == "PA" for row in rows)


@pytest.mark.parametrize("mapping", ["minmax", "percentile", "equalise"])
def test_every_mapping_keeps_a_real_film_upright(mapping):
    film = picture("chest_mono1_15bit_j2k.dcm", PreprocessConfig(intensity=Intensity(mapping=mapping)))
    assert likeness(film) > 0.2
    assert film.std() > 30


def test_few_of_the_real_films_are_taken_for_negatives_and_all_negatives_are_found():
    names = sorted((CXR / "hannover").glob("*.png"))[::6]
    scores = np.array([likeness(np.asarray(Image.open(name))) for name in names])
    assert (scores < 0).mean() < 0.05
    negatives = np.array([likeness(255 - np.asarray(Image.open(name))) for name in names])
    assert (negatives < 0).mean() > 0.95


def test_the_table_of_the_png_films_joins_every_one(tmp_path):
    few = tmp_path / "hannover"
    few.mkdir()
    for name in sorted((CXR / "hannover").glob("*.png"))[:4]:
        (few / name.name).write_bytes(name.read_bytes())
    summary, _ = convert(few, tmp_path / "out", config=DEFAULT, table=CXR / "hannover.csv")
    rows = pq.read_table(tmp_path / "out/manifest.parquet").to_pylist()
    assert summary.num_unmatched == 0
    assert all(row["view"] in ("AP", "PA") and row["split"] and row["patient"] and row["icu"] in (0, 1) for row in rows)
