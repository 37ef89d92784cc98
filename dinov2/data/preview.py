"""What the networks get to see, as one picture to look at.

In: a `BatchMaker` and positions of the sample stream. Out: uint8 [H, W, 3] in OpenCV's channel order: a row a film,
with its crop boxes, its global crops with their masks, and local crops; where asked, a row of steps a crop below it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dinov2.batch import NUM_GLOBAL_CROPS
from dinov2.data.augmentation import CropDraw, apply_crop, draw_crops, place_box
from dinov2.data.collate import BatchMaker
from dinov2.data.dataset import Unreadable
from dinov2.data.preview_sheet import (
    FAINT,
    GAP_PX,
    GLOBAL,
    LOCAL,
    MASK,
    Picture,
    beside,
    captioned,
    centred,
    fit,
    framed,
    in_colour,
    paper,
    short,
    titled,
    with_mask,
    write,
    write_picture,
)
from dinov2.data.preview_steps import steps_of
from dinov2.errors import DataError

__all__ = ["GLOBAL", "LOCAL", "MASK", "Drawn", "augmentation_grid", "deeds", "read_drawn", "write_picture"]

SIDE_PX = 300  # of the film's and the global crops' cells
STEP_PX = 196  # of a step's cell
NUM_LOCALS = 6  # shown in two rows


@dataclass(frozen=True)
class Drawn:
    """A film, and what was drawn for it."""

    position: int
    path: Path
    film: Picture  # [H, W]
    draws: tuple[CropDraw, ...]  # global crops first
    masks: tuple[NDArray[np.bool_], ...]  # [h, w] of the global crops


def read_drawn(maker: BatchMaker, position: int) -> Drawn:
    """The film at a position of the sample stream.  Raises DataError where it cannot be read."""
    row = maker.stream.row(position)
    path = maker.pictures.path(row)
    try:
        film = maker.pictures.read(row)
    except Unreadable as reason:
        raise DataError(f"{path}: {reason}. Choose another --seed, or repair the file.") from reason
    draws = draw_crops(maker.recipe, crops=maker.crops, seed=maker.seed, position=position)
    masks = maker.masks.masks(position, num_crops=NUM_GLOBAL_CROPS)
    return Drawn(position, path, film, draws, tuple(mask.reshape(maker.masks.grid) for mask in masks))


def augmentation_grid(
    maker: BatchMaker,
    positions: Sequence[int],
    *,
    title: str,
    steps: bool = False,
    advance: Callable[[], None] = lambda: None,
) -> Picture:
    """The grid of the films at `positions`; with `steps` also a global, a global and a local crop step by step.
    `advance` hears of every film.

    -> uint8 [H, W, 3]   Raises DataError where a film cannot be read.
    """
    rows: list[Picture] = []
    for position in positions:
        drawn = read_drawn(maker, position)
        rows.append(_row(maker, drawn))
        if steps:
            rows += [_step_row(maker, drawn, crop=i) for i in range(min(len(drawn.draws), NUM_GLOBAL_CROPS + 1))]
        advance()
    return titled(title, rows)


def _row(maker: BatchMaker, drawn: Drawn) -> Picture:
    film, draws = drawn.film, drawn.draws
    cells = [_film_cell(film, draws, name=drawn.path.name, position=drawn.position)]
    for c in range(NUM_GLOBAL_CROPS):
        crop = apply_crop(film, draws[c], size=maker.crops.global_crops_size)
        shown = with_mask(fit(crop, SIDE_PX), drawn.masks[c])
        hidden = f", {100 * drawn.masks[c].mean():.0f} % hidden" if drawn.masks[c].any() else ", not masked"
        cells.append(captioned(framed(shown, GLOBAL[c]), f"global {c + 1}{hidden}", deeds(draws[c])))
    if maker.crops.local_crops_number:
        cells.append(_local_cell(film, draws[NUM_GLOBAL_CROPS:], size=maker.crops.local_crops_size))
    return beside(cells)


def _step_row(maker: BatchMaker, drawn: Drawn, *, crop: int) -> Picture:
    """Every operation on one crop, before and after."""
    is_global = crop < NUM_GLOBAL_CROPS
    size = maker.crops.global_crops_size if is_global else maker.crops.local_crops_size
    colour = GLOBAL[crop] if is_global else LOCAL
    name = f"global {crop + 1}" if is_global else "local 1"
    kinds = (0, 1, 2) if maker.crops.local_crops_number else (0, 1)
    cells: list[Picture] = []
    for step in steps_of(drawn.film, drawn.draws[crop], size=size, recipe=maker.recipe, crop=crop, kinds=kinds):
        if step.picture is None:
            cell = paper(STEP_PX, STEP_PX)
            cv2.rectangle(cell, (0, 0), (STEP_PX - 1, STEP_PX - 1), (215, 215, 215), 1)
            write(cell, "not drawn", x=STEP_PX // 2 - 32, y=STEP_PX // 2 + 4, colour=FAINT)
        else:
            cell = framed(cv2.resize(step.picture, (STEP_PX, STEP_PX), interpolation=cv2.INTER_AREA), colour)
        label = f"{name}: {step.name}" if not cells else step.name
        cells.append(captioned(cell, label, step.drawn or step.chance))
    return beside(cells)


def _film_cell(film: Picture, draws: Sequence[CropDraw], *, name: str, position: int) -> Picture:
    """The film within its cell, every crop's box drawn on it."""
    height, width = film.shape
    scale = SIDE_PX / max(height, width)
    shown = in_colour(fit(film, SIDE_PX))
    for i, draw in reversed(list(enumerate(draws))):
        box = place_box(draw, height=height, width=width)
        corner = (round(box.left * scale), round(box.top * scale))
        opposite = (round((box.left + box.width) * scale) - 1, round((box.top + box.height) * scale) - 1)
        colour, thickness = (GLOBAL[i], 2) if i < NUM_GLOBAL_CROPS else (LOCAL, 1)
        cv2.rectangle(shown, corner, opposite, colour, thickness, cv2.LINE_AA)
    return captioned(centred(shown, SIDE_PX), f"{short(name)}, {width} x {height}", f"position {position}")


def _local_cell(film: Picture, draws: Sequence[CropDraw], *, size: int) -> Picture:
    """The first local crops in two rows."""
    side = (SIDE_PX - GAP_PX) // 2
    num = min(NUM_LOCALS, len(draws))
    across = (num + 1) // 2
    cell = paper(SIDE_PX, across * side + (across - 1) * GAP_PX)
    for i, draw in enumerate(draws[:num]):
        top, left = (i // across) * (side + GAP_PX), (i % across) * (side + GAP_PX)
        crop = cv2.resize(apply_crop(film, draw, size=size), (side, side), interpolation=cv2.INTER_AREA)
        cell[top : top + side, left : left + side] = framed(crop, LOCAL)
    return captioned(cell, f"local 1 to {num} of {len(draws)}", f"{size} x {size} pixels each")


def deeds(draw: CropDraw) -> str:
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
