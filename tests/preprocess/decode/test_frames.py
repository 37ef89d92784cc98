import io

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGLosslessSV1, JPEGLSLossless, RLELossless

from dinov2.config.preprocess import Decode
from dinov2.phantom.encoders import encode
from dinov2.preprocess.decode import decoders
from dinov2.preprocess.reasons import Flag, Reason
from tests.preprocess.decode.films import (
    dicom,
    drawn,
    encapsulated,
    film,
    of_pixels,
    opened,
    reason_of,
    retagged,
    saved,
    stream_in,
)

FIRST, ALL = Decode(multi_frame="first"), Decode(multi_frame="all")
STACK = np.stack([np.rint(4095 * np.roll(drawn(), 20 * number, axis=0)) for number in range(3)]).astype(np.uint16)
COMPRESSED = (RLELossless, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless)


def streams(syntax) -> list[bytes]:
    return [encode(frame, syntax=syntax, bits_stored=12) for frame in STACK]


def stack_in(syntax=None, **words) -> bytes:
    if syntax is None:
        return of_pixels(STACK, BitsStored=12, NumberOfFrames=3)
    return encapsulated(streams(syntax), syntax=syntax, NumberOfFrames=3, **words)


@pytest.mark.parametrize("syntax", [None, *COMPRESSED])
@pytest.mark.parametrize("with_table", [False, True])
def test_every_frame_is_the_one_that_was_written(syntax, with_table):
    data = stack_in(syntax, with_table=with_table) if syntax else stack_in()
    opened_film = opened(data, policy=ALL)
    assert opened_film.header.num_frames == 3
    for index in (2, 0, 1):
        frame = opened_film.frame(index)
        assert np.array_equal(frame.pixels, STACK[index])
        assert frame.flags == (Flag.ONE_FRAME_OF_MANY,)
    with pytest.raises(IndexError):
        opened_film.frame(3)


@pytest.mark.parametrize("syntax", [None, *COMPRESSED])
def test_several_frames_are_refused_unless_asked_for(syntax):
    assert reason_of(stack_in(syntax)) == Reason.MULTI_FRAME
    assert np.array_equal(film(stack_in(syntax), policy=FIRST).pixels, STACK[0])


def test_only_the_frame_that_is_asked_for_is_decoded(monkeypatch):
    seen = []

    def decoder(stream, found, syntax):
        seen.append(stream)
        return decoders._by_pyjpegls(stream, found, syntax)

    monkeypatch.setitem(decoders.DECODERS, JPEGLSLossless, (decoder,))
    film(stack_in(JPEGLSLossless), policy=ALL, frame=1)
    assert [stream.rstrip(b"\0") for stream in seen] == [streams(JPEGLSLossless)[1].rstrip(b"\0")]


def test_a_frame_of_several_fragments_is_joined():
    stream = stream_in(dicom(JPEG2000Lossless))
    dataset = pydicom.dcmread(io.BytesIO(dicom(JPEG2000Lossless)))
    dataset.PixelData = encapsulate([stream], fragments_per_frame=5)
    assert np.array_equal(film(saved(dataset)).pixels, film(dicom()).pixels)


@pytest.mark.parametrize("table", ["basic", "none"])
def test_frames_of_several_fragments_are_told_apart(table):
    dataset = pydicom.dcmread(io.BytesIO(stack_in(JPEGLSLossless)))
    dataset.PixelData = encapsulate(streams(JPEGLSLossless), fragments_per_frame=3, has_bot=table == "basic")
    for index in range(3):
        assert np.array_equal(film(saved(dataset), policy=ALL, frame=index).pixels, STACK[index])


def test_an_extended_offset_table_is_followed():
    dataset = pydicom.dcmread(io.BytesIO(stack_in(RLELossless)))
    packed, offsets, lengths = encapsulate_extended(streams(RLELossless))
    dataset.PixelData = packed
    dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths = offsets, lengths
    assert np.array_equal(film(saved(dataset), policy=ALL, frame=2).pixels, STACK[2])


@pytest.mark.parametrize("syntax", [None, JPEGLSLossless, RLELossless])
@pytest.mark.parametrize(("count", "reasons"), [(4, {Reason.TRUNCATED}), (2, {Reason.BAD_HEADER}),
                                                (1_000_000, {Reason.TRUNCATED})])  # fmt: skip
def test_a_count_of_frames_that_the_data_does_not_bear_out_is_refused_on_opening(syntax, count, reasons):
    with pytest.raises(decoders.refusals.DicomRejected) as caught:
        opened(retagged(stack_in(syntax), NumberOfFrames=count), policy=ALL)
    assert caught.value.reason in reasons


@pytest.mark.parametrize("syntax", [None, JPEGLSLossless, RLELossless])
def test_several_frames_under_a_count_of_one_are_refused(syntax):
    for count in (1, 0, None):
        assert reason_of(retagged(stack_in(syntax), NumberOfFrames=count), policy=ALL) == Reason.BAD_HEADER


@pytest.mark.parametrize("count", ["-1", "99999999999", "many"])
def test_a_count_that_is_none_is_refused(count):
    data = retagged(dicom(), NumberOfFrames="1 ")
    at = data.index(b"IS", data.index(b"\x28\x00\x08\x00")) + 2
    changed = data[:at] + len(count.ljust(12)).to_bytes(2, "little") + count.ljust(12).encode() + data[at + 4 :]
    assert reason_of(changed) in (Reason.BAD_HEADER, Reason.UNREADABLE)


def test_a_count_of_zero_means_one():
    assert opened(retagged(dicom(), NumberOfFrames="0")).header.num_frames == 1


def test_damage_in_one_frame_leaves_the_others_to_be_read():
    whole = streams(JPEGLSLossless)
    data = encapsulated([whole[0], whole[1][:200], whole[2]], syntax=JPEGLSLossless, NumberOfFrames=3)
    assert np.array_equal(film(data, policy=ALL, frame=2).pixels, STACK[2])
    assert reason_of(data, policy=ALL, frame=1) == Reason.TRUNCATED


def test_a_lost_sequence_delimiter_alone_does_no_harm():
    data = dicom(JPEGBaseline8Bit)
    assert np.array_equal(film(data[:-8]).pixels, film(data).pixels)
    assert reason_of(data[:-40]) == Reason.TRUNCATED
