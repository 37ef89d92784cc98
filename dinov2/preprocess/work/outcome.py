"""What became of one input file: plain data, small enough to cross from a worker process by the million.

In: values from `task`. Out: `Outcome` and `Picture`.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A finished picture under its partial name."""

    frame: int  # 1 .. number of frames
    image_id: str
    sha256: bytes  # of the PNG
    perceptual: str  # 64 hexadecimal digits
    row: str  # JSON: columns of the manifest


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Pictures where there are any, else `reason` and `message`; neither where the content is unchanged."""

    content: bytes | None = None  # SHA-256 of what was read
    film: str | None = None  # HMAC of the SOPInstanceUID, or of the relative path of a file without one
    suspect: bool = False  # a picture may be a negative
    pixels: bytes | None = None  # SHA-256 over the digests of the pictures
    pictures: tuple[Picture, ...] = ()
    reason: str = ""
    message: str = ""
    unchanged: bool = False  # the content that was converted before
    # Only for the private folder, and only where privacy.crosswalk is on.
    patient: str = field(default="", repr=False)
    study: str = field(default="", repr=False)
    image_uid: str = field(default="", repr=False)


def digest_of(pictures: Sequence[Picture]) -> bytes:
    """One digest for all the pictures of a file."""
    return hashlib.sha256(b"".join(picture.sha256 for picture in pictures)).digest()


def partial_path(folder: Path, *, name: str, frame: int) -> Path:
    """Where a worker leaves a picture of the input called `name`; two files with one identity do not meet there."""
    return folder / f"{name}-{frame}.png"
