"""What the networks get to see, as one picture to look at.

In: a `BatchMaker` and positions of the sample stream. Out: uint8 [H, W, 3] in OpenCV's channel order: a row a film,
with its crop boxes, its global crops with their masks, and local crops; and a caption under each.
"""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dinov2.batch import NUM_GLOBAL_CROPS
from dinov2.data.augmentation import CropDraw, apply_crop, draw_crops, place_box
from dinov2.data.collate import BatchMaker
from dinov2.data.dataset import Unreadable
from dinov2.errors import DataError, Dinov2Error

Picture = NDArray[np.uint8]
Colour = tuple[int, int, int]  # blue, green, red

PAPER: Colour = (250, 250, 250)
INK: Colour = (40, 40, 40)
FAINT: Colour = (130, 130, 130)
GLOBAL: tuple[Colour, Colour] = ((40, 120, 245), (30, 180, 255))  # orange, amber
LOCAL: Colour = (220, 150, 40)  # blue
MASK: Colour = (160, 60, 120)  # violet
SIDE_PX = 300  # of the film's and the global crops' cells
GAP_PX = 14
CAPTION_PX = 54
TITLE_PX = 34
NUM_LOCALS = 6  # shown in two rows
FONT, FONT_SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.42


def augmentation_grid(maker: BatchMaker, positions: Sequence[int], *, title: str) -> Picture:
    """The grid of the films at `positions`.  -> uint8 [H, W, 3]   Raises DataError where a film cannot be read."""
    rows = [_row(maker, position) for position in positions]
    width = rows[0].shape[1]
    head = _paper(TITLE_PX, width)
    _write(head, title, x=GAP_PX, y=23, colour=INK, scale=0.55)
    return np.vstack([head, *rows])


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


def _row(maker: BatchMaker, position: int) -> Picture:
    row = maker.stream.row(position)
    path = maker.pictures.path(row)
    try:
        film = maker.pictures.read(row)
    except Unreadable as reason:
        raise DataError(f"{path}: {reason}. Choose another --seed, or repair the file.") from reason
    draws = draw_crops(maker.recipe, crops=maker.crops, seed=maker.seed, position=position)
    masks = maker.masks.masks(position, num_crops=NUM_GLOBAL_CROPS)
    cells = [_film_cell(film, draws, name=path.name, position=position)]
    for c in range(NUM_GLOBAL_CROPS):
        crop = apply_crop(film, draws[c], size=maker.crops.global_crops_size)
        shown = _with_mask(_fit(crop, SIDE_PX), masks[c].reshape(maker.masks.grid))
        hidden = f", {masks[c].mean():.0%} hidden" if masks[c].any() else ", not masked"
        cells.append(_captioned(_framed(shown, GLOBAL[c]), f"global {c + 1}{hidden}", _deeds(draws[c])))
    if maker.crops.local_crops_number:
        cells.append(_local_cell(film, draws[NUM_GLOBAL_CROPS:], size=maker.crops.local_crops_size))
    return _beside(cells)


def _film_cell(film: Picture, draws: Sequence[CropDraw], *, name: str, position: int) -> Picture:
    """The film within its cell, every crop's box drawn on it."""
    height, width = film.shape
    scale = SIDE_PX / max(height, width)
    shown = cv2.cvtColor(_fit(film, SIDE_PX), cv2.COLOR_GRAY2BGR)
    for i, draw in reversed(list(enumerate(draws))):
        box = place_box(draw, height=height, width=width)
        corner = (round(box.left * scale), round(box.top * scale))
        opposite = (round((box.left + box.width) * scale) - 1, round((box.top + box.height) * scale) - 1)
        colour, thickness = (GLOBAL[i], 2) if i < NUM_GLOBAL_CROPS else (LOCAL, 1)
        cv2.rectangle(shown, corner, opposite, colour, thickness, cv2.LINE_AA)
    cell = _paper(SIDE_PX, SIDE_PX)
    top, left = (SIDE_PX - shown.shape[0]) // 2, (SIDE_PX - shown.shape[1]) // 2
    cell[top : top + shown.shape[0], left : left + shown.shape[1]] = shown
    return _captioned(cell, f"{_short(name)}, {width} x {height}", f"position {position}")


