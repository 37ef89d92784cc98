import numpy as np
import pytest
from pydicom.uid import JPEGLosslessSV1, JPEGLSLossless

from dinov2.phantom.encoders import encode
from dinov2.preprocess.reasons import Flag, Reason
from tests.preprocess.decode.films import dicom, drawn, encapsulated, film, of_pixels, reason_of, retagged, stream_in

TWELVE = np.rint(4095 * drawn()).astype(np.uint16)
RNG = np.random.default_rng(0)


def signed_containers(values: np.ndarray) -> np.ndarray:
    return values.astype(np.int16).view(np.uint16)


def test_junk_above_the_stored_bits_is_cut_off():
    for junk in (RNG.integers(0, 16, TWELVE.shape, dtype=np.uint16) << 12, np.uint16(0x8000)):
        found = film(of_pixels(TWELVE | junk, BitsStored=12))
        assert np.array_equal(found.pixels, TWELVE)
        assert (found.bits_stored, found.flags) == (12, ())


def test_an_overlay_in_the_highest_bit_is_cut_off():
    overlay = np.zeros_like(TWELVE)
    overlay[10:30, 20:50] = 1 << 15
    assert np.array_equal(film(of_pixels(TWELVE | overlay, BitsStored=12)).pixels, TWELVE)


@pytest.mark.parametrize("stated", [8, 10, 12, 15])
def test_a_film_that_has_more_bits_than_its_header_says_is_believed(stated):
    sixteen = np.rint(65535 * drawn()).astype(np.uint16)
    found = film(of_pixels(sixteen, BitsStored=stated))
    assert np.array_equal(found.pixels, sixteen)
    assert (found.bits_stored, found.flags) == (16, (Flag.HEADER_DISAGREES,))


@pytest.mark.parametrize("syntax", [JPEGLSLossless, JPEGLosslessSV1])
def test_a_compressed_film_that_has_more_bits_than_its_header_says_is_believed(syntax):
    found = film(retagged(dicom(syntax), BitsStored=10, HighBit=9))
    assert np.array_equal(found.pixels, film(dicom()).pixels)
    assert (found.bits_stored, found.flags) == (12, (Flag.HEADER_DISAGREES,))


def test_more_precision_than_bits_stored_is_no_disagreement_while_the_values_keep_to_it():
    stream = stream_in(dicom(JPEGLosslessSV1))
    assert stream[stream.find(b"\xff\xc3") + 4] == 16, "written with 16 bits for 12"
    assert film(dicom(JPEGLosslessSV1)).flags == ()


@pytest.mark.parametrize("extended", [False, True])
def test_signed_values_are_read_whether_or_not_their_sign_was_carried_up(extended):
    signed = TWELVE.astype(int) - 2048
    containers = signed_containers(signed) if extended else signed_containers(signed) & 0x0FFF
    found = film(of_pixels(containers, BitsStored=12, PixelRepresentation=1))
    assert np.array_equal(found.pixels, signed)
    assert found.flags == ()


def test_signed_values_of_a_compressed_stream_are_read():
    signed = TWELVE.astype(int) - 2048
    stored = (signed_containers(signed) & 0x0FFF).astype(np.uint16)
    data = encapsulated(
        [encode(stored, syntax=JPEGLSLossless, bits_stored=12)], syntax=JPEGLSLossless, PixelRepresentation=1
    )
    assert np.array_equal(film(data).pixels, signed)


def test_values_placed_at_the_top_of_their_containers_come_down():
    high = (TWELVE << 4) | RNG.integers(0, 16, TWELVE.shape, dtype=np.uint16)
    found = film(of_pixels(high, BitsStored=12, HighBit=15))
    assert np.array_equal(found.pixels, TWELVE)
    assert found.flags == ()


def test_a_high_bit_that_no_value_reaches_is_not_believed():
    found = film(of_pixels(TWELVE, BitsStored=12, HighBit=15))
    assert np.array_equal(found.pixels, TWELVE)
    assert found.flags == (Flag.HEADER_DISAGREES,)


@pytest.mark.parametrize("tags", [{"BitsStored": 0}, {"BitsStored": 17}, {"HighBit": 40}, {"HighBit": 3}])
def test_impossible_bits_are_not_believed_and_said(tags):
    full = TWELVE << 4 | TWELVE >> 8
    found = film(of_pixels(full, **{"HighBit": 15} | tags))
    assert np.array_equal(found.pixels, full)
    assert found.flags == (Flag.HEADER_DISAGREES,)


def test_absent_bits_follow_from_the_containers():
    found = film(of_pixels(TWELVE, BitsStored=None, HighBit=None))
    assert np.array_equal(found.pixels, TWELVE)
    assert (found.bits_stored, found.flags) == (16, ())


@pytest.mark.parametrize("is_signed", [False, True])
def test_thirty_two_bits_are_read(is_signed):
    wide = (TWELVE.astype(np.int64) - 2048 * is_signed).astype(np.int32).view(np.uint32)
    found = film(of_pixels(wide, BitsStored=32, PixelRepresentation=int(is_signed)))
    assert np.array_equal(found.pixels, TWELVE.astype(int) - 2048 * is_signed)


def test_an_odd_number_of_bytes_is_read_with_its_pad_byte_and_without():
    odd = RNG.integers(0, 256, (65, 71), dtype=np.uint8)
    data = of_pixels(odd)
    assert np.array_equal(film(data).pixels, odd)
    assert np.array_equal(
        film(data[:-1].replace((4616).to_bytes(4, "little"), (4615).to_bytes(4, "little"))).pixels, odd
    )


@pytest.mark.parametrize(
    "tags",
    [
        {"BitsAllocated": None},
        {"BitsAllocated": 12},
        {"BitsAllocated": 64},
        {"PixelRepresentation": 2},
        {"PixelRepresentation": None},
        {"Rows": 0},
        {"Columns": None},
        {"SamplesPerPixel": 3},
        {"SamplesPerPixel": 0},
    ],
)
def test_tags_that_contradict_one_another_are_refused(tags):
    assert reason_of(retagged(dicom(), **tags)) == Reason.BAD_HEADER
