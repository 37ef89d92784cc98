"""Polarity, right exactly once: bones bright, air dark. And padding, which is not part of the film.

In: a `Radiograph`, which states its polarity and its padding. Out: films where larger is brighter.
"""

import numpy as np

from dinov2.preprocess.radiograph import Film, Radiograph


def upright(values: Film, *, larger_is_darker: bool) -> Film:
    """Larger brighter, any shape: v -> -v where the file means it the other way round.

    The one place where anything is turned round. Resampling is linear and its weights sum to 1, so it does not matter
    whether a film is turned before or after it; and every mapping to grey levels starts from the lowest value, so it
    does not matter about which value the film is mirrored.
    """
    return -values if larger_is_darker else values


def without_padding(film: Radiograph) -> Film:
    """[H, W] in the polarity of the file; padding takes the darkest value of the film, so that it sets no level."""
    pixels, padding = film.pixels, film.padding
    if padding is None or not padding.any():
        return pixels
    if padding.all():
        return np.zeros_like(pixels)
    beyond = np.float32(-np.inf if film.larger_is_darker else np.inf)  # is never the darkest
    filled: Film = np.where(padding, beyond, pixels)
    filled[padding] = filled.max() if film.larger_is_darker else filled.min()
    return filled
