"""Polarity, right exactly once: bones bright, air dark.

In: a `Radiograph`, which states its polarity. Out: a film where larger is brighter.
"""

import numpy as np

from dinov2.preprocess.radiograph import Film, Radiograph


def upright(film: Radiograph) -> Film:
    """[H, W] with larger brighter; padding takes the darkest value of the film, so that it sets no level.

    The one place where anything is turned round: values are mirrored within their own range, v -> max + min - v.
    """
    pixels = film.pixels
    inside = pixels if film.padding is None else pixels[~film.padding]
    if inside.size == 0:
        return np.zeros_like(pixels)
    low, high = inside.min(), inside.max()
    if film.larger_is_darker:
        pixels = low + high - pixels
    if film.padding is not None:
        pixels = np.where(film.padding, low, pixels)
    return np.ascontiguousarray(pixels, dtype=np.float32)
