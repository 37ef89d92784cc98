"""What is inside a zip or tar archive, without unpacking it to disk.

In: an archive's path. Out: a `Source` per member, in the archive's own order, in which it is also read fastest. Members
of a zip or a plain tar are read where they lie. A compressed tar has no random access: `spool` unpacks it once, in
order, and leaves each wanted member as a private file just ahead of the workers. Damage never stops a listing: what was
found before it is listed, and the archive itself becomes a source that cannot be read.
"""

import bz2
import gzip
import lzma
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import IO, BinaryIO

from dinov2.errors import DicomRejected
from dinov2.preprocess.intake.names import ArchiveKind, Skipped, Why, why_member_left_out
from dinov2.preprocess.intake.source import Source
from dinov2.preprocess.reasons import Reason

DAMAGE = (  # what the readers of archives raise at damaged bytes
    OSError,
    EOFError,
    ValueError,
    LookupError,
    ArithmeticError,
    NotImplementedError,
    struct.error,
    zlib.error,
    lzma.LZMAError,
    tarfile.TarError,
    zipfile.BadZipFile,
)
COPY_BYTES = 1 << 20
MAX_READ_BYTES = 16 << 20  # at once: names and attributes of a tar member are read whole, whatever length they claim
KEPT_BYTES = 1024
ENCRYPTED = 0x1  # of a zip member's flag bits; PKWARE APPNOTE 4.4.4
ZIP_MODE_SHIFT = 16  # of the external attributes of a zip made on Unix


def list_archive(path: Path, *, relative: str, kind: ArchiveKind) -> Iterator[Source | Skipped]:
    """Every member that is looked at, and what is not; a fault of the archive comes last, as a source of its name.

    Two members of one name are two sources: the later one ends in "#2".
    """
    try:
        state = path.stat()
        whole = Source(relative=relative, path=path, size=state.st_size, mtime_ns=state.st_mtime_ns)
    except OSError:
        yield Source(relative=relative, path=path, size=0, mtime_ns=0)  # reading it will say why
        return
    members = _zip_members(whole) if kind == "zip" else _tar_members(whole, kind=kind)
    try:
        yield from _distinct(members)
    except DAMAGE as error:
        yield replace(whole, kind="fault", fault=_fault(error, kind=kind))


def spool(sources: Iterable[Source], *, folder: Path, max_bytes: int) -> Iterator[Source]:
    """The sources, in their order; members of compressed tars as files of mode 600 in `folder`.

    A member is unpacked when it is asked for, so that only as many lie there as are asked for ahead of their reading:
    `Source.read` removes them. One archive is read once where its members come in the order in which they were listed.
    Sources that cannot be unpacked come out as faults. Raises OSError only where `folder` takes nothing more.
    """
    number = 0
    for (path, kind), group in groupby(sources, key=lambda source: (source.path, source.kind)):
        if kind != "stream":
            yield from group
            continue
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with closing(_Stream(path)) as stream:
            for source in group:
                yield stream.unpack(source, target=folder / f"{number:08d}", max_bytes=max_bytes)
                number += 1


def _zip_members(whole: Source) -> Iterator[Source | Skipped]:
    with zipfile.ZipFile(whole.path) as archive:
        members = archive.infolist()
    for info in members:
        relative = _relative(whole, info.filename)
        mode = info.external_attr >> ZIP_MODE_SHIFT
        if info.is_dir():
            continue
        if why := why_member_left_out(info.filename.replace("\\", "/")):
            yield Skipped(relative, why)
        elif stat.S_ISLNK(mode):
            yield Skipped(relative, Why.SPECIAL)
        else:
            member = replace(
                whole,
                relative=relative,
                size=info.file_size,
                kind="zip",
                offset=info.header_offset,
                packed_size=info.compress_size,
                method=info.compress_type,
                crc=info.CRC,
            )
            encrypted = "the member is encrypted. Unpack the archive with its password first."
            yield replace(member, kind="fault", fault=encrypted) if info.flag_bits & ENCRYPTED else member


def _tar_members(whole: Source, *, kind: ArchiveKind) -> Iterator[Source | Skipped]:
    with _open_tar(whole.path, kind=kind) as entries:
        for number, (_, info) in enumerate(entries):
            relative = _relative(whole, info.name)
            if info.isdir():
                continue
            if why := why_member_left_out(info.name):
                yield Skipped(relative, why)
            elif not info.isreg():
                yield Skipped(relative, Why.SPECIAL)
            else:
                offset = info.offset_data if kind == "tar" else number
                member = replace(whole, relative=relative, size=info.size, kind=kind, offset=offset)
                holes = "the member is stored with holes left out. Unpack the archive first."
                yield replace(member, kind="fault", fault=holes) if info.issparse() else member


