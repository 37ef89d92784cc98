import io

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from dinov2.config.preprocess import Decode
from dinov2.preprocess.reasons import Flag, Reason
from tests.preprocess.decode.films import drawn, film, opened, reason_of, values
from tests.preprocess.films import CXR, needs_radiographs

EIGHT = (drawn() * 255).astype(np.uint8)
SIXTEEN = (drawn() * 65535).astype(np.uint16)


def written(pixels: np.ndarray, form: str, **words) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, form, **words)
    return stream.getvalue()


@pytest.mark.parametrize(("pixels", "bits"), [(EIGHT, 8), (SIXTEEN, 16)])
@pytest.mark.parametrize("form", ["PNG", "TIFF"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_raster_keeps_its_values_in_eight_and_sixteen_bits(pixels, bits, form, packed):
    found = film(written(pixels, form, **({"compression": "tiff_lzw"} if form == "TIFF" and packed else {})))
    assert np.array_equal(found.pixels, pixels)
    assert (found.bits_stored, found.flags, found.larger_is_darker) == (bits, (), False)
    assert found.header.transfer_syntax == form
    assert (found.header.height, found.header.width) == pixels.shape


@pytest.mark.parametrize("words", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
def test_a_jpeg_is_the_same_by_the_decoder_that_listens_for_damage(words):
    data = written(EIGHT, "JPEG", quality=90, **words)
    assert np.array_equal(values(data), np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("mode", ["RGB", "CMYK", "P", "1", "LA"])
def test_other_modes_of_grey_pictures_are_read(mode):
    image = Image.fromarray(EIGHT).convert(mode)
    stream = io.BytesIO()
    image.save(stream, "TIFF" if mode == "CMYK" else "PNG")
    expected = np.asarray(image.convert("L"))
    assert np.abs(values(stream.getvalue(), policy=Decode(colour="luminance")) - expected).max() <= 2


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_tiff_whose_white_is_zero_is_turned_round_once(dtype):
    plain = SIXTEEN if dtype == np.uint16 else EIGHT
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[262] = 0
    inverted = np.iinfo(dtype).max - plain
    # Pillow turns 8 bits round while writing such a file, and does not for 16
    data = written(plain if dtype == np.uint8 else inverted, "TIFF", tiffinfo=tags)
    assert inverted.tobytes() in data
    found = film(data)
    shown = np.iinfo(dtype).max - found.pixels if found.larger_is_darker else found.pixels
    assert np.array_equal(shown, plain)


def test_every_page_is_one_of_many_and_refused_unless_asked_for():
    stream = io.BytesIO()
    pages = [Image.fromarray(np.roll(EIGHT, 10 * number, axis=0)) for number in range(3)]
    pages[0].save(stream, "TIFF", save_all=True, append_images=pages[1:])
    assert reason_of(stream.getvalue()) == Reason.MULTI_FRAME
    found = opened(stream.getvalue(), policy=Decode(multi_frame="all"))
    assert found.header.num_frames == 3
    for index in (2, 0):
        assert np.array_equal(found.frame(index).pixels, np.asarray(pages[index]))
        assert found.frame(index).flags == (Flag.ONE_FRAME_OF_MANY,)


def test_a_png_is_held_to_every_checksum():
    data = bytearray(written(EIGHT, "PNG"))
    for place in range(16, len(data) - 12, max(1, len(data) // 40)):
        data[place] ^= 0x10
        assert reason_of(bytes(data)) in (Reason.UNDECODABLE, Reason.TRUNCATED, Reason.UNREADABLE)
        data[place] ^= 0x10
    assert np.array_equal(values(bytes(data)), EIGHT)


def test_a_jpeg_that_was_cut_and_closed_again_is_refused_though_pillow_would_take_it():
    data = written(EIGHT, "JPEG", quality=95)
    glued = data[: len(data) * 2 // 3] + b"\xff\xd9"
    Image.open(io.BytesIO(glued)).load()
    assert reason_of(glued) == Reason.UNDECODABLE


@pytest.mark.parametrize("packed", [None, "tiff_lzw", "tiff_deflate"])
def test_a_tiff_whose_strips_are_not_all_there_is_refused(packed):
    data = written(EIGHT, "TIFF", **({"compression": packed} if packed else {}))
    tags = Image.open(io.BytesIO(data)).tag_v2
    beyond = (len(data) + 100).to_bytes(4, "little")
    for tag in (273, 279):
        value = tags[tag][0]
        at = data.index(tag.to_bytes(2, "little") + b"\x04\0\x01\0\0\0" + value.to_bytes(4, "little")) + 8
        assert reason_of(data[:at] + beyond + data[at + 4 :]) == Reason.TRUNCATED
    if packed is None:
        at = data.index((279).to_bytes(2, "little") + b"\x04\0\x01\0\0\0") + 8
        assert reason_of(data[:at] + (50).to_bytes(4, "little") + data[at + 4 :]) == Reason.TRUNCATED


@pytest.mark.parametrize("form", ["PNG", "TIFF", "JPEG"])
def test_a_raster_that_claims_more_than_allowed_is_refused_before_it_is_decoded(form):
    assert reason_of(written(EIGHT, form), max_megapixels=0.001) == Reason.TOO_LARGE


def test_a_png_bomb_is_refused_by_its_header():
    import zlib

    header = (60000).to_bytes(4, "big") * 2 + bytes.fromhex("08 00 00 00 00")
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0")), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big") for name, body in chunks
    )
    assert reason_of(data) == Reason.TOO_LARGE


@needs_radiographs
def test_real_pngs_pass():
    for path in sorted((CXR / "hannover").glob("*.png"))[:6]:
        assert np.array_equal(values(path.read_bytes()), np.asarray(Image.open(path)))
