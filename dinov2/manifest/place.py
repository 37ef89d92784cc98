"""Where the bytes of a picture lie: in a file of its own, or in a tar shard.

In: a path, and for a shard an offset and a number of bytes. Out: the bytes, their size and their hash.
"""

import hashlib
import io
import os
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

SHARD_MARK = ".tar::"  # what the column `image` of a packed picture holds: SHARD.tar::NAME


@dataclass(frozen=True)
class Place:
    """A file, or `num_bytes` of one from `offset` on."""

    path: Path
    offset: int | None = None  # None: the picture is the whole file
    num_bytes: int | None = None

    @property
    def is_packed(self) -> bool:
        """Whether the picture is part of a shard."""
        return self.offset is not None

    def exists(self) -> bool:
        """Whether the file is there, and long enough."""
        if self.offset is None or self.num_bytes is None:
            return self.path.is_file()
        try:
            return self.path.stat().st_size >= self.offset + self.num_bytes
        except OSError:
            return False

    def read(self) -> bytes:
        """The picture file's bytes.  Raises OSError."""
        if self.offset is None or self.num_bytes is None:
            return self.path.read_bytes()
        with self.path.open("rb", buffering=0) as stream:
            return read_part(stream.fileno(), self)


def read_part(descriptor: int, place: Place) -> bytes:
    """The bytes of a packed picture from its open shard; the file's own position is neither used nor moved.

    Raises OSError where the shard ends before the picture does.
    """
    if place.offset is None or place.num_bytes is None:
        raise ValueError("not a packed picture")
    data = os.pread(descriptor, place.num_bytes, place.offset)
    while len(data) < place.num_bytes:  # a network file system may give less than was asked for
        more = os.pread(descriptor, place.num_bytes - len(data), place.offset + len(data))
        if not more:
            raise OSError("the shard ends before the picture does")
        data += more
    return data


def sha256_of(place: Place | Path) -> str:
    """Of a picture file's bytes, in hexadecimal digits.  Raises OSError."""
    if isinstance(place, Place) and place.is_packed:
        return hashlib.sha256(place.read()).hexdigest()
    with (place.path if isinstance(place, Place) else place).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def size_of(place: Place | Path) -> tuple[int, int]:
    """(width, height) in pixels from a picture file's header.  Raises OSError where it is no picture."""
    path = place.path if isinstance(place, Place) else place
    content = io.BytesIO(place.read()) if isinstance(place, Place) and place.is_packed else path
    try:
        with Image.open(content) as picture:
            return picture.size
    except (UnidentifiedImageError, ValueError, SyntaxError) as error:
        raise OSError(f"{path}: not a picture ({error})") from error
