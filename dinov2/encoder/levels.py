"""Whatever a user calls a picture -> its grey levels or colours.

In: a PIL image, a numpy array, a torch tensor, or the content of a PNG, JPEG or TIFF file of 8 bits. Out: `Levels`.
Grey that is stored as three equal channels comes out as one. Everything else is refused in one sentence.
"""

import io
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from dinov2.errors import PictureError

Levels = NDArray[np.uint8] | NDArray[np.float32]
"""[H, W] or [H, W, 3]: uint8, or float32 within 0..1."""

FORMATS = ("PNG", "JPEG", "TIFF")
CONVERTED = {"1": "L", "P": "RGB", "YCbCr": "RGB"}  # mode -> the one that shows the same
DEEP_MODES = ("I", "F")  # how the modes of more than 8 bits begin
CHANNELS = (1, 3)
ROWS_AT_ONCE = 64
DICOM_MARK = slice(128, 132)


def of_image(image: Image.Image, *, where: str) -> Levels:
    """-> uint8 [H, W], or [H, W, 3] where there is colour.  Raises PictureError."""
    mode = image.mode
    if mode.startswith(DEEP_MODES):
        raise PictureError(
            f"{where}: a picture of more than 8 bits (mode {mode}). Give the path of its file, which is then prepared "
            "as films are, or bring it to 0..255 yourself."
        )
    if "A" in image.getbands() or "transparency" in image.info:
        raise PictureError(f"{where}: has transparency (mode {mode}); give grey or RGB: image.convert('RGB').")
    try:
        if mode in CONVERTED:
            image = image.convert(CONVERTED[mode])
        image.load()
    except (OSError, ValueError, SyntaxError) as error:  # a file is decoded here
        raise PictureError(f"{where}: is cut short or damaged ({error}). Copy it again.") from error
    if image.mode == "L":
        return _sized(np.asarray(image), where=where)
    if image.mode != "RGB":
        raise PictureError(f"{where}: mode {mode} with {len(image.getbands())} channels; give grey or RGB.")
    grey = _grey_of(_bands_of_image(image), like=(image.height, image.width))
    return _sized(np.asarray(image) if grey is None else grey, where=where)


def of_array(array: NDArray[Any] | Tensor, *, where: str) -> Levels:
    """uint8, or floats within 0..1; [H, W], [H, W, C] or [C, H, W] with one channel or three.

    Where both ends could be channels, a tensor has them first and an array last. Raises PictureError.
    """
    first_wins = isinstance(array, Tensor)
    if isinstance(array, Tensor):
        array = array.detach().cpu()
        values: NDArray[Any] = (array.float() if array.dtype == torch.bfloat16 else array).numpy()
    else:
        values = array
    values = _one_depth(values, where=where)
    if values.ndim == 3:
        values = _channels_last(values, first_wins=first_wins, where=where)
        grey = values[..., 0] if values.shape[2] == 1 else _grey_of(_bands_of_array(values), like=values.shape[:2])
        values = values if grey is None else grey
    elif values.ndim != 2:
        raise PictureError(f"{where}: an array of {list(values.shape)}; give [H, W], [H, W, 3] or a list of such.")
    return _sized(values, where=where)


def of_file(data: bytes, *, where: str) -> Levels | None:
    """A PNG, JPEG or TIFF of 8 bits and one page; None for anything else, which is a film.  Raises PictureError."""
    image = opened(data, where=where)
    if image is None or is_deep(image) or getattr(image, "n_frames", 1) > 1:
        return None
    return of_image(image, where=where)


def opened(data: bytes, *, where: str) -> Image.Image | None:
    """The header of a raster file; None where it is none.  Raises PictureError."""
    if data[DICOM_MARK] == b"DICM":  # before it anything may stand, a TIFF's first bytes too
        return None
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        return None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise PictureError(f"{where}: its header cannot be read ({error}). Copy the file again.") from error


def is_deep(image: Image.Image) -> bool:
    """Whether its levels have more than 8 bits."""
    return image.mode.startswith(DEEP_MODES)


def luminance(levels: Levels) -> Levels:
    """[H, W, 3] -> [H, W] by ITU-R BT.601; [H, W] as it is."""
    if levels.ndim == 2:
        return levels
    if levels.dtype == np.uint8:
        return np.asarray(Image.fromarray(np.ascontiguousarray(levels)).convert("L"))
    return (levels @ np.array([0.299, 0.587, 0.114], dtype=np.float32)).astype(np.float32)


def _grey_of(bands: Iterator[NDArray[Any]], *, like: tuple[int, int]) -> NDArray[Any] | None:
    """The one channel of a picture whose three are equal, [rows, W, 3] at a time; None where they are not.

    Some rows at a time stay in the cache, and a film is three times as large in colour.
    """
    grey: NDArray[Any] | None = None
    top = 0
    for band in bands:
        red, green, blue = cv2.split(band)
        if not (np.array_equal(red, green) and np.array_equal(red, blue)):
            return None
        grey = np.empty(like, dtype=band.dtype) if grey is None else grey
        grey[top : top + len(band)] = red
        top += len(band)
    return grey


def _bands_of_image(image: Image.Image) -> Iterator[NDArray[Any]]:
    for top in range(0, image.height, ROWS_AT_ONCE):
        yield np.asarray(image.crop((0, top, image.width, min(top + ROWS_AT_ONCE, image.height))))


def _bands_of_array(values: NDArray[Any]) -> Iterator[NDArray[Any]]:
    return (np.ascontiguousarray(values[top : top + ROWS_AT_ONCE]) for top in range(0, len(values), ROWS_AT_ONCE))


def _one_depth(values: NDArray[Any], *, where: str) -> NDArray[Any]:
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind != "f":
        raise PictureError(
            f"{where}: an array of {values.dtype}; give uint8, or floats within 0..1. A film of 12 or 16 bits is best "
            "given as the path of its file, which is then prepared as films are."
        )
    lowest, highest = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if not (np.isfinite(lowest) and np.isfinite(highest)):
        raise PictureError(f"{where}: holds values that are no finite numbers. Mend them first.")
    if lowest < 0 or highest > 1:
        raise PictureError(
            f"{where}: floats from {lowest:g} to {highest:g}; give them within 0..1, or uint8. Pixels that are "
            "normalised already go to `encode`."
        )
    return values.astype(np.float32, copy=False)


def _channels_last(values: NDArray[Any], *, first_wins: bool, where: str) -> NDArray[Any]:
    """[H, W, C] of either order."""
    ends = (0, 2) if first_wins else (2, 0)
    axis = next((end for end in ends if values.shape[end] in CHANNELS), None)
    if axis is None:
        raise PictureError(f"{where}: an array of {list(values.shape)}; its channels must be one or three.")
    return values if axis == 2 else np.moveaxis(values, 0, 2)


def _sized(values: NDArray[Any], *, where: str) -> Levels:
    if 0 in values.shape:
        raise PictureError(f"{where}: has no pixel ({list(values.shape)}).")
    levels: Levels = np.ascontiguousarray(values)
    return levels
