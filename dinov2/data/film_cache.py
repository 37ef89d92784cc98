"""Decoded films, kept for the next time they are asked for.

In: a film by its row, after it was decoded. Out: the same pixels, or nothing. Lies in a file, or in memory without a
name, and any number of processes read and write it at once. Every way in which a film may be lost (no room, a full
disk, a process killed while it wrote) leads to the film being decoded again, never to other pixels.

The file: a header (what it is, of which manifest, how many bytes of films are given away), one entry a row, the films.
An entry is written twice: when its film's place is given away, and when the film is whole. It carries a checksum of
itself and one of the film. A film of given row and size is always the same bytes, so two processes that write it at
once, or one that goes on where a killed one stopped, do no harm.

Read and written with `pread` and `pwrite`, not through a mapping: a full disk is then an error that can be told, not a
SIGBUS, and a worker's resident memory does not grow with what it has read.
"""

import errno
import fcntl
import logging
import os
import struct
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

MAGIC = b"dinov2 films 1\n\0"
HEADER = struct.Struct("<16s32sQ")  # magic, fingerprint, rows
NUMBER = struct.Struct("<Q")
GIVEN_AT, TOLD_AT = 64, 72  # in the header: bytes of films given away; whether it was told that no more are kept
ENTRY = struct.Struct("<QIIIII")  # offset, height, width, whether the film is whole, its checksum, the entry's own
ENTRY_BYTES = 32
PAGE = 4096
MAX_TRIES, WAIT_S = 100, 0.0005  # to get the lock, which is held for microseconds
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.ENOMEM)

log = logging.getLogger(__name__)

Picture = NDArray[np.uint8]


class Entry(NamedTuple):
    """Where a film lies."""

    offset: int
    height: int
    width: int
    whole: int
    checksum: int


