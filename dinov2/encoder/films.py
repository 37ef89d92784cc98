"""A film's file -> its picture, by the same steps as the pictures of the training.

In: the content of a DICOM file, or of a PNG or TIFF with the detector's own 16 bits; the settings of the conversion as
the card of the weights records them. Out: uint8 [h, w], the pixels of the PNG that `dinov2 preprocess` writes of it.

Filters say which films become pictures of a training. Here somebody has chosen the film: what a filter would have said
is told, and the film is taken.
"""

import logging
import warnings
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinov2.config.load import from_plain
from dinov2.config.preprocess import PreprocessConfig
from dinov2.errors import ConfigError, DicomRejected, PictureError, WeightsError
from dinov2.preprocess.decode.film import open_film
from dinov2.preprocess.quality import filters
from dinov2.preprocess.quality.checks import remarks
from dinov2.preprocess.reasons import Flag
from dinov2.preprocess.render.grey import to_eight_bits
from dinov2.preprocess.render.picture import render

log = logging.getLogger(__name__)


def picture_of(data: bytes, *, settings: Mapping[str, Any], where: str) -> NDArray[np.uint8]:
    """-> uint8 [h, w]; of several frames the first.  `settings`: flat keys of `preprocess.json`, {} where not known.

    Raises:
        PictureError: no film, or one that cannot be used; says why.
        WeightsError: settings that this version does not know.
    """
    config = _config(tuple((key, _frozen(value)) for key, value in settings.items()))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what libraries remark on a damaged file may hold a patient's values
            opened = open_film(data, policy=config.decode, limits=config.limits)
            film = opened.frame(0)
            levels = to_eight_bits(render(film, config=config))
    except DicomRejected as error:
        raise PictureError(f"{where}: {error}") from error
    except Exception as error:  # a damaged file met code that did not expect it
        raise PictureError(f"{where}: could not be read ({type(error).__name__}). Copy the file again.") from error
    flags = (*film.flags, *remarks(film, levels, policy=config.quality))
    for flag in (Flag.POLARITY_SUSPECT, Flag.ONE_FRAME_OF_MANY):
        if flag in flags:
            log.warning("%s: flagged %s: %s", where, flag, flag.meaning)
    try:
        filters.refuse_flagged((*filters.check(opened.header, policy=config.filters), *flags), policy=config.filters)
    except DicomRejected as error:
        log.warning("%s: the training would have left it out: %s", where, error)
    return levels


@cache
def _config(settings: tuple[tuple[str, Any], ...]) -> PreprocessConfig:
    if not settings:
        log.warning("the weights do not record how their pictures were made: films are prepared as the preset raddino")
        return PreprocessConfig()
    nested: dict[str, Any] = {}
    for key, value in settings:
        section, _, name = key.partition(".")
        if name:
            nested.setdefault(section, {})[name] = list(value) if isinstance(value, tuple) else value
        else:
            nested[section] = value
    try:
        return from_plain(PreprocessConfig, nested)
    except ConfigError as error:
        raise WeightsError(
            f"the card records how the pictures of the training were made, and that is {error} "
            "Make pictures with `dinov2 preprocess` of the version that the card names, and give those."
        ) from error


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
