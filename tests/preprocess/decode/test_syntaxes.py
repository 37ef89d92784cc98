import io

import numpy as np
import pydicom
import pytest
from pydicom.uid import (
    MPEG2MPML,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from dinov2.config.preprocess import Decode, PreprocessConfig, Resample
from dinov2.phantom.dicom import BITS_STORED, WRITABLE
from dinov2.phantom.encoders import LOSSY
from dinov2.preprocess.decode.decoders import DECODERS, SUPPORTED
from dinov2.preprocess.reasons import Flag, Reason
from dinov2.preprocess.render.picture import render
from tests.preprocess.decode.films import (
    dicom,
    encapsulated,
    film,
    of_pixels,
    opened,
    phantom,
    reason_of,
    retagged,
    saved,
    stream_in,
    technique_of,
    values,
)
from tests.preprocess.films import CXR, needs_radiographs

LOSSLESS = [syntax for syntax in WRITABLE if syntax not in LOSSY]


def named(syntax) -> str:
    return syntax.name


def test_every_supported_syntax_can_be_written_as_a_phantom():
    assert set(WRITABLE) == SUPPORTED


@pytest.mark.parametrize("syntax", LOSSLESS, ids=named)
@pytest.mark.parametrize("monochrome1", [False, True])
def test_every_lossless_syntax_gives_the_very_same_values_in_either_polarity(syntax, monochrome1):
    reference = film(phantom(technique_of()))
    found = film(phantom(technique_of(syntax, monochrome1=monochrome1)))
    assert np.array_equal(found.pixels, 4095 - reference.pixels if monochrome1 else reference.pixels)
    assert found.larger_is_darker is monochrome1
    assert (found.flags, found.bits_stored, found.pixels.dtype) == ((), 12, np.float32)
    assert found.header.transfer_syntax == syntax.name


@pytest.mark.parametrize("syntax", sorted(LOSSY), ids=named)
def test_every_lossy_syntax_gives_the_same_values_within_a_few_grey_levels(syntax):
    technique = technique_of(syntax)
    reference = values(phantom(technique_of(bits_stored=technique.bits_stored)))
    worst = np.abs(values(phantom(technique)) - reference).max() / 2**technique.bits_stored
    assert 0 < worst < 8 / 255


@pytest.mark.parametrize("bits", BITS_STORED)
@pytest.mark.parametrize("syntax", [s for s in LOSSLESS if s.is_encapsulated or s == ExplicitVRBigEndian], ids=named)
def test_every_bit_depth_keeps_its_values(bits, syntax):
    reference = values(phantom(technique_of(bits_stored=bits)))
    assert np.array_equal(values(phantom(technique_of(syntax, bits_stored=bits))), reference)


@needs_radiographs
def test_real_films_decode_as_pydicom_decodes_them():
    for path in sorted((CXR / "dicom").glob("[ach]*.dcm")):
        assert np.array_equal(values(path.read_bytes()), pydicom.dcmread(path).pixel_array), path.name


@pytest.mark.parametrize("vr", ["OB", "OW"])
@pytest.mark.parametrize("shape", [(64, 70), (65, 71), (3, 65, 71)])
def test_big_endian_bytes_packed_into_words_come_out_in_order(vr, shape):
    stored = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    content = stored.tobytes() + b"\0" * (stored.size % 2)
    if vr == "OW":
        content = np.frombuffer(content, "<u2").byteswap().tobytes()
    dataset = pydicom.dcmread(io.BytesIO(dicom(ExplicitVRBigEndian)))
    dataset.Rows, dataset.Columns = shape[-2:]
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelData = content
    dataset["PixelData"].VR = vr
    if len(shape) == 3:
        dataset.NumberOfFrames = shape[0]
    data = saved(dataset)
    for index, frame in enumerate(stored.reshape(-1, *shape[-2:])):
        assert np.array_equal(values(data, policy=Decode(multi_frame="all"), frame=index), frame)
    assert np.array_equal(pydicom.dcmread(io.BytesIO(data)).pixel_array, stored)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
@pytest.mark.parametrize("is_signed", [False, True])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian], ids=named)
def test_own_unpacking_equals_pydicoms(dtype, is_signed, syntax):
    stored = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (64, 71), dtype=dtype)
    data = of_pixels(stored, PixelRepresentation=int(is_signed))
    dataset = pydicom.dcmread(io.BytesIO(data))
    if syntax == ExplicitVRBigEndian:
        dataset.PixelData = stored.astype(stored.dtype.newbyteorder(">")).tobytes()
        dataset["PixelData"].VR = "OB" if dtype == np.uint8 else "OW"
        dataset.file_meta.TransferSyntaxUID = syntax
        stream = io.BytesIO()
        bare = pydicom.Dataset(dataset)
        bare.file_meta = dataset.file_meta
        bare.save_as(stream, implicit_vr=False, little_endian=False, enforce_file_format=True)
        data = stream.getvalue()
    expected = pydicom.dcmread(io.BytesIO(data)).pixel_array
    assert expected.dtype.kind == ("i" if is_signed else "u")
    assert np.array_equal(values(data), expected.astype(np.float32))


def test_an_unknown_transfer_syntax_is_refused_by_name():
    dataset = pydicom.dcmread(io.BytesIO(dicom(RLELossless)))
    dataset.file_meta.TransferSyntaxUID = MPEG2MPML
    assert reason_of(saved(dataset)) == Reason.UNSUPPORTED


