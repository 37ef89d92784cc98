"""The structure of a TIFF page: where it says that its pixels lie, there must be a file.

In: the tags of a page, the size of the file. Out: nothing, or DicomRejected. Source: TIFF 6.0, sections 3, 8 and 15.
"""

from collections.abc import Mapping
from typing import Any

from dinov2.preprocess.decode import refusals

COMPRESSION, STRIP_OFFSETS, STRIP_COUNTS, TILE_OFFSETS, TILE_COUNTS = 259, 273, 279, 324, 325
UNCOMPRESSED = 1


def check(tags: Mapping[int, Any], *, file_bytes: int, pixel_bytes: int) -> None:
    """Every strip or tile lies within the file, and without compression they hold `pixel_bytes` at least.

    Raises DicomRejected (truncated, undecodable).
    """
    offsets = _numbers(tags.get(STRIP_OFFSETS) or tags.get(TILE_OFFSETS))
    counts = _numbers(tags.get(STRIP_COUNTS) or tags.get(TILE_COUNTS))
    if not offsets or (counts and len(counts) != len(offsets)):
        raise refusals.undecodable("the page does not say where its pixels lie")
    if not counts:  # early writers left them out where there is one strip and no compression
        counts = (pixel_bytes,) if len(offsets) == 1 else (0,) * len(offsets)
    if any(offset + count > file_bytes for offset, count in zip(offsets, counts, strict=True)):
        raise refusals.truncated("the page's pixels lie beyond the end of the file")
    if tags.get(COMPRESSION, UNCOMPRESSED) == UNCOMPRESSED and sum(counts) < pixel_bytes:
        raise refusals.truncated(f"the page holds {sum(counts)} of {pixel_bytes} bytes of pixels")


def _numbers(value: Any) -> tuple[int, ...]:
    if value is None:
        return ()
    return tuple(int(number) for number in (value if isinstance(value, tuple | list) else (value,)))
