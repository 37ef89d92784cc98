"""From film values to the grey levels of a picture, and the picture to PNG bytes.

In: a float32 film [H, W], larger brighter. Out: uint8 [H, W]; PNG bytes without any text chunk.
"""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dinov2.config.preprocess import Intensity
from dinov2.errors import DicomRejected
from dinov2.preprocess.radiograph import Film
from dinov2.preprocess.reasons import Reason

COMPRESS_LEVEL = 3
WHITE = 255


def before_resampling(film: Film, *, config: Intensity) -> Film:
    """The film as the resampler takes it: untouched, or equalised at full size where the mapping is equalise."""
    return equalise(film) if config.mapping == "equalise" else film


def to_grey(film: Film, *, config: Intensity, padding: NDArray[np.bool_] | None = None) -> NDArray[np.uint8]:
    """Grey levels 0..255 of the resampled film: levels are taken here, after resizing, so that they are used to the
    last one.

    Where `padding` is True nothing was filmed: it sets no level and is black. Raises DicomRejected (constant).
    """
    inside = film if padding is None else film[~padding]
    low, high = _levels(inside, config=config) if inside.size else (0.0, 0.0)
    if not high > low:
        raise DicomRejected("all pixels of the film have one value. Exclude it.", reason=Reason.CONSTANT)
    levels = np.clip((film.astype(np.float64) - low) * (WHITE / (high - low)), 0, WHITE)
    if padding is not None:
        levels[padding] = 0
    return (np.rint(levels) if config.rounding == "nearest" else np.floor(levels)).astype(np.uint8)


def _levels(film: Film, *, config: Intensity) -> tuple[float, float]:
    if config.mapping == "percentile":
        low, high = np.percentile(film, config.percentiles)
        if high > low:
            return float(low), float(high)
    if config.mapping == "equalise" and film.max() > film.min():
        return 0.0, float(WHITE)  # equalised at full size already; overshoot of the spline is clipped
    return float(film.min()), float(film.max())


def equalise(film: Film) -> Film:
    """Histogram equalisation of the film's 256 levels: [H, W] -> [H, W] with values 0..255.

    Levels are cut down to integers as MIMIC-CXR-JPG describes; level v becomes 255 (C(v) - C0) / (n - C0) where C
    counts the pixels up to v, C0 those of the lowest level and n all of them. A constant film is returned as it is.
    """
    low, high = float(film.min()), float(film.max())
    if not high > low:
        return film
    levels = ((film.astype(np.float64) - low) * (WHITE / (high - low))).astype(np.uint8)
    counts = np.cumsum(np.bincount(levels.ravel(), minlength=WHITE + 1))
    lowest = counts[0]
    table = np.rint(WHITE * (counts - lowest) / (counts[-1] - lowest)).astype(np.float32)
    equalised: Film = table[levels]
    return equalised


def png_bytes(picture: NDArray[np.uint8]) -> bytes:
    """An 8-bit grey PNG: pixels and nothing else."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, format="PNG", compress_level=COMPRESS_LEVEL)
    return stream.getvalue()
