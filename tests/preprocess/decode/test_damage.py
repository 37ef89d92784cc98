import io

import numpy as np
import pytest
from PIL import Image
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from dinov2.phantom.dicom import WRITABLE
from dinov2.preprocess.decode.codestream import jpeg, jpeg2000
from dinov2.preprocess.reasons import Reason
from tests.preprocess.decode.damage import RASTERS, cut, decoded, filled, good_film, share_noticed
from tests.preprocess.decode.films import dicom, drawn, encapsulated, reason_of, retagged, stream_in, values
from tests.preprocess.films import CXR, needs_radiographs

COMPRESSED = [syntax for syntax in WRITABLE if syntax.is_encapsulated]
JPEG_FAMILY = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLosslessSV1, JPEGLSLossless)
REASONS = {Reason.TRUNCATED, Reason.UNDECODABLE, Reason.UNREADABLE}


def named(form) -> str:
    return getattr(form, "name", form)


@pytest.mark.parametrize("form", [*WRITABLE, *RASTERS], ids=named)
def test_a_file_that_was_cut_gives_no_picture(form):
    film, rng = good_film(form), np.random.default_rng(0)
    for _ in range(12):
        assert decoded(cut(film, rng)) in REASONS


@pytest.mark.parametrize("form", [*COMPRESSED, DeflatedExplicitVRLittleEndian, "PNG", "JPEG"], ids=named)
def test_a_cut_film_gives_no_picture_even_where_zeros_fill_it_up_and_its_end_is_there(form):
    film, rng = good_film(form), np.random.default_rng(0)
    reasons = [decoded(filled(film, rng)) for _ in range(12)]
    # high-throughput blocks may hold zeros for long, so that not every one that lost its data is told
    missed = [found for found in reasons if isinstance(found, np.ndarray)]
    assert len(missed) <= named(form).startswith("High-Throughput")
    assert {found for found in reasons if isinstance(found, str)} <= {*REASONS, Reason.BAD_HEADER}