class FilmCache:
    """Films of one manifest by row, in an open file that is this cache's to close, whatever comes of it.

    Nothing is ever taken out: once `limit_bytes` are given away, further films are not kept. In a forked process it
    works on; it cannot be sent to another.
    """

    def __init__(self, descriptor: int, *, name: str, num_rows: int, limit_bytes: int) -> None:
        self.name = name
        self.num_rows = num_rows
        self.limit_bytes = limit_bytes
        self._file = descriptor
        self._keeps = True

    @classmethod
    def begin(cls, descriptor: int, *, name: str, fingerprint: bytes, num_rows: int, limit_bytes: int) -> "FilmCache":
        """A cache without films in an empty file.  Raises OSError."""
        cache = cls(descriptor, name=name, num_rows=num_rows, limit_bytes=limit_bytes)
        os.pwrite(descriptor, HEADER.pack(MAGIC, fingerprint, num_rows), 0)
        cache._set(GIVEN_AT, 0)
        cache._set(TOLD_AT, 0)
        return cache

    @classmethod
    def go_on(
        cls, descriptor: int, *, name: str, fingerprint: bytes, num_rows: int, limit_bytes: int
    ) -> "FilmCache | None":
        """The cache in a file that holds one of this manifest; None where it holds anything else.  Raises OSError."""
        cache = cls(descriptor, name=name, num_rows=num_rows, limit_bytes=limit_bytes)
        header = os.pread(descriptor, TOLD_AT + NUMBER.size, 0)
        if len(header) == TOLD_AT + NUMBER.size and header.startswith(HEADER.pack(MAGIC, fingerprint, num_rows)):
            return cache
        cache.close()
        return None

    def close(self) -> None:
        """Closes the file; a cache in memory is gone then."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __del__(self) -> None:
        self.close()

    @property
    def num_bytes(self) -> int:
        """What the header, the entries and the films take up."""
        return films_start(self.num_rows) + self._number(GIVEN_AT)

    def holds(self, row: int) -> bool:
        """Whether a film was kept, by what its entry says."""
        entry = self._entry(row)
        return entry is not None and bool(entry.whole)

    def get(self, row: int) -> Picture | None:
        """The film of a row; None where it is not kept, or not whole.  -> uint8 [H, W]"""
        entry = self._entry(row)
        if entry is None or not entry.whole:
            return None
        picture = np.empty((entry.height, entry.width), dtype=np.uint8)
        try:
            done = os.preadv(self._file, [picture.data], entry.offset)
        except OSError:
            return None
        whole = done == picture.nbytes and zlib.crc32(picture.data) == entry.checksum
        return picture if whole else None

    def put(self, row: int, picture: Picture) -> None:
        """Keep the film of a row where there is room.  uint8 [H, W]   Never raises for a full or failing disk."""
        if not self._keeps:
            return
        try:
            height, width = picture.shape
            place = self._place(row, height=height, width=width)
            if place is None:
                return
            content = np.ascontiguousarray(picture).data
            self._write(content.cast("B"), place.offset)
            self._write_entry(row, place._replace(whole=1, checksum=zlib.crc32(content)))
        except OSError as error:
            self._give_up(
                f"cannot be written ({error.strerror})" + (", the disk is full" if error.errno in NO_ROOM else "")
            )

    def tell_anew(self) -> None:
        """A new run: that no more is kept will be told once more."""
        self._set(TOLD_AT, 0)

    def _place(self, row: int, *, height: int, width: int) -> Entry | None:
        """A film's place: the one it has (its writer may have been killed), or a new one; None where it gets none."""
        entry = self._entry(row)
        if entry is not None and (entry.height, entry.width) == (height, width):
            return entry
        with self._locked() as locked:
            if not locked:
                return None  # another time
            given = self._number(GIVEN_AT)
            offset = films_start(self.num_rows) + given
            if offset + height * width <= self.limit_bytes:
                self._set(GIVEN_AT, given + height * width)
                entry = Entry(offset, height, width, whole=0, checksum=0)
                self._write_entry(row, entry)
                return entry
        self._give_up(f"holds {given / 2**30:.2f} GiB of films, and data.cache_gib allows no more")
        return None

    def _entry(self, row: int) -> Entry | None:
        """The entry of a row; None where there is none, or one that was not written whole."""
        if not 0 <= row < self.num_rows:
            raise IndexError(f"row {row} of a cache of {self.num_rows} films")
        try:
            content = os.pread(self._file, ENTRY.size, PAGE + row * ENTRY_BYTES)
        except OSError:
            return None
        if len(content) < ENTRY.size or not any(content):
            return None
        *fields, checksum = ENTRY.unpack(content)
        entry = Entry(*fields)
        return entry if checksum == _entry_checksum(row, entry) else None

    def _write_entry(self, row: int, entry: Entry) -> None:
        content = ENTRY.pack(*entry, _entry_checksum(row, entry))
        self._write(memoryview(content), PAGE + row * ENTRY_BYTES)

    def _write(self, content: memoryview, offset: int) -> None:
        while content:
            written = os.pwrite(self._file, content, offset)
            content, offset = content[written:], offset + written

    def _number(self, at: int) -> int:
        return int(NUMBER.unpack(os.pread(self._file, NUMBER.size, at))[0])

    def _set(self, at: int, number: int) -> None:
        os.pwrite(self._file, NUMBER.pack(number), at)

    def _give_up(self, why: str) -> None:
        """This process keeps no more films; the first of all that share the cache says so."""
        self._keeps = False
        told = 0
        try:
            with self._locked():
                told = self._number(TOLD_AT)
                self._set(TOLD_AT, 1)
        except OSError:
            pass  # where even that cannot be noted, it may be told twice
        if not told:
            log.warning(
                "data.cache: %s %s. Training goes on; films that are not kept are decoded each time.", self.name, why
            )

    @contextmanager
    def _locked(self) -> Iterator[bool]:
        """Whether this process alone changes what is given away; the system lets go of a lock whose owner is killed."""
        where = (NUMBER.size, GIVEN_AT, os.SEEK_SET)
        for _ in range(MAX_TRIES):
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, *where)
            except (BlockingIOError, PermissionError):  # POSIX leaves the choice between EAGAIN and EACCES
                time.sleep(WAIT_S)
                continue
            try:
                yield True
            finally:
                fcntl.lockf(self._file, fcntl.LOCK_UN, *where)
            return
        yield False


def films_start(num_rows: int) -> int:
    """Bytes before the first film: the header and an entry for every row."""
    return PAGE + -(-num_rows * ENTRY_BYTES // PAGE) * PAGE


def _entry_checksum(row: int, entry: Entry) -> int:
    return zlib.crc32(struct.pack("<QQIIII", row, *entry)) or 1
