"""Operations on one-channel 8-bit pictures; deterministic.  Home of OpenCV, with `dataset` and `preview`.

In: uint8 [H, W] and numbers. Out: uint8 [size, size].

Everything that maps grey levels one by one becomes a table of 256 entries, and neighbouring tables become one, so that
a crop is gone over once for jitter, gamma and solarisation together.
"""

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.uint8]
Table = NDArray[np.uint8]  # [256]

# Widths of the Gaussian that makes a cubic reduction by these factors come nearest to an antialiased cubic (fitted
# against Pillow on chest films; mean difference 0.3 to 0.45 grey levels, and two to three times faster than the mean
# over areas).
FACTORS = (1.03, 1.1, 1.2, 1.33, 1.5, 1.68, 1.86, 2.04, 2.3)
SIGMAS_PX = (0.33, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7, 0.8, 1.05)
GREYS = np.arange(256, dtype=np.float32)
ZERO, WHITE = np.float32(0), np.float32(255)


class CropBox(NamedTuple):
    """A box in whole pixels of the picture."""

    top: int
    left: int
    height: int
    width: int


def resample(region: Picture, *, size: int, hflip: bool, vflip: bool) -> Picture:
    """Resize to a square, then mirror.  uint8 [h, w] -> uint8 [size, size]

    Cubic interpolation. An axis that shrinks is first smoothed, so that it does not alias; one that shrinks by more
    than 2.3 is reduced by the mean over areas. Within 0.6 grey levels, on average, of Pillow's antialiased bicubic on
    films.
    """
    height, width = region.shape
    reduced = (size if width > FACTORS[-1] * size else width, size if height > FACTORS[-1] * size else height)
    out = region
    if reduced != (width, height):
        out = cv2.resize(out, reduced, interpolation=cv2.INTER_AREA)
    if reduced != (size, size):
        out = cv2.resize(_smooth(out, size=size), (size, size), interpolation=cv2.INTER_CUBIC)
    if hflip or vflip:
        out = cv2.flip(out, -1 if hflip and vflip else int(hflip))
    return out if out is not region else region.copy()


def _smooth(region: Picture, *, size: int) -> Picture:
    """Take away what the axes cannot hold at `size` pixels."""
    sigma_y, sigma_x = (_sigma_px(side / size) for side in region.shape)
    if sigma_x == 0 and sigma_y == 0:
        return region
    kernel = (3 if sigma_x else 1, 3 if sigma_y else 1)
    smooth: Picture = cv2.GaussianBlur(region, kernel, sigma_x, sigma_y, borderType=cv2.BORDER_REFLECT_101)
    return smooth


def _sigma_px(factor: float) -> float:
    """Width of the smoothing before a reduction by `factor`; 0 where there is none to speak of."""
    return float(np.interp(factor, FACTORS, SIGMAS_PX)) if factor >= FACTORS[0] else 0.0


def turn(picture: Picture, box: CropBox, *, degrees: float) -> Picture:
    """What the box shows when turned about its own centre; beyond the film, its mirror image.  -> uint8 [h, w]"""
    centre = (box.left + (box.width - 1) / 2, box.top + (box.height - 1) / 2)
    matrix = cv2.getRotationMatrix2D(centre, degrees, 1.0)
    matrix[:, 2] -= (box.left, box.top)
    turned: Picture = cv2.warpAffine(
        picture, matrix, (box.width, box.height), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101
    )
    return turned


def shade(
    crop: Picture,
    *,
    brightness: float | None,
    contrast: float | None,
    contrast_first: bool,
    gamma: float | None,
    blur_sigma: float | None,
    blur_kernel: int,
    solarize_threshold: int | None,
) -> Picture:
    """Jitter, gamma, blur, solarise, in this order; None leaves a step out.  uint8 [S, S] -> uint8 [S, S]"""
    table = jitter_table(crop, brightness=brightness, contrast=contrast, contrast_first=contrast_first)
    if gamma is not None:
        table = _then(table, gamma_table(gamma))
    if blur_sigma is not None:
        crop = crop if table is None else _look_up(crop, table)
        table = None
        crop = cv2.GaussianBlur(
            crop, (blur_kernel, blur_kernel), blur_sigma, blur_sigma, borderType=cv2.BORDER_REFLECT_101
        )
    if solarize_threshold is not None:
        table = _then(table, solarize_table(solarize_threshold))
    return crop if table is None else _look_up(crop, table)


def jitter_table(
    crop: Picture, *, brightness: float | None, contrast: float | None, contrast_first: bool
) -> Table | None:
    """Brightness and contrast in the given order as one table; None where both are None.

    Contrast is about the mean grey of the crop as it stands when its turn comes, so the second table needs the first
    one's result; a histogram of the crop gives its mean without another pass over the pixels.
    """
    if contrast is None:
        return None if brightness is None else blend_table(0, factor=brightness)
    if brightness is None or contrast_first:
        table = blend_table(_rounded_mean(float(cv2.mean(crop)[0])), factor=contrast)
        return table if brightness is None else _then(table, blend_table(0, factor=brightness))
    table = blend_table(0, factor=brightness)
    counts = cv2.calcHist([crop], [0], None, [256], [0, 256]).ravel().astype(np.float64)
    mean = float(counts @ table) / crop.size
    return _then(table, blend_table(_rounded_mean(mean), factor=contrast))


def blend_table(grey: int, *, factor: float) -> Table:
    """grey + factor * (v - grey), clipped and cut to whole levels, as the 8-bit enhancers of the public pipeline do.

    grey = 0 is brightness; grey = the mean of the crop is contrast.
    """
    base = np.float32(grey)
    levels = base + np.float32(factor) * (GREYS - base)
    np.minimum(np.maximum(levels, ZERO, out=levels), WHITE, out=levels)  # np.clip takes twice as long for 256 numbers
    return levels.astype(np.uint8)


def gamma_table(gamma: float) -> Table:
    """255 * (v / 255) ** gamma, rounded; below 1 brightens the dark."""
    return np.rint(255 * (GREYS / 255) ** gamma).astype(np.uint8)


def solarize_table(threshold: int) -> Table:
    """Grey levels from `threshold` on are inverted."""
    return np.where(threshold > GREYS, GREYS, 255 - GREYS).astype(np.uint8)


def _look_up(crop: Picture, table: Table) -> Picture:
    looked_up: Picture = cv2.LUT(crop, table)
    return looked_up


def _then(first: Table | None, second: Table) -> Table:
    return second if first is None else _look_up(first, second)


def _rounded_mean(mean: float) -> int:
    return int(mean + 0.5)