class _Forward:
    """A file that tarfile reads from front to back: a step back is never longer than the header that was just read.

    gzip, bz2 and xz files could seek too, but would unpack everything again for it.
    """

    def __init__(self, stream: IO[bytes] | gzip.GzipFile, *, skips: bool) -> None:
        """`skips`: the stream can leave bytes out without reading them."""
        self.stream, self.skips = stream, skips
        self.kept = b""  # what lies before the stream's position
        self.position = self.end = 0  # of the reader, and of the stream

    def tell(self) -> int:
        return self.position

    def seek(self, position: int) -> int:
        if self.skips and position > self.end:
            self.end, self.kept = self.stream.seek(position), b""
        while position > self.end and self._more(min(position - self.end, COPY_BYTES)):
            pass
        if position < self.end - len(self.kept):
            raise tarfile.StreamError("step back")
        self.position = min(position, self.end)
        return self.position

    def read(self, size: int) -> bytes:
        if size > MAX_READ_BYTES:
            raise tarfile.ReadError("a header of absurd length")
        again = self.kept[len(self.kept) - (self.end - self.position) :][:size]
        content = again + self._more(size - len(again))
        self.position += len(content)
        return content

    def ends_at(self, offset: int) -> bool:
        """Whether nothing but the zeros of an end marker and its padding follows."""
        self.seek(offset)
        while block := self.read(COPY_BYTES):
            if any(block):
                return False
        return True

    def _more(self, size: int) -> bytes:
        block = self.stream.read(size) if size else b""
        self.end += len(block)
        self.kept = (self.kept + block)[-KEPT_BYTES:] if len(block) < KEPT_BYTES else block[-KEPT_BYTES:]
        return block


@contextmanager
def _open_tar(path: Path, *, kind: ArchiveKind) -> Iterator[Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]]:
    """The entries of a tar, in order; raises ReadError where it stops at anything but its end."""
    with path.open("rb") as file, closing(_decompressed(file, kind=kind)) as stream:
        forward = _Forward(stream, skips=kind == "tar")
        with tarfile.open(fileobj=forward, mode="r:") as archive:  # type: ignore[call-overload]
            yield _entries(archive, forward)


def _decompressed(file: BinaryIO, *, kind: ArchiveKind) -> IO[bytes] | gzip.GzipFile:
    """Chosen by the first bytes, since suffixes are often wrong."""
    first = file.read(6)
    file.seek(0)
    if kind == "tar":
        return file
    if first.startswith(b"\x1f\x8b"):
        return gzip.open(file)
    if first.startswith(b"BZh"):
        return bz2.open(file)
    return lzma.open(file) if first.startswith(b"\xfd7zXZ") else file


def _entries(archive: tarfile.TarFile, forward: _Forward) -> Iterator[tuple[tarfile.TarFile, tarfile.TarInfo]]:
    while (info := archive.next()) is not None:
        archive.members.clear()  # type: ignore[attr-defined]  # else they gather, a kilobyte each
        yield archive, info
    if not forward.ends_at(archive.offset):
        raise tarfile.ReadError("damaged header")


class _Stream:
    """A compressed tar that is read once, from front to back."""

    def __init__(self, path: Path) -> None:
        """Nothing is opened before the first member is asked for."""
        self.path, self.failure = path, ""
        self._walk: Generator[tuple[int, tarfile.TarFile, tarfile.TarInfo], None, None] | None = None
        self._number = -1

    def close(self) -> None:
        if self._walk is not None:
            self._walk.close()

    def unpack(self, source: Source, *, target: Path, max_bytes: int) -> Source:
        """The source as a file at `target`; as a fault where that fails; unchanged where it is too large."""
        if source.size > max_bytes:
            return source
        try:
            with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as output:
                for piece in self._pieces(source):
                    output.write(piece)  # what the disk refuses is no fault of the archive, and is raised
        except DicomRejected as error:
            target.unlink()
            return replace(source, kind="fault", fault=str(error))
        return replace(source, kind="spooled", path=target)

    def _pieces(self, source: Source) -> Iterator[bytes]:
        """The content.  Raises DicomRejected where the archive is damaged here, or was before."""
        if self.failure:
            raise DicomRejected(self.failure, reason=Reason.UNREADABLE)
        try:
            archive, info = self._find(source.offset)
            content = archive.extractfile(info)
            if content is None or info.size != source.size:
                raise tarfile.ReadError("changed since it was listed")
            yield from iter(lambda: content.read(COPY_BYTES), b"")
        except DAMAGE as error:
            self.failure = _fault(error, kind="stream")
            raise DicomRejected(self.failure, reason=Reason.UNREADABLE) from error

    def _find(self, number: int) -> tuple[tarfile.TarFile, tarfile.TarInfo]:
        if self._walk is None or number <= self._number:
            self.close()
            self._walk = self._start()
        for at, archive, info in self._walk:
            self._number = at
            if at == number:
                return archive, info
        raise tarfile.ReadError("changed since it was listed")

    def _start(self) -> Generator[tuple[int, tarfile.TarFile, tarfile.TarInfo], None, None]:
        with _open_tar(self.path, kind="stream") as entries:
            for number, (archive, info) in enumerate(entries):
                yield number, archive, info


def _relative(whole: Source, name: str) -> str:
    return f"{whole.relative}!/{name.replace(chr(92), '/').removeprefix('./')}"


def _distinct(members: Iterable[Source | Skipped]) -> Iterator[Source | Skipped]:
    """Sources of different names, so that each can be told from the others; archives may hold a name twice."""
    seen: set[int] = set()
    for member in members:
        name, count = member.relative, 1
        while hash(name) in seen:
            count += 1
            name = f"{member.relative}#{count}"
        if isinstance(member, Source):
            seen.add(hash(name))
        yield member if count == 1 else replace(member, relative=name)


def _fault(error: BaseException, *, kind: ArchiveKind) -> str:
    """What is wrong with an archive, in words that hold nothing of its content."""
    if isinstance(error, OSError) and error.errno:
        return f"the archive cannot be read ({error.strerror}). Mend its permissions or copy it again."
    what = "zip" if kind == "zip" else "tar"
    return (
        f"the {what} archive is damaged or cut short ({type(error).__name__}). Copy it again; what was found before "
        "that place is used."
    )
