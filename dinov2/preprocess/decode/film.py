"""Bytes of an input file -> an opened film: its header first, its frames when asked for.

In: the whole content of a file. Out: an `OpenFilm`. Callers judge `header` before they ask for a frame, so that no
decoder runs for a film that is not wanted.
"""

from typing import Protocol

from dinov2.config.preprocess import Decode, Limits
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

    Raises DicomRejected with a reason of `reasons`.
    """
    raise NotImplementedError
