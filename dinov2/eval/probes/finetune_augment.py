"""Small changes of the pictures that a network is tuned on; the same geometry for a picture and its mask.

In: a picture, perhaps its mask, the preparation and a generator. Out: the square that goes into the network, cropped,
turned and perhaps mirrored. Mirroring is off unless asked for: which side the heart and the stomach lie on is a finding
on a chest film.

Legend: H x W picture, S side of the square.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dinov2.data.pixels import CropBox, resample, turn
from dinov2.eval.examples import Mask, Picture
from dinov2.eval.pictures import Preparation


class Draw(NamedTuple):
    """What happens to one picture."""

    box: CropBox  # of the prepared square
    degrees: float
    hflip: bool


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How far a picture may be changed (an `Augment` of `dinov2.eval.pictures`)."""

    scale: tuple[float, float] = (0.75, 1.0)  # share of the area that is kept
    ratio: tuple[float, float] = (3 / 4, 4 / 3)  # width / height of what is kept
    rotation_degrees: float = 5.0  # to either side
    flip: bool = False

    def draw(self, side: int, *, rng: np.random.Generator) -> Draw:
        """A box within a square of `side` pixels, an angle, a side."""
        area, ratio, top, left, angle, mirror = rng.random(6).tolist()
        kept = (self.scale[0] + (self.scale[1] - self.scale[0]) * area) * side**2
        width_per_height = self.ratio[0] * (self.ratio[1] / self.ratio[0]) ** ratio
        width = max(1, min(side, round(math.sqrt(kept * width_per_height))))
        height = max(1, min(side, round(math.sqrt(kept / width_per_height))))
        box = CropBox(int(top * (side - height + 1)), int(left * (side - width + 1)), height, width)
        return Draw(box, self.rotation_degrees * (2 * angle - 1), self.flip and mirror < 0.5)

    def __call__(
        self, picture: Picture, mask: Mask | None, *, preparation: Preparation, rng: np.random.Generator
    ) -> tuple[NDArray[Any], Mask | None]:
        """Picture [H, W(, 3)] and mask [H, W] -> picture [S, S(, 3)] and mask [S, S]"""
        # Prepared larger than needed, so that the smallest box has the pixels of the square.
        larger = replace(preparation, size=math.ceil(preparation.size / math.sqrt(self.scale[0])))
        draw = self.draw(larger.size, rng=rng)
        warped = _warp_picture(larger.picture(picture), draw, size=preparation.size)
        return warped, None if mask is None else warp_mask(larger.mask(mask), draw, size=preparation.size)


def _warp_picture(square: NDArray[Any], draw: Draw, *, size: int) -> NDArray[Any]:
    if square.ndim == 3:
        channels = [_warp_picture(square[..., channel], draw, size=size) for channel in range(square.shape[2])]
        return np.stack(channels, axis=-1)
    turned = turn(np.ascontiguousarray(square), draw.box, degrees=draw.degrees)
    warped: NDArray[Any] = resample(turned, size=size, hflip=draw.hflip, vflip=False)
    return np.clip(warped, 0, 1) if warped.dtype == np.float32 else warped  # cubic overshoots at edges


def warp_mask(mask: Mask, draw: Draw, *, size: int) -> Mask:
    """What `turn` and `resample` do to a picture, with the nearest pixel.  [H, W] -> [size, size]"""
    top, left, height, width = draw.box
    centres = np.arange(size) + 0.5
    y = (centres * height / size - height / 2)[:, None]  # from the centre of the box, in pixels
    x = (centres * width / size - width / 2)[None, :]
    if draw.hflip:
        x = x[:, ::-1]
    cos, sin = math.cos(math.radians(draw.degrees)), math.sin(math.radians(draw.degrees))
    rows = np.floor(top + height / 2 + sin * x + cos * y).astype(np.int64)
    columns = np.floor(left + width / 2 + cos * x - sin * y).astype(np.int64)
    warped: Mask = mask[_mirrored(rows, mask.shape[0]), _mirrored(columns, mask.shape[1])]
    return warped


def _mirrored(places: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Places beyond the border are those of the mirror image, the outermost pixel not said twice."""
    period = max(1, 2 * (length - 1))
    within = np.abs(places) % period
    nearest: NDArray[np.int64] = np.minimum(within, period - within)
    return nearest