def _local_cell(film: Picture, draws: Sequence[CropDraw], *, size: int) -> Picture:
    """The first local crops in two rows."""
    side = (SIDE_PX - GAP_PX) // 2
    num = min(NUM_LOCALS, len(draws))
    across = (num + 1) // 2
    cell = _paper(SIDE_PX, across * side + (across - 1) * GAP_PX)
    for i, draw in enumerate(draws[:num]):
        top, left = (i // across) * (side + GAP_PX), (i % across) * (side + GAP_PX)
        crop = cv2.resize(apply_crop(film, draw, size=size), (side, side), interpolation=cv2.INTER_AREA)
        cell[top : top + side, left : left + side] = _framed(crop, LOCAL)
    return _captioned(cell, f"local 1 to {num} of {len(draws)}", f"{size} x {size} pixels each")


def _with_mask(crop: Picture, mask: NDArray[np.bool_]) -> Picture:
    """Hidden patches tinted.  uint8 [S, S], bool [h, w] -> uint8 [S, S, 3]"""
    colour = cv2.cvtColor(crop, cv2.COLOR_GRAY2BGR).astype(np.float32)
    hidden = cv2.resize(mask.astype(np.uint8), crop.shape[::-1], interpolation=cv2.INTER_NEAREST).astype(bool)
    colour[hidden] = 0.3 * colour[hidden] + 0.7 * np.array(MASK, np.float32)
    tinted: Picture = colour.astype(np.uint8)
    return tinted


def _deeds(draw: CropDraw) -> str:
    """What is done to a crop, in a few words."""
    deeds = [
        "flip" if draw.hflip else "",
        "vflip" if draw.vflip else "",
        "" if draw.angle_degrees is None else f"turn {draw.angle_degrees:+.0f} deg",
        "" if draw.brightness is None else f"brightness {draw.brightness:.2f}",
        "" if draw.contrast is None else f"contrast {draw.contrast:.2f}",
        "" if draw.gamma is None else f"gamma {draw.gamma:.2f}",
        "" if draw.blur_sigma is None else f"blur {draw.blur_sigma:.1f}",
        "" if draw.solarize_threshold is None else "solarise",
    ]
    return ", ".join(deed for deed in deeds if deed) or "as it is"


def _fit(picture: Picture, side: int) -> Picture:
    """Scaled so that its longer side is `side`."""
    scale = side / max(picture.shape)
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    fitted: Picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    return fitted


def _framed(picture: Picture, colour: Colour) -> Picture:
    framed = picture if picture.ndim == 3 else cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR)
    cv2.rectangle(framed, (0, 0), (framed.shape[1] - 1, framed.shape[0] - 1), colour, 2)
    return framed


def _captioned(cell: Picture, first: str, second: str) -> Picture:
    caption = _paper(CAPTION_PX, cell.shape[1])
    _write(caption, first, x=1, y=16, colour=INK)
    _write(caption, second, x=1, y=33, colour=FAINT)
    return np.vstack([cell, caption])


def _beside(cells: Sequence[Picture]) -> Picture:
    gap = _paper(cells[0].shape[0], GAP_PX)
    parts = [gap]
    for cell in cells:
        parts += [cell, gap]
    return np.hstack(parts)


def _write(picture: Picture, text: str, *, x: int, y: int, colour: Colour, scale: float = FONT_SCALE) -> None:
    cv2.putText(picture, text, (x, y), FONT, scale, colour, 1, cv2.LINE_AA)


def _paper(height: int, width: int) -> Picture:
    return np.full((height, width, 3), PAPER, np.uint8)


def _short(name: str, *, most: int = 24) -> str:
    return name if len(name) <= most else name[: most - 3] + "..."
