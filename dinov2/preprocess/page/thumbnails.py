"""Small pictures for the page: of finished pictures, and of films that did not become one.

In: a row's place, or an input. Out: `Drawn`: a JPEG as a data URI, or a few words why there is none. Nothing that
happens to one of them stops the page.
"""

import io
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dinov2.config.preprocess import Decode, Intensity, Limits, PreprocessConfig, Resample
from dinov2.errors import DicomRejected
from dinov2.manifest import Place
from dinov2.pages import data_uri
from dinov2.preprocess.decode.film import open_film
from dinov2.preprocess.intake.source import Source
from dinov2.preprocess.radiograph import Header
from dinov2.preprocess.reasons import Reason
from dinov2.preprocess.render.grey import to_eight_bits
from dinov2.preprocess.render.picture import render

SIDE_PX = 176  # the longer side
JPEG_QUALITY = 80
BURNED_IN_NOTE = "burned-in text: not shown"
LIMITS = Limits()
# What cost a process its life, its time or its memory is not tried in this one.
NOT_TRIED = frozenset({Reason.TIME_LIMIT, Reason.WORKER_DIED, Reason.TOO_LARGE})
AS_FOUND = PreprocessConfig(
    decode=Decode(multi_frame="all", colour="luminance"),
    resample=Resample(short_side=SIDE_PX, antialias=True),
    intensity=Intensity(mapping="percentile"),
)


@dataclass(frozen=True)
class Drawn:
    """A thumbnail, or a note in its place."""

    uri: str = ""
    note: str = ""
    about: str = ""  # terms from the header of a rejected film


def read_levels(place: Place) -> NDArray[np.uint8]:
    """The grey levels [h, w] of a finished picture, 16 bits rounded to 8.  Raises OSError."""
    try:
        with Image.open(io.BytesIO(place.read())) as picture:
            values = np.asarray(picture if picture.mode.startswith("I") else picture.convert("L"))
    except (ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise OSError("not a picture") from error
    return to_eight_bits(values.astype(np.uint8) if values.dtype == np.uint8 else values.astype(np.uint16))


def thumbnail(levels: NDArray[np.uint8]) -> Drawn:
    """A picture [h, w], shrunk."""
    small = Image.fromarray(levels)
    small.thumbnail((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS)
    return Drawn(uri=data_uri(small, "JPEG", quality=JPEG_QUALITY, optimize=True))


def draw_picture(place: Place) -> Drawn:
    """A finished picture."""
    try:
        return thumbnail(read_levels(place))
    except OSError:
        return Drawn(note="the picture file is missing or damaged")


def draw_rejected(source: Source, *, frame: int, reason: Reason, show_burned_in: bool) -> Drawn:
    """A film that became no picture, decoded with every filter off.  `frame` counts from 1.

    A film whose header says that text is burned in is not decoded unless `show_burned_in`, whatever it was rejected
    for.
    """
    if reason in NOT_TRIED:
        return Drawn(note="not tried again here")
    if source.kind == "stream":
        return Drawn(note="in a compressed archive, which is not unpacked for this page")
    about = ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what libraries remark may hold element values
            data = source.read(max_bytes=LIMITS.max_file_bytes)
            film = open_film(data, policy=AS_FOUND.decode, limits=LIMITS)
            about = _about(film.header)
            if film.header.burned_in and not show_burned_in:
                return Drawn(note=BURNED_IN_NOTE, about=about)
            levels = to_eight_bits(render(film.frame(frame - 1), config=AS_FOUND))
        drawn = thumbnail(levels)
        return Drawn(uri=drawn.uri, about=about)
    except DicomRejected as error:
        return Drawn(note=f"cannot be drawn: {error.reason}", about=about)
    except OSError:
        return Drawn(note="the input is not there any more", about=about)
    except Exception as error:  # a damaged file met code that did not expect it: its tile stays grey
        return Drawn(note=f"cannot be drawn ({type(error).__name__})", about=about)


def _about(header: Header) -> str:
    """Defined terms only."""
    terms = (header.modality, header.body_part, header.view, f"{header.width} x {header.height}")
    return ", ".join(term for term in terms if term)
