import io

import numpy as np
import pydicom
import pytest
from pydicom.pixels import apply_voi_lut

from dinov2.config.preprocess import Decode
from dinov2.preprocess.reasons import Flag, Reason
from tests.preprocess.decode.films import dicom, film, of_pixels, opened, reason_of, retagged, saved, values
from tests.preprocess.films import CXR, needs_radiographs

VOI = Decode(voi=True)


def with_lut(keyword: str, *, first: int, table: np.ndarray, **tags) -> bytes:
    dataset = pydicom.dcmread(io.BytesIO(retagged(dicom(), **tags)))
    lut = pydicom.Dataset()
    lut.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(table), first, 16])
    lut.add_new("LUTData", "OW", table.astype("<u2").tobytes())
    setattr(dataset, keyword, [lut])
    if keyword == "ModalityLUTSequence":
        lut.ModalityLUTType = "US"
        for name in ("RescaleSlope", "RescaleIntercept", "RescaleType"):
            if name in dataset:
                delattr(dataset, name)
    return saved(dataset)


@pytest.mark.parametrize(("slope", "intercept"), [("2.5", "-100"), ("-1", "4095"), ("-0.25", "0.5"), ("1", "-1024")])
def test_a_rescale_gives_modality_values(slope, intercept):
    stored = pydicom.dcmread(io.BytesIO(dicom())).pixel_array
    found = values(retagged(dicom(), RescaleSlope=slope, RescaleIntercept=intercept))
    assert np.allclose(found, stored * float(slope) + float(intercept), rtol=1e-6)


def test_half_a_rescale_is_taken_as_far_as_it_goes():
    stored = values(dicom())
    assert np.array_equal(values(retagged(dicom(), RescaleSlope=None, RescaleIntercept="-7")), stored - 7)
    assert np.array_equal(values(retagged(dicom(), RescaleSlope="2", RescaleIntercept=None)), stored * 2)
    assert np.array_equal(values(retagged(dicom(), RescaleSlope="", RescaleIntercept="")), stored)


@pytest.mark.parametrize("tags", [{"RescaleSlope": "1e300"}, {"RescaleIntercept": "-1e300"}, {"RescaleSlope": "1E400"}])
def test_a_rescale_out_of_all_bounds_is_refused(tags):
    assert reason_of(retagged(dicom(), **tags)) == Reason.BAD_HEADER


def test_a_modality_lut_is_applied_and_reaches_below_zero():
    table = np.arange(4096)[::-1] * 7
    data = with_lut("ModalityLUTSequence", first=-10, table=table)
    stored = pydicom.dcmread(io.BytesIO(data)).pixel_array.astype(int)
    assert np.array_equal(values(data), table[np.clip(stored + 10, 0, 4095)])


def test_a_modality_lut_that_is_cut_is_refused():
    dataset = pydicom.dcmread(io.BytesIO(with_lut("ModalityLUTSequence", first=0, table=np.arange(4096))))
    dataset.ModalityLUTSequence[0].LUTData = b"\0\0"
    assert reason_of(saved(dataset)) == Reason.BAD_HEADER


@needs_radiographs
def test_the_modality_lut_of_the_test_object_is_applied_entry_by_entry():
    dataset = pydicom.dcmread(CXR / "dicom" / "mlut_18.dcm")
    item = dataset.ModalityLUTSequence[0]
    table = np.frombuffer(item.LUTData, "<u2") if isinstance(item.LUTData, bytes) else np.asarray(item.LUTData)
    expected = table.astype("<u2")[np.clip(dataset.pixel_array.astype(int) - item.LUTDescriptor[1], 0, len(table) - 1)]
    assert np.array_equal(values((CXR / "dicom" / "mlut_18.dcm").read_bytes()), expected)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID", None])
@pytest.mark.parametrize(("centre", "width"), [("1500", "500"), ("2047.5", "4096"), ("900", "1")])
def test_a_window_equals_pydicoms(function, centre, width):
    data = retagged(dicom(), WindowCenter=centre, WindowWidth=width)
    if function is not None:
        data = retagged(data, VOILUTFunction=function)
    dataset = pydicom.dcmread(io.BytesIO(data))
    found = film(data, policy=VOI)
    with np.errstate(over="ignore"):
        expected = apply_voi_lut(dataset.pixel_array, dataset)
    assert np.allclose(found.pixels, expected, atol=0.01)
    assert found.flags == ()
    assert not np.array_equal(found.pixels, values(data))


def test_the_first_of_several_windows_is_taken():
    several = retagged(dicom(), WindowCenter=["1500", "9"], WindowWidth=["500", "9"])
    one = retagged(dicom(), WindowCenter="1500", WindowWidth="500")
    assert np.array_equal(values(several, policy=VOI), values(one, policy=VOI))


