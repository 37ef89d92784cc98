import io
import tracemalloc
import zlib

import numpy as np
import pydicom
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless

from dinov2.phantom.dicom import Technique
from dinov2.preprocess.reasons import Reason
from tests.preprocess.decode.films import dicom, film, of_pixels, phantom, reason_of, retagged, saved, values

MB = 1 << 20


@pytest.mark.parametrize("syntax", [None, JPEG2000Lossless])
def test_a_header_that_claims_more_pixels_than_allowed_is_refused_before_allocation(syntax):
    data = retagged(dicom(syntax) if syntax else dicom(), Rows=65000, Columns=65000)
    tracemalloc.start()
    assert reason_of(data) == Reason.TOO_LARGE
    assert tracemalloc.get_traced_memory()[1] < 8 * MB
    tracemalloc.stop()


def test_the_limit_of_pixels_is_the_one_of_the_settings():
    rows, columns = values(dicom()).shape
    assert reason_of(dicom(), max_megapixels=rows * columns / 1e6 - 1e-3) == Reason.TOO_LARGE
    film(dicom(), max_megapixels=rows * columns / 1e6)


def deflated(content: bytes) -> bytes:
    """A deflated file whose data set is `content`."""
    data = phantom(Technique(syntax=DeflatedExplicitVRLittleEndian))
    at = data.index(DeflatedExplicitVRLittleEndian.encode()) - 8
    end = data.index(b"\x02\x00\x12\x00UI")
    length = int.from_bytes(data[end + 6 : end + 8], "little")
    rest = end + 8 + length
    while data[rest : rest + 2] == b"\x02\x00":
        rest += 8 + int.from_bytes(data[rest + 6 : rest + 8], "little")
    assert at < rest
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return data[:rest] + packer.compress(content) + packer.flush()


def test_a_deflated_bomb_is_inflated_no_further_than_allowed():
    bomb = deflated(bytes(256 * MB))
    assert len(bomb) < MB
    tracemalloc.start()
    assert reason_of(bomb, max_file_mb=4) == Reason.TOO_LARGE
    assert tracemalloc.get_traced_memory()[1] < 16 * MB
    tracemalloc.stop()


def test_a_deflated_film_may_be_as_large_as_allowed_once_inflated():
    data = phantom(Technique(syntax=DeflatedExplicitVRLittleEndian))
    assert np.array_equal(values(data, max_file_mb=1), values(dicom()))
    assert reason_of(data, max_file_mb=0.01) == Reason.TOO_LARGE
    assert reason_of(data[132:], max_file_mb=0.01) == Reason.TOO_LARGE, "nor without a preamble"


def nested(depth: int, *, tail: bytes) -> bytes:
    """Sequences in sequences, as (0040,0275), before `tail`."""
    opening = b"\x40\x00\x75\x02SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    closing = b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0"
    return opening * depth + closing * depth + tail


@pytest.mark.parametrize("depth", [3, 5000])
def test_sequences_may_be_nested_and_not_without_end(depth):
    data = dicom()
    at = data.index(b"\xe0\x7f\x10\x00OW\0\0")
    changed = data[:at] + nested(depth, tail=data[at:])
    if depth == 3:
        assert np.array_equal(values(changed), values(data))
    else:
        assert reason_of(changed) == Reason.UNREADABLE


def test_an_element_that_claims_more_than_the_file_is_refused():
    data = dicom()
    at = data.index(b"\x10\x00\x20\x00LO") + 6
    assert reason_of(data[:at] + b"\xfe\xff" + data[at + 2 :]) in (Reason.TRUNCATED, Reason.UNREADABLE)


def test_a_file_without_pixels_says_so_and_one_that_was_cut_before_them_says_that():
    dataset = pydicom.dcmread(io.BytesIO(dicom()))
    del dataset.PixelData
    stream = io.BytesIO()
    dataset.save_as(stream)
    assert reason_of(stream.getvalue()) == Reason.NO_PIXELS
    assert reason_of(stream.getvalue()[:-3]) == Reason.TRUNCATED


@pytest.mark.parametrize("content", [b"", b"no film at all" * 40, bytes(1000), b"\x89PNG", b"DICM"])
def test_what_is_no_image_is_told(content):
    assert reason_of(content) in (Reason.NOT_AN_IMAGE, Reason.UNREADABLE)


def test_a_film_costs_no_more_than_five_times_its_pixels():
    stored = np.random.default_rng(0).integers(0, 4096, (1500, 1200), dtype=np.uint16)
    dataset = pydicom.dcmread(io.BytesIO(of_pixels(stored, BitsStored=12)))
    dataset.add_new("PixelPaddingValue", "US", 0)
    data = saved(dataset)
    film(data)
    tracemalloc.start()
    film(data)
    peak = tracemalloc.get_traced_memory()[1] + len(data)
    tracemalloc.stop()
    assert peak < 5 * stored.nbytes
