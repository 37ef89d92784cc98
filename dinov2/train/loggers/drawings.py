"""Pictures for the loggers: what the networks get, and what they make of it.

In: a batch as the loader made it; the newest look of a run. Out: uint8 [H, W, 3] in red, green, blue; plain mosaics,
for the loggers print the captions.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dinov2.batch import NUM_GLOBAL_CROPS, Batch
from dinov2.looks import read_films, read_look
from dinov2.train.loggers.logger import Picture

MOST_PICTURES, MOST_LOCALS, MOST_FILMS = 4, 8, 12
SIDE_PX, GAP_PX = 224, 6  # of a cell, and between two
PAPER = 250
HIDDEN = (120, 60, 160)  # violet, over hidden patches
FILM_PX = 112


def crops_and_masks(batch: Batch) -> Picture:
    """A row a picture: its global crops, hidden patches tinted, and its first local crops."""
    num_pictures = len(batch.positions)
    num_locals = min(MOST_LOCALS, len(batch.local_crops) // num_pictures)
    rows = []
    for picture in range(min(MOST_PICTURES, num_pictures)):
        cells = []
        for crop in range(NUM_GLOBAL_CROPS):
            place = crop * num_pictures + picture
            cells.append(_masked(batch.global_crops[place].numpy(), batch.masks[place].numpy()))
        locals_ = [batch.local_crops[crop * num_pictures + picture].numpy() for crop in range(num_locals)]
        cells += [_scaled(_grey(crop), SIDE_PX) for crop in locals_]
        rows.append(_beside(cells))
    return _stacked(rows)


def latest_look(run: Path, *, step: int) -> Picture | None:
    """A column a film: the film, its patch tokens as colours, where the class token looks, what was predicted well.

    None where the run keeps no looks, or not of this step.
    """
    films = read_films(run)
    look = read_look(run, step=step)
    if look is None or not len(films):
        return None
    columns = []
    for film in range(min(MOST_FILMS, len(films))):
        cells = [
            _grey(films.thumbnails[film]),
            look.colours[film],
            _grey(look.attention[film]),
            _predicted(look.agreement[film], look.masks[film]),
        ]
        columns.append(_stacked([_scaled(cell, FILM_PX) for cell in cells]))
    return _beside(columns)


def _masked(crop: NDArray[np.uint8], mask: NDArray[np.bool_]) -> Picture:
    """uint8 [S, S], bool [N] -> [SIDE, SIDE, 3]"""
    side = round(len(mask) ** 0.5)
    shown = _scaled(_grey(crop), SIDE_PX).astype(np.float32)
    hidden = _scaled(_grey(mask.reshape(side, side).astype(np.uint8)), SIDE_PX)[:, :, 0] > 0
    shown[hidden] = 0.45 * shown[hidden] + 0.55 * np.array(HIDDEN, np.float32)
    return shown.astype(np.uint8)


def _predicted(agreement: NDArray[np.uint8], mask: NDArray[np.bool_]) -> Picture:
    """Hidden patches from dark to light by how well they were predicted; the others as paper."""
    shown = _grey(agreement)
    shown[~mask] = PAPER
    return shown


def _grey(levels: NDArray[np.uint8]) -> Picture:
    """[h, w] -> [h, w, 3]"""
    return np.repeat(levels[:, :, None], 3, axis=2)


def _scaled(picture: Picture, side: int) -> Picture:
    """To a square, each pixel the nearest one."""
    rows = np.arange(side) * picture.shape[0] // side
    columns = np.arange(side) * picture.shape[1] // side
    scaled: Picture = picture[rows[:, None], columns[None, :]]
    return scaled


def _beside(cells: Sequence[Picture]) -> Picture:
    gap = np.full((cells[0].shape[0], GAP_PX, 3), PAPER, np.uint8)
    return np.hstack([part for cell in cells for part in (cell, gap)][:-1])


def _stacked(rows: Sequence[Picture]) -> Picture:
    gap = np.full((GAP_PX, rows[0].shape[1], 3), PAPER, np.uint8)
    return np.vstack([part for row in rows for part in (row, gap)][:-1])
