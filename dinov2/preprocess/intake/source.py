"""One input file: where its bytes are, and how it is told apart from others.

In: a path, perhaps with a place inside an archive. Out: a `Source`, which a worker process can read by itself: it needs
neither the archive's directory nor a second look at the disk. Names inside an archive are text and nothing more; no
path on disk is ever made of one.
"""

import json
import os
import struct
import zipfile
import zlib
from dataclasses import dataclass
from lzma import LZMAError
from pathlib import Path
from typing import BinaryIO, Literal

from dinov2.errors import DicomRejected
from dinov2.preprocess.reasons import Reason

Kind = Literal[
    "file",  # all of `path`
    "zip",  # a member of a zip: `offset` of its local header
    "tar",  # a member of a plain tar: `offset` of its content
    "stream",  # a member of a compressed tar: `offset` is its number there; only `archives.spool` can reach it
    "spooled",  # what `archives.spool` made of a stream: a private copy, removed as soon as it is read
    "fault",  # cannot be read at all, for the reason in `fault`
]
LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a zip member: signature, lengths of name and extra field
SIGNATURE = b"PK\x03\x04"
PIECE_BYTES = 4096  # of packed data, for methods whose decompressor has no bound on what it gives back at once


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """One input file; size and time of change tell whether it is still the one that was converted."""

    relative: str  # below the input, with forward slashes; a member of an archive follows it after "!/"
    path: Path  # of the file, or of the archive
    size: int  # bytes; of a member once unpacked, as the archive states it
    mtime_ns: int  # of the file, or of the archive
    kind: Kind = "file"
    offset: int = 0
    packed_size: int = 0  # zip: bytes in the archive
    method: int = 0  # zip: of compression
    crc: int = 0  # zip: of the content
    fault: str = ""  # says why, without naming the file

    @property
    def shown(self) -> str:
        """The relative path as text: bytes of a name that are no UTF-8 become the replacement character."""
        return as_text(self.relative)

    def read(self, *, max_bytes: int) -> bytes:
        """The content.

        Raises DicomRejected `too_large` where it is longer than `max_bytes`, whatever the archive claims, and
        `unreadable` for a damaged or encrypted member; OSError where the file or archive cannot be opened.
        """
        if self.kind == "fault":
            raise DicomRejected(self.fault, reason=Reason.UNREADABLE)
        if self.kind != "file":
            check_size(self.size, max_bytes=max_bytes)
        if self.kind == "stream":
            raise _unreadable("a member of a compressed archive was not unpacked ahead of its reading")
        with self.path.open("rb") as stream:
            if self.kind == "spooled":
                self.path.unlink()  # nobody reads it twice, and whatever happens to this process it is gone
            if self.kind in ("file", "spooled"):
                return _read_file(stream, max_bytes=max_bytes)
            return _read_zip(self, stream) if self.kind == "zip" else _read_tar(self, stream)

    def to_text(self) -> str:
        """One line of ASCII that `from_text` turns back, for a table of sources."""
        return json.dumps([getattr(self, name) for name in self.__slots__], default=os.fspath)

    @classmethod
    def from_text(cls, text: str) -> "Source":
        """The source that `to_text` wrote down."""
        values = dict(zip(cls.__slots__, json.loads(text), strict=True))
        return cls(**(values | {"path": Path(values["path"])}))


def check_size(size: int, *, max_bytes: int) -> None:
    """Raise DicomRejected `too_large` above the limit."""
    if size > max_bytes:
        raise DicomRejected(
            f"{size / 1e6:.0f} MB once read; allowed are {max_bytes / 1e6:.0f}. Raise limits.max_file_mb if that is a "
            "film.",
            reason=Reason.TOO_LARGE,
        )


def _read_file(stream: BinaryIO, *, max_bytes: int) -> bytes:
    size = os.fstat(stream.fileno()).st_size  # `Source.size` may be of another day
    check_size(size, max_bytes=max_bytes)
    content = stream.read(size + 1)
    if len(content) != size:
        raise _unreadable("the file changed while it was read. Run again when nothing writes to it")
    return content


def _read_tar(source: Source, stream: BinaryIO) -> bytes:
    stream.seek(source.offset)
    content = stream.read(source.size)
    if len(content) != source.size:
        raise _unreadable("the tar archive ends within this member. Copy the archive again")
    return content


def _read_zip(source: Source, stream: BinaryIO) -> bytes:
    """The stated size, checked before, bounds what is unpacked; the checksum finds out where it was stated wrongly."""
    if source.offset >= 0:
        stream.seek(source.offset)
    header = stream.read(LOCAL_HEADER.size)
    if source.offset < 0 or len(header) < LOCAL_HEADER.size or header[:4] != SIGNATURE:
        raise _unreadable("the zip archive's directory points to no member. Copy the archive again")
    _, len_name, len_extra = LOCAL_HEADER.unpack(header)
    stream.seek(len_name + len_extra, os.SEEK_CUR)
    info = zipfile.ZipInfo()
    info.compress_type, info.compress_size, info.file_size, info.CRC = (
        source.method,
        source.packed_size,
        source.size,
        source.crc,
    )
    try:
        member = zipfile.ZipExtFile(stream, "r", info)
        whole = source.method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
        content = b"".join(iter(lambda: member.read(source.size + 1 if whole else PIECE_BYTES), b""))
    except NotImplementedError as error:
        raise _unreadable(f"zip compression method {source.method} is not supported. Pack the archive again") from error
    except (zipfile.BadZipFile, zlib.error, LZMAError, EOFError, ValueError, OSError) as error:
        raise _unreadable(
            f"the member cannot be unpacked from its zip archive ({type(error).__name__}). Copy the archive again"
        ) from error
    if len(content) != source.size:
        raise _unreadable("the member is shorter than its zip archive states. Copy the archive again")
    return content


def as_text(relative: str) -> str:
    """A path that can be shown: bytes that are no UTF-8 become the replacement character."""
    return relative.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _unreadable(text: str) -> DicomRejected:
    return DicomRejected(f"{text}.", reason=Reason.UNREADABLE)
