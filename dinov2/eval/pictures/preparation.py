"""A picture of any size and kind -> the square that a backbone takes, and a mask by the same geometry.

In: grey [H, W] or colour [H, W, 3], uint8 or float32 in 0..1. Out: the same kind, [S, S] or [S, S, 3].

Every fit is one box of the picture that becomes the whole square: the middle (crop), all of it (squash), or a square
around it that goes beyond its edges (letterbox).
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from dinov2.data.pixels import resample
from dinov2.errors import ConfigError
from dinov2.eval.backbones.backbone import Traits
from dinov2.eval.examples import Mask, Picture

Fit = Literal["crop", "letterbox", "squash"]
FITS: tuple[str, ...] = get_args(Fit)


@dataclass(frozen=True, kw_only=True)
class Placement:
    """The box of a picture that becomes the square, in whole pixels; it may go beyond the picture's edges.

    Pixel edges `top` and `top + height` of the picture are 0 and `size` of the square, linearly.
    """

    picture_height: int
    picture_width: int
    size: int  # S
    top: int
    left: int
    height: int
    width: int

    @property
    def within(self) -> tuple[slice, slice]:
        """Rows and columns of the picture that the square shows."""
        return (
            slice(max(self.top, 0), min(self.top + self.height, self.picture_height)),
            slice(max(self.left, 0), min(self.left + self.width, self.picture_width)),
        )

    def bring_back(self, mask: Mask) -> Mask:
        """A mask of the square, at the pixels of the picture; what the square does not show is background.

        [S, S] -> [H, W]; nearest.
        """
        rows, kept_rows = _sources(self.picture_height, shift=-self.top, scale=self.size / self.height, end=self.size)
        columns, kept_columns = _sources(
            self.picture_width, shift=-self.left, scale=self.size / self.width, end=self.size
        )
        back = np.zeros((self.picture_height, self.picture_width), dtype=mask.dtype)
        back[np.ix_(kept_rows, kept_columns)] = mask[np.ix_(rows, columns)]
        return back


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """How pictures are put to a backbone.  Raises ConfigError for a size below 1 or a fit that is not known."""

    size: int  # S, pixels
    fit: Fit
    mean: tuple[float, float, float]  # of pictures in 0..1
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        if self.size < 1 or self.fit not in FITS:
            raise ConfigError(f"size {self.size}, fit {self.fit!r}: give 1 px or more, and one of {', '.join(FITS)}.")

    def placement(self, height: int, width: int) -> Placement:
        """Which box of a picture of this size becomes the square."""
        if self.fit == "squash":
            box = (0, 0, height, width)
        else:
            side = min(height, width) if self.fit == "crop" else max(height, width)
            box = ((height - side) // 2, (width - side) // 2, side, side)
        top, left, box_height, box_width = box
        return Placement(
            picture_height=height,
            picture_width=width,
            size=self.size,
            top=top,
            left=left,
            height=box_height,
            width=box_width,
        )

    def picture(self, picture: Picture) -> NDArray[np.generic]:
        """Cubic, antialiased where it shrinks (`dinov2.data.pixels.resample`); bars are black.

        uint8 or float32 [H, W] or [H, W, 3] -> the same kind, [S, S] or [S, S, 3]. Raises ValueError for anything else.
        """
        if picture.dtype not in (np.uint8, np.float32) or picture.ndim not in (2, 3) or 0 in picture.shape:
            raise ValueError(
                f"a picture of {picture.dtype} {list(picture.shape)}: expected uint8 or float32 [H, W(, 3)]"
            )
        if picture.ndim == 3:
            return np.stack([self.picture(picture[..., channel]) for channel in range(picture.shape[2])], axis=-1)
        height, width = picture.shape
        placement = self.placement(height, width)
        rows, columns = placement.within
        region = np.ascontiguousarray(picture[rows, columns])
        if region.shape != (placement.height, placement.width):
            above, before = max(-placement.top, 0), max(-placement.left, 0)
            beyond = (placement.height - region.shape[0] - above, placement.width - region.shape[1] - before)
            region = np.pad(region, ((above, beyond[0]), (before, beyond[1])))
        square: NDArray[np.generic] = resample(region, size=self.size, hflip=False, vflip=False)
        # Cubic interpolation overshoots at edges; whole levels are clipped by the resampling itself.
        return np.clip(square, 0, 1, out=square) if square.dtype == np.float32 else square

    def mask(self, mask: Mask) -> Mask:
        """The same box of a mask; nearest, bars are background.  [H, W] -> [S, S]"""
        placement = self.placement(*mask.shape)
        rows, kept_rows = _sources(
            self.size,
            shift=placement.top * self.size / placement.height,
            scale=placement.height / self.size,
            end=mask.shape[0],
        )
        columns, kept_columns = _sources(
            self.size,
            shift=placement.left * self.size / placement.width,
            scale=placement.width / self.size,
            end=mask.shape[1],
        )
        square = np.zeros((self.size, self.size), dtype=mask.dtype)
        square[np.ix_(kept_rows, kept_columns)] = mask[np.ix_(rows, columns)]
        return square


def preparation_for(traits: Traits, *, size: int | None, fit: str) -> Preparation:
    """What a backbone takes; `size` None is its own.  Raises ConfigError for a size that it does not take."""
    chosen = traits.input_size if size is None else size
    if chosen < 1 or chosen % traits.size_step:
        lower = max(traits.size_step, chosen // traits.size_step * traits.size_step)
        raise ConfigError(
            f"--size {chosen}: {traits.name} takes multiples of {traits.size_step} px, such as {lower} or "
            f"{lower + traits.size_step}."
        )
    if traits.fixed_size and chosen != traits.input_size:
        raise ConfigError(f"--size {chosen}: {traits.name} takes {traits.input_size} px only. Leave --size out.")
    if fit not in FITS:
        raise ConfigError(f"--fit {fit}: give one of {', '.join(FITS)}.")
    return Preparation(size=chosen, fit=fit, mean=traits.mean, std=traits.std)  # type: ignore[arg-type]


def _sources(length: int, *, shift: float, scale: float, end: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which of `end` pixels lies under the centre of each of `length` pixels, and which of these have one.

    Pixel i has its centre at (i + 0.5 + shift) * scale.
    """
    sources = np.floor((np.arange(length) + 0.5 + shift) * scale).astype(np.int64)
    kept = np.flatnonzero((sources >= 0) & (sources < end))
    return sources[kept], kept