@pytest.mark.parametrize("stated", [JPEGLossless, JPEGLSLossless, JPEG2000Lossless], ids=named)
def test_a_stream_of_another_kind_than_the_syntax_says_is_refused(stated):
    dataset = pydicom.dcmread(io.BytesIO(phantom(technique_of(JPEGBaseline8Bit))))
    dataset.file_meta.TransferSyntaxUID = stated
    assert reason_of(saved(dataset)) == Reason.BAD_HEADER


def test_pixel_data_that_is_packed_against_its_syntax_is_refused():
    packed, explicit = RLELossless.encode().ljust(20, b"\0"), ExplicitVRLittleEndian.encode().ljust(20, b"\0")
    assert packed in dicom(RLELossless)
    assert reason_of(dicom(RLELossless).replace(packed, explicit)) == Reason.BAD_HEADER
    assert reason_of(dicom().replace(explicit, packed)) == Reason.BAD_HEADER


@pytest.mark.parametrize("syntax", [None, JPEGBaseline8Bit, JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless,
                                    HTJ2KLossless, RLELossless], ids=str)  # fmt: skip
def test_a_file_without_meta_information_is_read_by_what_its_pixels_are(syntax):
    data = phantom(technique_of() if syntax is None else technique_of(syntax))
    dataset = pydicom.dcmread(io.BytesIO(data))
    bare = pydicom.Dataset(dataset)
    stream = io.BytesIO()
    bare.save_as(stream, implicit_vr=False, little_endian=True)
    found = film(stream.getvalue())
    assert stream.getvalue()[128:132] != b"DICM"
    assert np.array_equal(found.pixels, values(data))
    assert found.flags == (Flag.NO_META,)


@pytest.mark.parametrize("implicit", [False, True])
@pytest.mark.parametrize("preamble", [False, True])
def test_a_missing_preamble_or_meta_group_is_no_obstacle(implicit, preamble):
    data = phantom(technique_of())
    stream = io.BytesIO()
    pydicom.Dataset(pydicom.dcmread(io.BytesIO(data))).save_as(stream, implicit_vr=implicit, little_endian=True)
    content = (bytes(128) + b"DICM" if preamble else b"") + stream.getvalue()
    found = film(content)
    assert np.array_equal(found.pixels, values(data))
    assert found.flags == (Flag.NO_META,)


def test_meta_information_without_a_preamble_is_believed():
    data = phantom(technique_of(JPEG2000Lossless))
    found = film(data[132:])
    assert np.array_equal(found.pixels, values(data))
    assert found.flags == ()


def test_a_boxed_jpeg_2000_stream_is_decoded_all_the_same():
    stream = stream_in(dicom(JPEG2000Lossless))
    rows, columns = (int(stored).to_bytes(4, "big") for stored in values(dicom()).shape)
    header = box(b"ihdr", rows + columns + bytes.fromhex("0001 0b 07 00 00")) + box(
        b"colr", bytes.fromhex("01 00 00") + (17).to_bytes(4, "big")
    )
    boxed = (
        b"\x00\x00\x00\x0cjP  \r\n\x87\n"
        + box(b"ftyp", b"jp2 \0\0\0\0jp2 ")
        + box(b"jp2h", header)
        + box(b"jp2c", stream)
    )
    data = encapsulated([boxed], syntax=JPEG2000Lossless)
    assert np.array_equal(values(data), values(dicom()))
    assert reason_of(encapsulated([boxed[:-200]], syntax=JPEG2000Lossless)) == Reason.TRUNCATED


def box(name: bytes, content: bytes) -> bytes:
    return (8 + len(content)).to_bytes(4, "big") + name + content


def test_the_second_decoder_is_asked_where_the_first_one_refuses(monkeypatch):
    def refuses(stream, found, syntax):
        raise RuntimeError("cannot")

    monkeypatch.setitem(DECODERS, JPEGLSLossless, (refuses, *DECODERS[JPEGLSLossless][1:]))
    assert np.array_equal(values(dicom(JPEGLSLossless)), values(dicom()))
    monkeypatch.setitem(DECODERS, JPEGLSLossless, (refuses,))
    assert reason_of(dicom(JPEGLSLossless)) == Reason.UNDECODABLE


def test_a_dicom_file_with_a_tiff_header_in_its_preamble_is_dicom():
    data = dicom()
    assert np.array_equal(values(b"II*\x00" + data[4:]), values(data))


def test_trailing_zeros_of_a_sector_do_no_harm():
    assert np.array_equal(values(dicom() + bytes(512)), values(dicom()))


def test_opening_decodes_nothing():
    header = opened(retagged(dicom(), PixelData=b"\0\0")).header
    assert (header.height, header.width) == values(dicom()).shape


def picture(data: bytes) -> np.ndarray:
    config = PreprocessConfig(resample=Resample(short_side=64))
    return render(film(data), config=config).astype(int)


@pytest.mark.parametrize("syntax", WRITABLE, ids=named)
@pytest.mark.parametrize("monochrome1", [False, True])
def test_phantoms_in_every_syntax_and_both_polarities_give_the_same_picture(syntax, monochrome1):
    reference, found = picture(dicom()), picture(phantom(technique_of(syntax, monochrome1=monochrome1)))
    # a value that lies half-way rounds the other way once it is mirrored; 8 bits are coarser than 12
    assert np.abs(found - reference).max() <= (5 if syntax in LOSSY else 1)
