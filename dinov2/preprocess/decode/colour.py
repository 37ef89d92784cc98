"""Three channels -> one, where that can be done without loss, or where it was asked for.

In: integers [H, W] or [H, W, C] from a decoder. Out: [H, W]. Many archives keep grey films as RGB; a capture with
colours is something else.
"""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dinov2.errors import DicomRejected
from dinov2.preprocess.reasons import Reason

LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601
EQUAL_WITHIN = 2  # grey levels of 8-bit colour; a lossy codec separates equal channels by so much


def grey(pixels: NDArray[Any], *, policy: Literal["reject", "luminance"]) -> tuple[NDArray[Any], bool]:
    """One channel [H, W], and whether channels that differ were reduced to their luminance.

    A second or fourth channel is opacity and is left out. Raises DicomRejected (colour) where channels differ and
    `policy` is reject.
    """
    if pixels.ndim == 2:
        return pixels, False
    if pixels.ndim == 3 and pixels.shape[2] in (1, 2):
        return pixels[:, :, 0], False
    if pixels.ndim != 3 or pixels.shape[2] not in (3, 4):
        raise DicomRejected(f"pixels of shape {pixels.shape} are no picture. Exclude the file.", reason=Reason.COLOUR)
    rgb = pixels[:, :, :3].astype(np.float32)
    tolerance = EQUAL_WITHIN if pixels.dtype == np.uint8 else 0
    if float(np.ptp(rgb, axis=2).max(initial=0)) <= tolerance:
        return pixels[:, :, 1], False
    if policy == "reject":
        raise DicomRejected(
            "the channels differ, so this is a colour capture and no plain radiograph. Exclude it, or set "
            "decode.colour=luminance.",
            reason=Reason.COLOUR,
        )
    return np.rint(rgb @ np.asarray(LUMINANCE, np.float32)).astype(pixels.dtype), True
