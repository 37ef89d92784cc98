"""A film -> the grey levels of its picture: the one way from `Radiograph` to pixels.

In: a `Radiograph` and the configuration. Out: uint8 or uint16 [h, w].
"""

import numpy as np
from numpy.typing import NDArray

from dinov2.config.preprocess import PreprocessConfig
from dinov2.preprocess.radiograph import Radiograph
from dinov2.preprocess.render import grey
from dinov2.preprocess.render.itk import resample, resample_mask
from dinov2.preprocess.render.upright import upright

Picture = NDArray[np.uint8] | NDArray[np.uint16]


def render(film: Radiograph, *, config: PreprocessConfig) -> Picture:
    """Grey levels [h, w] of a film.  Raises DicomRejected (constant)."""
    values = grey.before_resampling(upright(film), config=config.intensity)
    resized = resample(values, short_side=config.resample.short_side)
    padding = None if film.padding is None else resample_mask(film.padding, size=resized.shape)
    return grey.to_grey(resized, config=config.intensity, padding=padding)
