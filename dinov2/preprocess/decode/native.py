"""Pixel data that is not compressed -> containers, as a view of the file's own bytes.

In: the bytes, where the element lies, the layout. Out: unsigned integers [H, W] or [H, W, 3] of one frame. Lengths are
compared before numpy sees anything. Source: PS3.5 8.1, 8.2, A.1 to A.3.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinov2.preprocess.decode import refusals
from dinov2.preprocess.decode.dataset import PIXEL_DATA, PixelElement
from dinov2.preprocess.decode.layout import Layout

SPARE_SHARE, SPARE_BYTES = 100, 16  # writers append padding: up to a hundredth of the pixels, or so many bytes


def check_length(body: bytes, *, pixels: PixelElement, layout: Layout, num_frames: int, little: bool) -> None:
    """The element holds what the header claims and little more, and the file goes on soundly behind it.

    Raises DicomRejected: truncated, bad_header.
    """
    if layout.photometric == "YBR_FULL_422" and layout.columns % 2:
        raise refusals.bad_header(f"YBR_FULL_422 pairs columns, and {layout.columns} is odd")
    needed = layout.frame_bytes * num_frames
    if pixels.stop > len(body) or pixels.length < needed:
        held = min(pixels.stop, len(body)) - pixels.start
        raise refusals.truncated(f"{refusals.PIXEL_DATA} holds {held} of {max(needed, pixels.length)} bytes")
    if pixels.length - needed > max(SPARE_BYTES, needed // SPARE_SHARE):
        raise refusals.bad_header(
            f"{refusals.PIXEL_DATA} holds {pixels.length} bytes, where {num_frames} frame(s) of {layout.rows} x "
            f"{layout.columns} need {needed}"
        )
    rest = body[pixels.stop : pixels.stop + 2]
    group = int.from_bytes(rest, "little" if little else "big")
    if group and group < PIXEL_DATA[0]:
        raise refusals.bad_header(f"{refusals.PIXEL_DATA}: its length does not lead to the end of the file")


def unpack(body: bytes, *, pixels: PixelElement, layout: Layout, index: int, little: bool) -> NDArray[Any]:
    """Frame `index`.  A view of `body` where the file's byte order is the machine's."""
    start, size = pixels.start + index * layout.frame_bytes, layout.frame_bytes
    if not little and layout.bits_allocated == 8 and pixels.vr == "OW":
        raw = _unswapped(body, start=start, size=size, first=pixels.start)
    else:
        dtype = np.dtype(f"{'<' if little else '>'}u{layout.bits_allocated // 8}")
        raw = np.frombuffer(body, dtype, size // dtype.itemsize, start)
        raw = raw if little else raw.astype(dtype.newbyteorder("<"))  # minima of foreign order are slow
    if layout.samples == 1:
        return raw.reshape(layout.rows, layout.columns)
    if layout.photometric == "YBR_FULL_422":
        return _full(raw, layout=layout)
    if layout.is_planar:
        return np.moveaxis(raw.reshape(layout.samples, layout.rows, layout.columns), 0, -1)
    return raw.reshape(layout.rows, layout.columns, layout.samples)


def _unswapped(body: bytes, *, start: int, size: int, first: int) -> NDArray[Any]:
    """Bytes that a big-endian writer packed into words, pair by pair the other way round."""
    odd = (start - first) % 2
    words = np.frombuffer(body, ">u2", (size + odd + 1) // 2, start - odd)
    return words.astype("<u2").view("u1")[odd : odd + size]


def _full(raw: NDArray[Any], *, layout: Layout) -> NDArray[Any]:
    """Y Y B R -> Y B R, Y B R (PS3.3 C.7.6.3.1.2)."""
    pairs = raw.reshape(layout.rows, -1, 4)
    full = np.empty((layout.rows, pairs.shape[1] * 2, 3), raw.dtype)
    full[:, 0::2, 0], full[:, 1::2, 0] = pairs[..., 0], pairs[..., 1]
    for chroma in (1, 2):
        full[:, :, chroma] = np.repeat(pairs[..., chroma + 1], 2, axis=1)
    return full