@pytest.mark.parametrize("syntax", COMPRESSED, ids=named)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_a_cut_stream_is_refused_even_with_an_end_marker_glued_on(syntax, share):
    stream = stream_in(dicom(syntax)).rstrip(b"\0")
    kept = stream[: int(share * len(stream)) // 2 * 2]
    for end in (b"", b"\xff\xd9"):
        assert reason_of(encapsulated([kept + end], syntax=syntax)) in REASONS


@pytest.mark.parametrize("syntax", COMPRESSED, ids=named)
def test_what_stands_behind_the_end_of_a_stream_is_refused_unless_it_is_padding(syntax):
    stream = stream_in(dicom(syntax))
    assert np.array_equal(values(encapsulated([stream + bytes(8)], syntax=syntax)), values(dicom(syntax)))
    if syntax != RLELossless:
        assert reason_of(encapsulated([stream + stream], syntax=syntax)) == Reason.UNDECODABLE
        assert reason_of(encapsulated([stream + b"film"], syntax=syntax)) == Reason.UNDECODABLE


@pytest.mark.parametrize("syntax", COMPRESSED, ids=named)
@pytest.mark.parametrize("tags", [{"Rows": 90}, {"Columns": 2000}, {"Rows": 65000, "Columns": 1500}])
def test_a_stream_of_another_size_than_the_header_says_is_refused_before_it_is_decoded(syntax, tags, monkeypatch):
    data = retagged(dicom(syntax), **tags)
    monkeypatch.setattr("dinov2.preprocess.decode.decoders.run", None)
    if syntax == RLELossless and tags == {"Rows": 90}:
        monkeypatch.undo()
        assert reason_of(data) == Reason.UNDECODABLE, "a run goes beyond the last pixel"
    elif syntax == RLELossless and tags == {"Columns": 2000}:
        monkeypatch.undo()
        assert reason_of(data) in (Reason.UNDECODABLE, Reason.TRUNCATED)
    else:
        assert reason_of(data) == (Reason.TRUNCATED if syntax == RLELossless else Reason.BAD_HEADER)


@pytest.mark.parametrize("syntax", COMPRESSED, ids=named)
def test_every_stream_that_a_phantom_writes_passes_the_walk(syntax):
    stream = stream_in(dicom(syntax))
    if syntax == RLELossless:
        return
    found = (jpeg2000 if stream.startswith(b"\xff\x4f") else jpeg).examine(stream)
    assert (found.rows, found.columns) == values(dicom(syntax)).shape
    assert found.components == 1
    assert found.precision >= (8 if syntax == JPEGBaseline8Bit else 12)


@pytest.mark.parametrize("syntax", JPEG_FAMILY, ids=named)
@pytest.mark.parametrize(
    "insert", [b"\xff\xd8", b"\xff\xd9", b"\xff\xd3", b"\xff\xc0", b"\xff\xda", b"\xff\x90"], ids=bytes.hex
)
def test_a_marker_inside_coded_data_is_no_coded_data(syntax, insert):
    stream = stream_in(dicom(syntax))
    middle = (stream.rfind(b"\xff\xda") + len(stream)) // 2
    assert reason_of(encapsulated([stream[:middle] + insert + stream[middle + 2 :]], syntax=syntax)) in REASONS


@pytest.mark.parametrize("syntax", JPEG_FAMILY, ids=named)
def test_a_segment_that_lies_about_its_length_is_refused(syntax):
    stream = bytearray(stream_in(dicom(syntax)))
    at = stream.rfind(b"\xff\xda") + 2
    for length in (0, 1, 3, 0x4000, 0xFFFF):
        stream[at : at + 2] = length.to_bytes(2, "big")
        assert reason_of(encapsulated([bytes(stream)], syntax=syntax)) in REASONS


def restarted() -> bytes:
    """A JPEG with a restart marker after every row of blocks."""
    stream = io.BytesIO()
    Image.fromarray((drawn() * 255).astype(np.uint8)).save(stream, "JPEG", quality=95, restart_marker_rows=1)
    return stream.getvalue()


def test_a_lost_doubled_or_misplaced_restart_interval_is_noticed():
    stream = restarted()
    whole = jpeg.examine(stream)
    starts = [at for at in range(len(stream) - 1) if stream[at] == 0xFF and 0xD0 <= stream[at + 1] <= 0xD7]
    assert len(starts) == -(-whole.rows // 8) - 1
    lost = stream[: starts[1]] + stream[starts[2] :]
    eight_lost = stream[: starts[1]] + stream[starts[9] :]
    doubled = stream[: starts[2]] + stream[starts[1] :]
    for damaged in (lost, eight_lost, doubled):
        with pytest.raises(jpeg.refusals.DicomRejected) as caught:
            jpeg.examine(damaged)
        assert caught.value.reason == Reason.UNDECODABLE


def test_tile_parts_must_add_up():
    stream = bytearray(stream_in(dicom(JPEG2000Lossless)).rstrip(b"\0"))
    at = stream.find(b"\xff\x90") + 6
    length = int.from_bytes(stream[at : at + 4], "big")
    for wrong in (length - 8, length + 8, 12, 2**31):
        stream[at : at + 4] = wrong.to_bytes(4, "big")
        assert reason_of(encapsulated([bytes(stream)], syntax=JPEG2000Lossless)) in REASONS
    stream[at : at + 4] = bytes(4)  # the last tile-part may leave its length open
    assert np.array_equal(values(encapsulated([bytes(stream)], syntax=JPEG2000Lossless)), values(dicom()))


def test_lost_tiles_are_noticed():
    import imagecodecs

    stored = values(dicom()).astype(np.uint16)
    stream = bytes(imagecodecs.htj2k_encode(stored, reversible=True, tile=(64, 64)))
    assert np.array_equal(values(encapsulated([stream], syntax=HTJ2KLossless)), stored)
    starts = [at for at in range(len(stream) - 1) if stream[at : at + 4] == b"\xff\x90\x00\x0a"]
    assert len(starts) == 4
    assert reason_of(encapsulated([stream[: starts[-1]] + b"\xff\xd9"], syntax=HTJ2KLossless)) == Reason.TRUNCATED
    swapped = stream[: starts[1]] + stream[starts[1] : starts[2]] + stream[starts[1] :]
    assert reason_of(encapsulated([swapped], syntax=HTJ2KLossless)) == Reason.UNDECODABLE


@pytest.mark.parametrize("place", [0, 4, 8, 12])
@pytest.mark.parametrize("number", [3, 63, 65, 2**31, 2**32 - 1])
def test_an_rle_header_that_makes_no_sense_is_refused(place, number):
    stream = stream_in(dicom(RLELossless))
    changed = stream[:place] + number.to_bytes(4, "little") + stream[place + 4 :]
    assert reason_of(encapsulated([changed], syntax=RLELossless)) in REASONS


def test_an_rle_segment_shorter_than_any_packing_is_refused_before_allocation(monkeypatch):
    monkeypatch.setattr("dinov2.preprocess.decode.decoders.run", None)
    assert reason_of(retagged(dicom(RLELossless), Rows=30000, Columns=3000)) == Reason.TRUNCATED


@pytest.mark.parametrize("size", [0, 2, 1000, -2])
def test_native_pixels_that_are_too_few_are_refused_before_numpy_sees_them(size, monkeypatch):
    monkeypatch.setattr("numpy.frombuffer", None)
    needed = 2 * 96 * 107
    reason = reason_of(retagged(dicom(), PixelData=bytes(size if size >= 0 else needed + size)))
    assert reason == (Reason.NO_PIXELS if size == 0 else Reason.TRUNCATED)


@pytest.mark.parametrize("tags", [{"Rows": 60}, {"Columns": 48}, {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}])
def test_native_pixels_that_are_far_too_many_are_refused(tags):
    assert reason_of(retagged(dicom(), **tags)) == Reason.BAD_HEADER


@pytest.mark.parametrize("length", [0, 2, 100, 20000, 0x7FFFFFFE, 0xFFFFFFFE, 0xFFFFFFFF])
def test_a_wrong_length_of_the_pixel_data_is_refused(length):
    data = dicom(ExplicitVRLittleEndian)
    at = data.index(b"\xe0\x7f\x10\x00OW\0\0") + 8
    assert reason_of(data[:at] + length.to_bytes(4, "little") + data[at + 4 :]) in {
        Reason.NO_PIXELS,
        Reason.TRUNCATED,
        Reason.BAD_HEADER,
        Reason.UNDECODABLE,
    }


@pytest.mark.parametrize(
    ("form", "share"),
    [(JPEGLSLossless, 0.9), ("PNG", 1.0), (JPEGExtended12Bit, 0.4), (JPEGBaseline8Bit, 0.2), (RLELossless, 0.05)],
    ids=named,
)
def test_a_changed_byte_is_noticed_in_the_share_that_the_form_allows(form, share):
    noticed, reasons = share_noticed(good_film(form), kind="a byte changed", count=60)
    assert noticed >= share
    assert set(reasons) - {"picture", "unchanged"} <= REASONS


@needs_radiographs
def test_real_streams_pass_the_walk_and_do_not_once_they_are_cut():
    for path in sorted((CXR / "dicom").glob("*.dcm")):
        data = path.read_bytes()
        values(data)
        assert reason_of(data[: int(0.9 * len(data))]) in REASONS
