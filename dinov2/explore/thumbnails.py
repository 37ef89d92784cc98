"""Small pictures of films, made when they are asked for and kept in memory.

In: the number of a row and a side. Out: a JPEG's bytes. Whatever the file holds, it is decoded and encoded anew: no
byte of a file leaves as it is.
"""

import io
from collections import OrderedDict
from threading import Lock

from PIL import Image

from dinov2.explore.films import Films

SIDES_PX = {"small": 224, "large": 1024}  # the longer side
JPEG_QUALITY = 82
KEPT_BYTES = 192 * 2**20


class Thumbnails:
    """Of all films; the least recently used are let go.  May be asked by several threads."""

    def __init__(self, films: Films, *, kept_bytes: int = KEPT_BYTES) -> None:
        self._films, self._most = films, kept_bytes
        self._kept: OrderedDict[tuple[int, str], bytes] = OrderedDict()
        self._num_bytes = 0
        self._lock = Lock()

    def jpeg(self, row: int, *, size: str) -> bytes:
        """The film of a row, `size` small or large.  Raises ManifestError, saying why there is none."""
        with self._lock:
            kept = self._kept.get((row, size))
            if kept is not None:
                self._kept.move_to_end((row, size))
                return kept
        made = self._make(row, side_px=SIDES_PX[size])
        with self._lock:
            if (row, size) not in self._kept:
                self._kept[row, size] = made
                self._num_bytes += len(made)
            while self._num_bytes > self._most and len(self._kept) > 1:
                self._num_bytes -= len(self._kept.popitem(last=False)[1])
        return made

    def _make(self, row: int, *, side_px: int) -> bytes:
        picture = Image.fromarray(self._films.levels(row))
        picture.thumbnail((side_px, side_px), Image.Resampling.LANCZOS, reducing_gap=3.0)
        stream = io.BytesIO()
        picture.save(stream, "JPEG", quality=JPEG_QUALITY)
        return stream.getvalue()
