"""From film values to the grey levels of a picture, and the picture to PNG bytes.

In: a float32 film [H, W], larger brighter. Out: uint8 or uint16 [H, W]; PNG bytes without any text chunk.
"""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from dinov2.config.preprocess import Intensity
from dinov2.errors import DicomRejected
from dinov2.preprocess.radiograph import Film
from dinov2.preprocess.reasons import Reason

Picture = NDArray[np.uint8] | NDArray[np.uint16]
Levels = tuple[float, float]  # film values that become black and white

WHITE = 255
WHITEST = {8: (np.uint8, 255), 16: (np.uint16, 65535)}
ROUNDING_NOISE = 2.0**-18  # of the largest value: what float32 weights leave of a constant; one step in 16 bits is more
ROWS_AT_ONCE = 256  # of a full-size film in float64
# Run lengths after the average of left and upper pixel: on chest films a quarter of the time of Pillow's level 3, and
# a seventh fewer bytes, because dictionary matches hardly occur in grain.
PNG_SETTINGS = (
    *(cv2.IMWRITE_PNG_COMPRESSION, 1),
    *(cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE),
    *(cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_AVG),
)


def to_grey(film: Film, *, config: Intensity, padding: NDArray[np.bool_] | None = None) -> Picture:
    """Grey levels 0..255, or 0..65535 where `config.bits` is 16, of the resampled film: levels are taken here, after
    resizing, so that they are used to the last one.

    Where `padding` is True nothing was filmed: it sets no level and is black. Raises DicomRejected: constant where the
    film's values differ by no more than rounding; bad_header where they are not finite.
    """
    inside = film if padding is None else film[~padding]
    low, high = _levels(inside, config=config) if inside.size else (0.0, 0.0)
    if not high > low:
        raise DicomRejected("all pixels of the film have one value. Exclude it.", reason=Reason.CONSTANT)
    kind, white = WHITEST[config.bits]
    levels = film.astype(np.float64)
    levels -= low
    levels *= white / (high - low)
    if padding is not None:
        levels[padding] = 0
    (np.rint if config.rounding == "nearest" else np.floor)(levels, out=levels)
    return np.clip(levels, 0, white, out=levels).astype(kind)


def to_eight_bits(picture: Picture) -> NDArray[np.uint8]:
    """The 8-bit picture of a 16-bit one, rounded; an 8-bit one is returned as it is."""
    if picture.dtype == np.uint8:
        return picture.astype(np.uint8, copy=False)
    return ((picture.astype(np.uint32) + 128) // 257).astype(np.uint8)


def equalise(film: Film) -> Film:
    """Histogram equalisation of the film's 256 levels: [H, W] -> [H, W] with values 0..255.

    Levels are cut down to integers as MIMIC-CXR-JPG describes; level v becomes 255 (C(v) - C0) / (n - C0) where C
    counts the pixels up to v, C0 those of the lowest level and n all of them. A film that is constant, or not finite,
    is returned as it is.
    """
    low, high = float(film.min()), float(film.max())
    if not high > low or not math.isfinite(high - low):
        return film
    levels = np.empty(film.shape, np.uint8)
    counts = np.zeros(WHITE + 1, np.int64)
    for start in range(0, len(film), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        levels[rows] = (film[rows].astype(np.float64) - low) * (WHITE / (high - low))
        counts += np.bincount(levels[rows].ravel(), minlength=WHITE + 1)
    reached = np.cumsum(counts)
    lowest = reached[0]
    table = np.rint(WHITE * (reached - lowest) / (reached[-1] - lowest)).astype(np.float32)
    equalised: Film = table[levels]
    return equalised


def png_bytes(picture: Picture) -> bytes:
    """A grey PNG of 8 or 16 bits: pixels and nothing else; the same bytes for the same pixels."""
    done, content = cv2.imencode(".png", np.ascontiguousarray(picture), PNG_SETTINGS)
    if not done:
        raise RuntimeError(f"OpenCV {cv2.__version__} did not encode a picture of {picture.shape}, {picture.dtype}")
    return bytes(content.tobytes())


def _levels(film: Film, *, config: Intensity) -> Levels:
    """Film values of black and white; equal where the film is constant."""
    lowest, highest = float(film.min()), float(film.max())
    if not (math.isfinite(lowest) and math.isfinite(highest)):
        raise DicomRejected(
            "the film has values that are not finite numbers after (0028,1053) Rescale Slope or its lookup table. "
            "Mend the header, or exclude it.",
            reason=Reason.BAD_HEADER,
        )
    noise = ROUNDING_NOISE * max(abs(lowest), abs(highest))
    if highest - lowest <= noise:
        return lowest, lowest
    if config.mapping == "equalise":
        return 0.0, float(WHITE)  # equalised at full size already; overshoot of the spline is clipped
    if config.mapping == "percentile":
        low, high = np.percentile(film, config.percentiles)
        if high - low > noise:
            return float(low), float(high)
    return lowest, highest
