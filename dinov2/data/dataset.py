"""Rows of a manifest as pictures in memory.

In: a `Manifest`, whose pictures are files or lie in tar shards, and where wanted a cache of those decoded before. Out:
uint8 [H, W], one channel; or `Unreadable`, which says why not.
"""

import os
from collections import OrderedDict
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dinov2.data.film_cache import FilmCache
from dinov2.manifest import PLACES, Manifest
from dinov2.manifest.place import Place, read_part

Picture = NDArray[np.uint8]
MAX_OPEN_SHARDS = 128  # per process
LEVELS_PER_LEVEL = 257  # of 16 bits in one of 8: 65535 is 255
HALF_RANGE = 32_768  # a 16-bit picture that stays below it was never mapped to its range


class Unreadable(Exception):
    """A picture that cannot be used; the message is the reason, without the path."""


class Pictures:
    """The pictures of a manifest by row.  Holds paths and sizes only, as Arrow columns that worker processes share."""

    def __init__(self, manifest: Manifest, *, cache: FilmCache | None = None) -> None:
        known = ("image", "width", "height", *PLACES)
        table = manifest.table.select([name for name in known if name in manifest.table.column_names])
        self._manifest = Manifest(table, manifest.root)
        self._shards = Shards()
        self._cache = cache

    def __len__(self) -> int:
        return len(self._manifest)

    def path(self, row: int) -> Path:
        """The file of a row, or SHARD.tar::NAME."""
        return self._manifest.path(row)

    def read(self, row: int) -> Picture:
        """The picture of a row.  -> uint8 [H, W]   Raises Unreadable; ManifestError where a shard's offset is unknown.

        Of a 16-bit picture the upper 8 bits are given, rounded: level v becomes v / 257.
        """
        kept = None if self._cache is None else self._cache.get(row)
        if kept is not None:
            return kept
        picture = self._decode(row)
        if self._cache is not None:
            self._cache.put(row, picture)
        return picture

    def _decode(self, row: int) -> Picture:
        place = self._manifest.place(row)
        picture = decode_picture(self._shards.read(place)) if place.is_packed else read_picture(place.path)
        table = self._manifest.table
        expected = (table.column("height")[row].as_py(), table.column("width")[row].as_py())
        if None not in expected and picture.shape != expected:
            raise Unreadable(
                f"is {picture.shape[1]} x {picture.shape[0]} pixels, the manifest says {expected[1]} x {expected[0]}: "
                "not the file that was recorded. Run dinov2 preprocess again, or build the manifest anew."
            )
        return picture


class Shards:
    """Open tar shards of this process, the least recently used closed first.

    Reading neither uses nor moves a file's position, so a forked process may go on with the files of its parent. A copy
    sent to another process starts with none.
    """

    def __init__(self) -> None:
        self._open: OrderedDict[Path, int] = OrderedDict()

    def __getstate__(self) -> dict[str, object]:
        return {}

    def __setstate__(self, _state: dict[str, object]) -> None:
        self._open = OrderedDict()

    def __del__(self) -> None:
        while self._open:
            os.close(self._open.popitem()[1])

    def read(self, place: Place) -> bytes:
        """The bytes of a packed picture.  Raises Unreadable."""
        try:
            return read_part(self._descriptor(place.path), place)
        except OSError as error:
            raise Unreadable(error.strerror or str(error)) from error

    def _descriptor(self, path: Path) -> int:
        descriptor = self._open.pop(path, None)
        if descriptor is None:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._open[path] = descriptor
        while len(self._open) > MAX_OPEN_SHARDS:
            os.close(self._open.popitem(last=False)[1])
        return descriptor


def read_picture(path: Path) -> Picture:
    """One grey 8-bit picture from a file; colour becomes grey.  -> uint8 [H, W]   Raises Unreadable."""
    try:
        data = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise Unreadable(error.strerror or str(error)) from error
    return decode_picture(data)


def decode_picture(data: "bytes | NDArray[np.uint8]") -> Picture:
    """One grey 8-bit picture from a file's bytes; see `Pictures.read`.  -> uint8 [H, W]   Raises Unreadable."""
    if len(data) == 0:
        raise Unreadable("the file is empty")
    try:
        picture = cv2.imdecode(
            np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_ANYDEPTH
        )  # grey whatever the file holds, in the file's own depth
    except cv2.error as error:
        raise Unreadable(f"does not decode ({error.err})") from error
    if picture is None:
        raise Unreadable("does not decode: cut short, damaged or not a picture")
    if picture.dtype == np.uint16:
        return _upper_bits(picture)
    if picture.dtype != np.uint8:
        raise Unreadable(f"neither an 8-bit nor a 16-bit picture ({picture.dtype}): run dinov2 preprocess")
    return picture  # type: ignore[no-any-return]


def _upper_bits(picture: NDArray[np.uint16]) -> Picture:
    brightest = int(picture.max())
    if brightest < HALF_RANGE:
        raise Unreadable(
            f"a 16-bit picture whose brightest level is {brightest} of 65535; its upper 8 bits would be nearly black: "
            "run dinov2 preprocess"
        )
    levels: Picture = cv2.convertScaleAbs(picture, alpha=1 / LEVELS_PER_LEVEL)
    return levels
