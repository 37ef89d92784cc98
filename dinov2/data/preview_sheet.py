"""A sheet to look at: cells with captions, set beside and below one another.

In: uint8 pictures, grey [H, W] or in OpenCV's channel order [H, W, 3]; words. Out: uint8 [H, W, 3]; a file.
"""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dinov2.errors import Dinov2Error

Picture = NDArray[np.uint8]
Colour = tuple[int, int, int]  # blue, green, red

PAPER: Colour = (250, 250, 250)
INK: Colour = (40, 40, 40)
FAINT: Colour = (130, 130, 130)
GLOBAL: tuple[Colour, Colour] = ((40, 120, 245), (30, 180, 255))  # orange, amber
LOCAL: Colour = (220, 150, 40)  # blue
MASK: Colour = (160, 60, 120)  # violet
GAP_PX = 14
CAPTION_PX = 54
TITLE_PX = 34
FONT, FONT_SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.42
MASK_SHARE = 0.7  # of the tint in a hidden patch


def write_picture(path: Path, picture: Picture) -> None:
    """A PNG, or whatever the suffix says.  Raises Dinov2Error where the place cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        written, data = cv2.imencode(path.suffix or ".png", picture)
        if written:
            path.write_bytes(data.tobytes())
    except (OSError, cv2.error) as error:
        raise Dinov2Error(
            f"{path}: cannot be written ({error}). Give a .png file in a folder that you may write to."
        ) from error


def titled(title: str, rows: Sequence[Picture]) -> Picture:
    """Rows below a title; narrower ones are filled up with paper.  -> uint8 [H, W, 3]"""
    width = max(row.shape[1] for row in rows)
    head = paper(TITLE_PX, width)
    write(head, title, x=GAP_PX, y=23, colour=INK, scale=0.55)
    filled = [np.hstack([row, paper(row.shape[0], width - row.shape[1])]) for row in rows]
    return np.vstack([head, *filled])


def with_mask(crop: Picture, mask: NDArray[np.bool_]) -> Picture:
    """Hidden patches tinted.  uint8 [S, S], bool [h, w] -> uint8 [S, S, 3]"""
    colour = cv2.cvtColor(crop, cv2.COLOR_GRAY2BGR).astype(np.float32)
    hidden = cv2.resize(mask.astype(np.uint8), crop.shape[::-1], interpolation=cv2.INTER_NEAREST).astype(bool)
    colour[hidden] = (1 - MASK_SHARE) * colour[hidden] + MASK_SHARE * np.array(MASK, np.float32)
    tinted: Picture = colour.astype(np.uint8)
    return tinted


def fit(picture: Picture, side: int) -> Picture:
    """Scaled so that its longer side is `side` pixels."""
    scale = side / max(picture.shape[:2])
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    fitted: Picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    return fitted


def centred(picture: Picture, side: int) -> Picture:
    """A picture of at most `side` pixels a side, in the middle of a square of paper."""
    cell = paper(side, side)
    top, left = (side - picture.shape[0]) // 2, (side - picture.shape[1]) // 2
    cell[top : top + picture.shape[0], left : left + picture.shape[1]] = in_colour(picture)
    return cell


def in_colour(picture: Picture) -> Picture:
    """[H, W] or [H, W, 3] -> [H, W, 3]"""
    return picture if picture.ndim == 3 else cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR)


def framed(picture: Picture, colour: Colour) -> Picture:
    """With an edge of two pixels."""
    edged = in_colour(picture)
    cv2.rectangle(edged, (0, 0), (edged.shape[1] - 1, edged.shape[0] - 1), colour, 2)
    return edged


def captioned(cell: Picture, first: str, second: str) -> Picture:
    """Two lines below a cell, the second one fainter."""
    caption = paper(CAPTION_PX, cell.shape[1])
    write(caption, first, x=1, y=16, colour=INK)
    write(caption, second, x=1, y=33, colour=FAINT)
    return np.vstack([cell, caption])


def beside(cells: Sequence[Picture]) -> Picture:
    """Cells of one height in a row."""
    gap = paper(cells[0].shape[0], GAP_PX)
    parts = [gap]
    for cell in cells:
        parts += [cell, gap]
    return np.hstack(parts)


def write(picture: Picture, text: str, *, x: int, y: int, colour: Colour, scale: float = FONT_SCALE) -> None:
    """One line of text, in place; `x` is its left end and `y` its base line."""
    cv2.putText(picture, text, (x, y), FONT, scale, colour, 1, cv2.LINE_AA)


def paper(height: int, width: int) -> Picture:
    """Nothing yet."""
    return np.full((height, width, 3), PAPER, np.uint8)


def short(name: str, *, most: int = 24) -> str:
    """A name that fits below a cell."""
    return name if len(name) <= most else name[: most - 3] + "..."
