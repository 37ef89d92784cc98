import io

import imagecodecs
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.uid import JPEGBaseline8Bit, JPEGLSLossless, RLELossless

from dinov2.config.preprocess import Decode
from dinov2.preprocess.reasons import Flag, Reason
from tests.preprocess.decode.films import drawn, encapsulated, film, of_pixels, reason_of, saved, values

GREY = (drawn() * 250).astype(np.uint8)
EQUAL = np.repeat(GREY[:, :, None], 3, axis=2)
COLOURED = EQUAL.copy()
COLOURED[:, :, 0] = 255 - COLOURED[:, :, 0]
LUMINANCE = Decode(colour="luminance")
WEIGHTS = np.array([0.299, 0.587, 0.114])
RGB = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}


def planar(rgb: np.ndarray) -> bytes:
    dataset = pydicom.dcmread(io.BytesIO(of_pixels(rgb, **RGB)))
    dataset.PlanarConfiguration = 1
    dataset.PixelData = np.ascontiguousarray(np.moveaxis(rgb, -1, 0)).tobytes()
    return saved(dataset)


def ybr(rgb: np.ndarray) -> bytes:
    converted = pydicom.pixels.convert_color_space(rgb, "RGB", "YBR_FULL")
    return of_pixels(converted, **(RGB | {"PhotometricInterpretation": "YBR_FULL"}))


def shared(rgb: np.ndarray) -> bytes:
    """YBR_FULL_422 of columns whose neighbours are alike in colour."""
    converted = pydicom.pixels.convert_color_space(rgb, "RGB", "YBR_FULL")
    pairs = np.stack([converted[:, ::2, 0], converted[:, 1::2, 0], converted[:, ::2, 1], converted[:, ::2, 2]], axis=-1)
    dataset = pydicom.dcmread(io.BytesIO(of_pixels(rgb, **(RGB | {"PhotometricInterpretation": "YBR_FULL_422"}))))
    dataset.PixelData = pairs.tobytes()
    return saved(dataset)


def jpeg(rgb: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(rgb).save(stream, "JPEG", quality=98, subsampling=0)
    tags = RGB | {"PhotometricInterpretation": "YBR_FULL_422", "Rows": rgb.shape[0], "Columns": rgb.shape[1]}
    return encapsulated([stream.getvalue()], syntax=JPEGBaseline8Bit, **tags)


def jpeg_ls(rgb: np.ndarray) -> bytes:
    tags = RGB | {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
    return encapsulated([bytes(imagecodecs.jpegls_encode(rgb))], syntax=JPEGLSLossless, **tags)


def rle(rgb: np.ndarray) -> bytes:
    dataset = pydicom.dcmread(io.BytesIO(of_pixels(rgb, **RGB)))
    dataset.compress(RLELossless, encoding_plugin="pydicom")
    return saved(dataset)


WRITERS = (lambda rgb: of_pixels(rgb, **RGB), planar, ybr, shared, jpeg, jpeg_ls, rle)


@pytest.mark.parametrize("write", WRITERS)
def test_equal_channels_are_one_grey_film(write):
    found = film(write(EQUAL))
    assert np.abs(found.pixels - GREY).max() <= (4 if write is jpeg else 1)
    assert found.flags == ()


@pytest.mark.parametrize("write", WRITERS)
def test_channels_that_differ_are_refused_or_reduced_as_asked(write):
    rgb = COLOURED.copy()
    rgb[:, 1::2] = rgb[:, ::2]
    assert reason_of(write(rgb)) == Reason.COLOUR
    found = film(write(rgb), policy=LUMINANCE)
    assert np.abs(found.pixels - rgb @ WEIGHTS).max() <= (6 if write is jpeg else 2)
    assert found.flags == (Flag.COLOUR_REDUCED,)


def palette(*, grey: bool, drop: str = "") -> bytes:
    dataset = pydicom.dcmread(io.BytesIO(of_pixels(GREY)))
    dataset.PhotometricInterpretation = "PALETTE COLOR"
    for number, name in enumerate(("Red", "Green", "Blue")):
        table = np.arange(256)[:: 1 if grey or number else -1].astype("<u2") * 257
        dataset.add_new(f"{name}PaletteColorLookupTableDescriptor", "US", [256, 0, 16])
        dataset.add_new(f"{name}PaletteColorLookupTableData", "OW", table.tobytes())
    if drop:
        delattr(dataset, drop)
    return saved(dataset)


def test_a_palette_of_greys_is_a_film_and_one_of_colours_is_a_capture():
    assert np.array_equal(values(palette(grey=True)), GREY.astype(np.float32) * 257)
    assert reason_of(palette(grey=False)) == Reason.COLOUR
    assert film(palette(grey=False), policy=LUMINANCE).flags == (Flag.COLOUR_REDUCED,)


def test_a_palette_that_is_not_there_is_a_fault_of_the_header():
    assert reason_of(palette(grey=True, drop="RedPaletteColorLookupTableData")) == Reason.BAD_HEADER


def test_another_photometric_interpretation_is_not_supported():
    assert reason_of(of_pixels(GREY, PhotometricInterpretation="HSV")) == Reason.UNSUPPORTED
