"""The refusals of this room, each with what to do about it. None of them holds a value of the file.

In: what was found, in words, sizes, tag numbers. Out: `DicomRejected` with its reason.
"""

from dinov2.errors import DicomRejected
from dinov2.preprocess.reasons import Reason

PIXEL_DATA = "(7FE0,0010) Pixel Data"
FETCH_AGAIN = "Fetch the file again from its archive."


def truncated(found: str) -> DicomRejected:
    """Bytes end before the picture does."""
    return DicomRejected(f"{found}. {FETCH_AGAIN}", reason=Reason.TRUNCATED)


def undecodable(found: str) -> DicomRejected:
    """Bytes are there and damaged."""
    return DicomRejected(f"{found}. {FETCH_AGAIN}", reason=Reason.UNDECODABLE)


def bad_header(found: str, *, advice: str = FETCH_AGAIN) -> DicomRejected:
    """A tag that is needed is absent or contradicts the pixels or another tag."""
    return DicomRejected(f"{found}. {advice}", reason=Reason.BAD_HEADER)


def unreadable(found: str) -> DicomRejected:
    """The structure of the file cannot be parsed."""
    return DicomRejected(f"{found}. {FETCH_AGAIN}", reason=Reason.UNREADABLE)


def too_large(found: str, *, key: str) -> DicomRejected:
    """More than `limits` allows; nothing was allocated."""
    return DicomRejected(f"{found}. If the file is sound, raise {key}; else exclude it.", reason=Reason.TOO_LARGE)


def unsupported(found: str, *, advice: str) -> DicomRejected:
    """A form of pixels that no decoder here takes."""
    return DicomRejected(f"{found}. {advice}", reason=Reason.UNSUPPORTED)


def not_an_image() -> DicomRejected:
    """None of the formats."""
    return DicomRejected("neither DICOM nor PNG, JPEG or TIFF. Exclude it from the input.", reason=Reason.NOT_AN_IMAGE)
