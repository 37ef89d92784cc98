"""Pictures of any size -> the square of pixels that a backbone takes.

In: `Levels`. Out: a square of levels, and squares as one normalised tensor.

The short side is resized by an antialiased bicubic filter, then the middle is cropped: the numbers are those of
transformers' BitImageProcessor (PIL backend), bit for bit; of films of two million pixels and more, within one level
(`dinov2.encoder.reduction`). Grey is resized and normalised once, not three times.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dinov2.encoder.levels import Levels, luminance
from dinov2.encoder.reduction import reduced
from dinov2.errors import ConfigError, PictureError
from dinov2.models.processor import Three

FILM_PX = 2**21  # pixels of a picture from which on Pillow, the reference, gives way to something faster
TALLEST = 1.5  # height over width, above which Pillow may go along the columns first, and rounds otherwise
LEVELS = np.arange(256, dtype=np.float64)


@dataclass(frozen=True, kw_only=True)
class Framing:
    """Where the square lies and how it is normalised."""

    size: int  # S, pixels of a side
    short_side: int  # of the picture that the square is cut from
    channels: int  # that the network takes, 1 or 3
    patch: int
    mean: Three  # of pictures in 0..1
    std: Three

    def square(self, levels: Levels, *, where: str) -> Levels:
        """[H, W(, 3)] -> [S, S(, 3)] of the same kind; one channel where the network takes one.

        Raises PictureError for a side that is shorter than a patch.
        """
        height, width = levels.shape[:2]
        if min(height, width) < self.patch:
            raise PictureError(
                f"{where}: {height} x {width} pixels, less than one patch of {self.patch} x {self.patch}. Give the "
                "picture at its full size."
            )
        if self.channels == 1:
            levels = luminance(levels)
        if levels.dtype == np.uint8:
            return self._middle(levels)
        planes: list[Levels] = [levels] if levels.ndim == 2 else [levels[..., i] for i in range(levels.shape[2])]
        # A cubic filter overshoots at edges; of whole levels it clips by itself.
        squares = [np.clip(self._middle(plane).astype(np.float32, copy=False), 0, 1) for plane in planes]
        square: Levels = squares[0] if levels.ndim == 2 else np.stack(squares, axis=-1)
        return square

    def pixels(self, squares: list[Levels]) -> Tensor:
        """Normalised.  B x [S, S(, 3)] -> float32 [B, C, S, S]"""
        pixels = np.empty((len(squares), self.channels, self.size, self.size), dtype=np.float32)
        for picture, square in zip(pixels, squares, strict=True):
            done: dict[tuple[float, float], NDArray[np.float32]] = {}
            for channel, plane in enumerate(picture):
                how = self.mean[channel], self.std[channel]
                if square.ndim == 3:
                    _normalise(square[..., channel], *how, out=plane)
                elif how in done:
                    plane[:] = done[how]
                else:
                    _normalise(square, *how, out=plane)
                    done[how] = plane
        return torch.from_numpy(pixels)

    def _middle(self, levels: Levels) -> Levels:
        """[H, W(, 3)] -> [S, S(, 3)]"""
        height, width = levels.shape[:2]
        shorter = min(height, width)
        new_height, new_width = (int(self.short_side * side / shorter) for side in (height, width))
        top, left = (new_height - self.size) // 2, (new_width - self.size) // 2
        if shorter != self.short_side:
            levels = _resized(levels, height=new_height, width=new_width)
        square: Levels = levels[top : top + self.size, left : left + self.size]
        return square


def check_size(size: int, *, patch: int) -> None:
    """Raises ConfigError for a side that is no multiple of the patch, naming the nearest two."""
    if size >= patch and size % patch == 0:
        return
    below = max(size // patch, 1) * patch
    advice = f"{below} or {below + patch}" if size > patch else str(patch)
    raise ConfigError(f"size={size}: a side must be a multiple of the patch of {patch} pixels; give {advice}.")


def _resized(levels: Levels, *, height: int, width: int) -> Levels:
    """[H, W(, 3)] -> [height, width(, 3)]"""
    rows, columns = levels.shape[:2]
    shrinks = height <= rows and width <= columns and rows <= TALLEST * columns
    if levels.dtype == np.uint8 and rows * columns >= FILM_PX and shrinks:
        return reduced(levels.astype(np.uint8, copy=False), height=height, width=width)
    resized: Levels = np.asarray(Image.fromarray(levels).resize((width, height), Image.Resampling.BICUBIC))
    return resized


def _normalise(plane: Levels, mean: float, std: float, *, out: NDArray[np.float32]) -> None:
    """(level / 255 - mean) / std of 256 levels, looked up; or (value - mean) / std."""
    if plane.dtype == np.uint8:
        table = ((LEVELS * (1 / 255)).astype(np.float32) - np.float32(mean)) / np.float32(std)
        np.take(table, plane.astype(np.uint8, copy=False), out=out, mode="clip")  # all are there; "raise" would copy
    else:
        np.subtract(plane, np.float32(mean), out=out)
        np.divide(out, np.float32(std), out=out)
