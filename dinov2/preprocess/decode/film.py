"""Bytes of an input file -> an opened film: its header first, its frames when asked for.

In: the whole content of a file. Out: an `OpenFilm`. Callers judge `header` before they ask for a frame, so that no
decoder runs for a film that is not wanted.
"""

from typing import Protocol

from dinov2.config.preprocess import Decode, Limits
from dinov2.preprocess.decode.dicom import DicomFilm
from dinov2.preprocess.decode.raster import RasterFilm, is_raster
from dinov2.preprocess.radiograph import Header, Radiograph


class OpenFilm(Protocol):
    """A film whose header is parsed and whose pixels are not decoded yet."""

    @property
    def header(self) -> Header:
        """What the file states about itself."""

    def frame(self, index: int) -> Radiograph:
        """The frame or page of this number, decoded, in modality (or display) units.  Raises DicomRejected."""


def open_film(data: bytes, *, policy: Decode, limits: Limits) -> OpenFilm:
    """The film in `data`: DICOM with or without preamble, PNG, JPEG or TIFF.

    Raises DicomRejected with a reason of `reasons`: not_an_image, unreadable, truncated, undecodable, too_large, or
    bad_header where a count of frames is stated that the data does not bear out.
    """
    if is_raster(data):
        return RasterFilm(data, policy=policy, limits=limits)
    return DicomFilm(data, policy=policy, limits=limits)