@pytest.mark.parametrize(
    "tags",
    [
        {"WindowWidth": "0"},
        {"WindowWidth": None, "WindowCenter": None},
        {"WindowWidth": "-5"},
        {"WindowCenter": ""},
        {"VOILUTFunction": "CUBIC"},
    ],
)
def test_a_window_that_means_none_is_none_and_is_said(tags):
    found = film(retagged(dicom(), **tags), policy=VOI)
    assert found.flags == (Flag.NO_VOI,)
    assert np.array_equal(found.pixels, values(dicom()))


def test_a_voi_lut_goes_before_the_window():
    data = with_lut("VOILUTSequence", first=0, table=np.arange(4096) // 1024 * 1024)
    assert set(np.unique(values(data, policy=VOI))) <= {0.0, 1024.0, 2048.0, 3072.0}
    assert np.array_equal(values(data), values(dicom()))


def test_a_voi_lut_without_its_table_is_refused():
    dataset = pydicom.dcmread(io.BytesIO(with_lut("VOILUTSequence", first=0, table=np.arange(4096))))
    dataset.VOILUTSequence[0].LUTData = b"\0\0"
    assert reason_of(saved(dataset), policy=VOI) == Reason.BAD_HEADER


@needs_radiographs
def test_the_voi_lut_of_the_test_object_is_applied_where_asked_for():
    path = CXR / "dicom" / "vlut_04.dcm"
    dataset = pydicom.dcmread(path)
    item = dataset.VOILUTSequence[0]
    table = np.frombuffer(item.LUTData, "<u2") if isinstance(item.LUTData, bytes) else np.asarray(item.LUTData)
    found = film(path.read_bytes(), policy=VOI)
    assert np.array_equal(found.pixels, table.astype("<u2")[dataset.pixel_array])
    assert not np.array_equal(found.pixels, values(path.read_bytes()))


@pytest.mark.parametrize(
    ("photometric", "shape", "expected"),
    [
        ("MONOCHROME2", "IDENTITY", False),
        ("MONOCHROME2", "", False),
        ("MONOCHROME1", "", True),
        ("MONOCHROME1", "INVERSE", True),
        ("MONOCHROME2", "INVERSE", True),
        ("MONOCHROME1", "IDENTITY", True),
    ],
)
def test_polarity_is_stated_once_and_changes_no_value_here(photometric, shape, expected):
    found = film(retagged(dicom(), PhotometricInterpretation=photometric, PresentationLUTShape=shape))
    assert found.larger_is_darker is expected
    assert np.array_equal(found.pixels, values(dicom()))


PADDED = np.rint(4000 * np.random.default_rng(0).random((70, 80))).astype(np.uint16)
PADDED[:20] = 4095
PADDED[20:25] = 4090


@pytest.mark.parametrize(
    ("value", "limit", "rows"),
    [(4095, None, 20), (4095, 4090, 25), (4090, 4095, 25), (4094, None, 0), (65535, None, 20), (60000, 61000, None)],
)
def test_padding_is_masked_by_stored_value_and_range(value, limit, rows):
    dataset = pydicom.dcmread(io.BytesIO(of_pixels(PADDED, BitsStored=12, RescaleSlope="2", RescaleIntercept="-9")))
    dataset.add_new("PixelPaddingValue", "US", value)
    if limit is not None:
        dataset.add_new("PixelPaddingRangeLimit", "US", limit)
    mask = film(saved(dataset)).padding
    if not rows:
        assert mask is None or rows is None
    else:
        assert mask[:rows].all()
        assert not mask[rows:].any()


@pytest.mark.parametrize("stated", [-2000, 65536 - 2000, 4096 - 2000])
def test_padding_of_signed_pixels_is_found_however_it_is_written(stated):
    signed = (PADDED.astype(int) - 2048).clip(-1990, 2047)
    signed[:20] = -2000
    data = of_pixels(signed.astype(np.int16).view(np.uint16), BitsStored=12, PixelRepresentation=1)
    dataset = pydicom.dcmread(io.BytesIO(data))
    dataset.add_new("PixelPaddingValue", "SS" if stated < 0 else "US", stated)
    mask = film(saved(dataset)).padding
    assert mask[:20].all()
    assert not mask[20:].any()


def test_a_film_that_states_no_padding_has_no_mask():
    assert film(dicom()).padding is None


def test_spacing_comes_in_millimetres_between_rows_then_columns():
    assert opened(retagged(dicom(), ImagerPixelSpacing=["0.5", "0.25"])).header.spacing_mm == (0.5, 0.25)
    for bad in (["0", "0"], ["-1", "1"], "1", ["1", "2", "3"]):
        assert opened(retagged(dicom(), ImagerPixelSpacing=bad)).header.spacing_mm is None
