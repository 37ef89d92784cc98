"""The table of the example radiographs, row by row; skipped where they are absent."""

import numpy as np
import pydicom
import pytest
from PIL import Image

from dinov2.config.preprocess import Decode, Filters, Intensity, Limits, PreprocessConfig
from dinov2.errors import DicomRejected
from dinov2.preprocess.decode.film import open_film
from dinov2.preprocess.quality import filters
from dinov2.preprocess.quality.likeness import likeness
from dinov2.preprocess.radiograph import Radiograph
from dinov2.preprocess.render.picture import render
from tests.preprocess.films import CXR, convert, needs_radiographs, rows_of

pytestmark = needs_radiographs
DEFAULT = PreprocessConfig()
OPEN = PreprocessConfig(filters=Filters(modalities=(), body_parts=()))


def decoded(name: str, config: PreprocessConfig = DEFAULT) -> Radiograph:
    film = open_film((CXR / "dicom" / name).read_bytes(), policy=config.decode, limits=Limits())
    filters.check(film.header, policy=config.filters)
    return film.frame(0)


def picture(name: str, config: PreprocessConfig = DEFAULT) -> np.ndarray:
    return render(decoded(name, config), config=config)


def reason(name: str) -> str:
    with pytest.raises(DicomRejected) as caught:
        picture(name)
    return caught.value.reason


def entries(item: pydicom.Dataset) -> np.ndarray:
    data = item.LUTData
    return np.frombuffer(data, "<u2") if isinstance(data, bytes) else np.asarray(data).astype("<u2")


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
    assert [row["flags"] for row in rows_of(tmp_path / "out")] == ["polarity_suspect,screenshot"]


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
    dataset = pydicom.dcmread(CXR / "dicom" / "mlut_18.dcm")
    item = dataset.ModalityLUTSequence[0]
    table, first = entries(item), int(item.LUTDescriptor[1])
    expected = table[np.clip(dataset.pixel_array.astype(int) - first, 0, len(table) - 1)]
    assert np.array_equal(decoded("mlut_18.dcm", OPEN).pixels, expected)


def test_the_voi_lut_of_the_test_object_is_applied_where_asked_for():
    dataset = pydicom.dcmread(CXR / "dicom" / "vlut_04.dcm")
    film = decoded("vlut_04.dcm", PreprocessConfig(filters=OPEN.filters, decode=Decode(voi=True)))
    assert np.array_equal(film.pixels, entries(dataset.VOILUTSequence[0])[dataset.pixel_array])
    assert film.flags == ()
    assert not np.array_equal(film.pixels, decoded("vlut_04.dcm", OPEN).pixels)


def test_in_one_run_three_films_are_accepted_and_each_of_the_rest_has_its_reason(tmp_path):
    """Two of the three are one film in two encodings, under two UIDs."""
    summary, _ = convert(CXR / "dicom", tmp_path / "out", config=DEFAULT)
    rows = rows_of(tmp_path / "out")
    crosswalk = (tmp_path / "out.private/crosswalk.csv").read_text().splitlines()
    accepted = ["chest_mono1_15bit_j2k.dcm", "chest_mono1_jpegls_near.dcm", "chest_mono2_jpeg_baseline.dcm"]
    names = [line.split(",")[1] for row in rows for line in crosswalk if line.startswith(row["source"])]
    assert names == accepted
    assert {str(reason): count for reason, count in summary.reasons.items()} == {
        "body_part": 3,
        "modality": 2,
        "duplicate_uid": 1,
    }
    assert summary.num_unlike == 1, "the relabelled film shows the negative of the one that is kept"
    assert [row["flags"] for row in rows] == ["", "near_duplicate", "screenshot"], "the third is a Secondary Capture"
    assert rows[1]["duplicate_of"] == rows[0]["image_id"]
    assert all(row["view"] == "PA" for row in rows)


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
    rows = rows_of(tmp_path / "out")
    assert summary.num_unmatched == 0
    assert all(row["view"] in ("AP", "PA") and row["split"] and row["patient"] and row["icu"] in (0, 1) for row in rows)
