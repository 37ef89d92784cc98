"""A film -> the grey levels of its picture: the one way from `Radiograph` to pixels.

In: a `Radiograph` and the configuration. Out: uint8 or uint16 [h, w].
"""

from dinov2.config.preprocess import PreprocessConfig
from dinov2.preprocess.radiograph import Radiograph
from dinov2.preprocess.render import grey
from dinov2.preprocess.render.engines import engine
from dinov2.preprocess.render.geometry import content_size, letterbox, resample_mask
from dinov2.preprocess.render.grey import Picture
from dinov2.preprocess.render.upright import upright, without_padding


def render(film: Radiograph, *, config: PreprocessConfig) -> Picture:
    """Grey levels [h, w] of a film: uint8, or uint16 where `intensity.bits` is 16.

    Raises DicomRejected (constant; bad_header for values or spacings that are no numbers of a film).
    """
    resample, intensity = config.resample, config.intensity
    values = without_padding(film)
    is_equalised = intensity.mapping == "equalise"
    if is_equalised:  # at full size; and it does not commute with turning
        values = grey.equalise(upright(values, larger_is_darker=film.larger_is_darker))
    height, width = values.shape
    size = content_size((height, width), config=resample, spacing_mm=film.header.spacing_mm)
    resized = engine(resample.engine)(values, size=size, antialias=resample.antialias)
    if not is_equalised:
        resized = upright(resized, larger_is_darker=film.larger_is_darker)
    padding = None if film.padding is None else resample_mask(film.padding, size=size)
    levels = grey.to_grey(resized, config=intensity, padding=padding)
    return letterbox(levels, side=resample.short_side) if resample.letterbox else levels
