"""Sizes: how many pixels of a picture the film takes, where they lie, and what they measure.

In: the film's size and pixel spacing, and the settings `resample`. Out: sizes (height, width), bars, spacings. Nothing
here looks at grey levels.
"""

import math

import numpy as np
from numpy.typing import NDArray

from dinov2.config.preprocess import Resample
from dinov2.errors import DicomRejected
from dinov2.preprocess.reasons import Reason
from dinov2.preprocess.render.grey import Picture

Size = tuple[int, int]  # (height, width) in pixels
Spacing = tuple[float, float]  # millimetres between rows, between columns
LARGEST_PIXEL_RATIO = 4.0  # side over side of one pixel; above it the spacing is a slip of the pen, not a detector


def target_size(height: float, width: float, *, short_side: int) -> Size:
    """(height, width) in pixels with the short side as asked and the long side rounded to the nearest pixel; height and
    width in any common unit.
    """
    scale = short_side / min(height, width)
    if height <= width:
        return short_side, max(short_side, round(width * scale))
    return max(short_side, round(height * scale)), short_side


def content_size(film: Size, *, config: Resample, spacing_mm: Spacing | None = None) -> Size:
    """Size of the film within its picture, without bars.

    Plain: the short side is `config.short_side`. `isotropic`: the sides are in the proportion of their lengths in
    millimetres, so that one resampling does both; which side is short is decided in millimetres too. A film that states
    no spacing has square pixels. `letterbox`: the long side is `config.short_side`.

    Raises DicomRejected (bad_header) where `isotropic` is on and the spacing cannot be that of a pixel.
    """
    height, width = _lengths(film, spacing_mm=spacing_mm) if config.isotropic else film
    if not config.letterbox:
        return target_size(height, width, short_side=config.short_side)
    scale = config.short_side / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def picture_spacing(spacing_mm: Spacing | None, *, film: Size, config: Resample) -> Spacing | None:
    """Spacing of the picture's pixels in millimetres, (rows, columns); None where the film states none.

    `spacing_mm` is the film's and `film` its size. Bars do not change it: they are pixels of the same spacing.
    """
    if spacing_mm is None:
        return None
    content = content_size(film, config=config, spacing_mm=spacing_mm)
    rows, columns = (millimetres * old / new for millimetres, old, new in zip(spacing_mm, film, content, strict=True))
    return rows, columns


def letterbox(picture: Picture, *, side: int) -> Picture:
    """[h, w] -> [side, side] with black bars, centred; of an odd number of missing pixels one more lies at the end."""
    height, width = picture.shape
    top, left = (side - height) // 2, (side - width) // 2
    square: Picture = np.zeros((side, side), picture.dtype)
    square[top : top + height, left : left + width] = picture
    return square


def resample_mask(mask: NDArray[np.bool_], *, size: Size) -> NDArray[np.bool_]:
    """[H, W] -> [h, w] bool: for every pixel of the result, the one of the mask that its centre falls into."""
    rows, columns = (
        ((np.arange(new) + 0.5) * old / new).astype(int) for old, new in zip(mask.shape, size, strict=True)
    )
    taken: NDArray[np.bool_] = mask[np.ix_(rows, columns)]
    return taken


def _lengths(film: Size, *, spacing_mm: Spacing | None) -> tuple[float, float]:
    """Height and width in any common unit; exactly the pixel counts where pixels are square."""
    if spacing_mm is None or spacing_mm[0] == spacing_mm[1]:
        return film
    rows, columns = spacing_mm
    if not (math.isfinite(rows) and math.isfinite(columns) and rows > 0 and columns > 0) or not (
        1 / LARGEST_PIXEL_RATIO <= rows / columns <= LARGEST_PIXEL_RATIO
    ):
        raise DicomRejected(
            "(0018,1164) Imager Pixel Spacing or (0028,0030) Pixel Spacing: rows and columns are spaced more than "
            f"{LARGEST_PIXEL_RATIO:g} times apart from one another, or not by a positive number. Mend the file, or set "
            "resample.isotropic=false.",
            reason=Reason.BAD_HEADER,
        )
    return film[0] * (rows / columns), film[1]
