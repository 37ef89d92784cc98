"""Many small pictures as one: a film's maps over all looks, side by side in one data URI.

In: maps [T, h, w] or [T, h, w, 3] of T looks. Out: a `Sprite`, of which the page shows one tile at a time.

Legend: T looks, h x w grid of patches.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dinov2.pages import data_uri

LEVELS = 32  # of attention and agreement: more cannot be told apart, and fewer are a smaller file
JPEG_QUALITY = 82


@dataclass(frozen=True)
class Sprite:
    """`columns` x `rows` tiles, row by row."""

    uri: str
    columns: int
    rows: int

    @property
    def size(self) -> str:
        """`background-size` in which a tile fills its box."""
        return f"{100 * self.columns}% {100 * self.rows}%"

    def place(self, tile: int) -> str:
        """`background-position` of a tile."""
        row, column = divmod(tile, self.columns)
        x, y = (
            100 * at / (count - 1) if count > 1 else 0.0 for at, count in ((column, self.columns), (row, self.rows))
        )
        return f"{x:.4f}% {y:.4f}%"


def colour_sprite(maps: NDArray[np.uint8]) -> Sprite:
    """[T, h, w, 3]"""
    sheet, columns, rows = _sheet(maps)
    return Sprite(_png(Image.fromarray(sheet)), columns, rows)


def heat_sprite(
    maps: NDArray[np.uint8], *, colours: NDArray[np.uint8], shown: NDArray[np.bool_] | None = None
) -> Sprite:
    """A map of levels [T, h, w] over the film: `colours` is RGBA [LEVELS, 4]; where not `shown` nothing covers it."""
    levels = 1 + (maps.astype(np.int64) * (LEVELS - 1) + 127) // 255  # 0 is for what is not shown
    if shown is not None:
        levels[~shown] = 0
    sheet, columns, rows = _sheet(levels.astype(np.uint8))
    palette = np.concatenate([np.zeros((1, 4), np.uint8), colours])
    picture = Image.fromarray(sheet)
    picture.putpalette(palette[:, :3].tobytes())
    return Sprite(_png(picture, alpha=palette[:, 3].tobytes()), columns, rows)


def attention_colours() -> NDArray[np.uint8]:
    """From nothing to yellow: the more attention, the less is seen of the film below.  RGBA [LEVELS, 4]"""
    share = np.linspace(0, 1, LEVELS)
    bgr = cv2.applyColorMap((255 * (0.25 + 0.75 * share)).astype(np.uint8)[:, None], cv2.COLORMAP_INFERNO)[:, 0]
    alpha = 255 * (0.15 + 0.7 * share)
    return np.concatenate([bgr[:, ::-1], alpha[:, None].astype(np.uint8)], axis=1)


def agreement_colours() -> NDArray[np.uint8]:
    """From violet (no better than a guess) over grey to green (told well).  RGBA [LEVELS, 4]"""
    stops = np.array([[122, 58, 150], [196, 178, 204], [27, 150, 90]], dtype=np.float64)
    share = np.linspace(0, 1, LEVELS)
    mixed = np.stack([np.interp(share, (0, 0.35, 1), stops[:, channel]) for channel in range(3)], axis=1)
    return np.concatenate([mixed, np.full((LEVELS, 1), 225.0)], axis=1).astype(np.uint8)


def film_uri(levels: NDArray[np.uint8], *, side: int) -> str:
    """A grey picture, at most `side` pixels a side."""
    picture = Image.fromarray(levels)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    return data_uri(picture, "JPEG", quality=JPEG_QUALITY, optimize=True)


def _sheet(maps: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], int, int]:
    """[T, h, w, ...] -> [rows * h, columns * w, ...], what is left over black."""
    count, height, width = maps.shape[:3]
    columns = max(1, math.ceil(math.sqrt(count)))
    rows = math.ceil(count / columns)
    whole = np.zeros((rows * columns, *maps.shape[1:]), np.uint8)
    whole[:count] = maps
    tiled = whole.reshape(rows, columns, *maps.shape[1:]).swapaxes(1, 2)
    return np.ascontiguousarray(tiled.reshape(rows * height, columns * width, *maps.shape[3:])), columns, rows


def _png(picture: Image.Image, *, alpha: bytes = b"") -> str:
    """`alpha`: of each colour of a palette."""
    return data_uri(picture, "PNG", compress_level=7, **({"transparency": alpha} if alpha else {}))
