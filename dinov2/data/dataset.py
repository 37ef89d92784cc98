"""Rows of a manifest as pictures in memory.

In: a `Manifest`. Out: uint8 [H, W], one channel; or `Unreadable`, which says why not.
"""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dinov2.manifest import Manifest

Picture = NDArray[np.uint8]


class Unreadable(Exception):
    """A picture that cannot be used; the message is the reason, without the path."""


class Pictures:
    """The pictures of a manifest by row.  Holds paths and sizes only, as Arrow columns that worker processes share."""

    def __init__(self, manifest: Manifest) -> None:
        self._root = manifest.root
        self._images = manifest.table.column("image")
        self._widths = manifest.table.column("width")
        self._heights = manifest.table.column("height")

    def __len__(self) -> int:
        return len(self._images)

    def path(self, row: int) -> Path:
        """The file of a row."""
        return self._root / str(self._images[row])

    def read(self, row: int) -> Picture:
        """The picture of a row.  -> uint8 [H, W]   Raises Unreadable."""
        picture = read_picture(self.path(row))
        expected = (self._heights[row].as_py(), self._widths[row].as_py())
        if None not in expected and picture.shape != expected:
            raise Unreadable(
                f"is {picture.shape[1]} x {picture.shape[0]} pixels, the manifest says {expected[1]} x {expected[0]}: "
                "not the file that was recorded. Run dinov2 preprocess again, or build the manifest anew."
            )
        return picture


def read_picture(path: Path) -> Picture:
    """One grey 8-bit picture from a file; colour becomes grey.  -> uint8 [H, W]   Raises Unreadable."""
    try:
        data = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise Unreadable(error.strerror or str(error)) from error
    if data.size == 0:
        raise Unreadable("the file is empty")
    try:
        picture = cv2.imdecode(data, cv2.IMREAD_ANYDEPTH)  # grey whatever the file holds, in the file's own depth
    except cv2.error as error:
        raise Unreadable(f"does not decode ({error.err})") from error
    if picture is None:
        raise Unreadable("does not decode: cut short, damaged or not a picture")
    if picture.dtype != np.uint8:
        raise Unreadable(f"not an 8-bit picture ({picture.dtype}): run dinov2 preprocess")
    return picture  # type: ignore[no-any-return]
