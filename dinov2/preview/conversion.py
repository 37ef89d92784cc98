"""A finished conversion as one picture: contact sheets of what came through, and of what did not.

In: a conversion's folder or a manifest. Out: uint8 [H, W, 3] in OpenCV's channel order: a sheet for a sample of all
pictures, for every reason of rejection, every flag and every view.
"""

import base64
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from dinov2.data.preview_sheet import (
    FAINT,
    GAP_PX,
    INK,
    Picture,
    beside,
    captioned,
    centred,
    paper,
    short,
    titled,
    write,
)
from dinov2.preprocess.page.counts import count_rejects, read_pictures
from dinov2.preprocess.page.page import Request
from dinov2.preprocess.page.sheets import Drawer, Tile, plan_rejects, plan_sheets
from dinov2.preprocess.page.thumbnails import SIDE_PX
from dinov2.preprocess.work.places import private_folder

ACROSS, FEWEST_ACROSS = 8, 2  # films in a row; a heading has room for two at least
CELL_PX = SIDE_PX + GAP_PX
NOTE_LETTERS = 24  # of a line within a film's place
HEADING_PX = 30
HEADINGS = {"sample": "A random sample of", "reason": "Rejected:", "flag": "Flag:", "view": "View:"}


@dataclass(frozen=True)
class ConversionSheet:
    """The picture, and what it is of."""

    picture: Picture
    num_pictures: int
    num_rejected: int
    num_shown: int
    has_inputs: bool  # whether rejected films could be looked for


def conversion_sheet(request: Request, *, on_progress: Callable[[int, int], None]) -> ConversionSheet:
    """`request.per_sheet` films of each kind, twice as many of all.  `on_progress` hears films drawn and films to draw.

    Raises ManifestError where there is no manifest.
    """
    manifest = read_pictures(request.pictures)
    rejects = count_rejects(manifest.root / "rejected.csv")
    private = private_folder(manifest.root, private=request.private)
    rejected = plan_rejects(private, rejects, per_sheet=request.per_sheet) if rejects else ()
    found = plan_sheets(manifest, per_sheet=request.per_sheet, seed=request.seed)
    plans = [plan for kind in HEADINGS for plan in (*found, *rejected) if plan.kind == kind]
    total = sum(plan.num_tiles for plan in plans)
    drawer = Drawer(manifest, show_burned_in=request.show_burned_in)
    groups = []
    for plan in plans:
        tiles = []
        for tile in drawer.draw(plan):
            tiles.append(_cell(tile))
            on_progress(drawer.num_drawn, total)
        groups.append(_group(f"{HEADINGS[plan.kind]} {plan.name} ({plan.count:,})", tiles))
    told = f"{request.pictures.resolve().name}: {len(manifest):,} pictures, {rejects.total():,} rejects"
    picture = titled(short(told, most=150), _lines(groups) or [paper(SIDE_PX, FEWEST_ACROSS * CELL_PX)])
    return ConversionSheet(picture, len(manifest), rejects.total(), drawer.num_drawn, bool(rejected))


def _group(heading: str, cells: Sequence[Picture]) -> Picture:
    """A heading over rows of cells."""
    across = max(FEWEST_ACROSS, min(ACROSS, len(cells)))
    line = paper(HEADING_PX, across * CELL_PX)
    write(line, heading, x=GAP_PX, y=19, colour=INK, scale=0.5)
    rows = [beside(cells[start : start + ACROSS])[:, :-GAP_PX] for start in range(0, len(cells), ACROSS)]
    return np.vstack([line, *(_padded(row, height=row.shape[0], width=line.shape[1]) for row in rows)])


def _lines(groups: Sequence[Picture]) -> list[Picture]:
    """Groups beside one another as far as there is room, in their order."""
    lines: list[list[Picture]] = []
    for group in groups:
        if lines and sum(one.shape[1] for one in (*lines[-1], group)) <= ACROSS * CELL_PX:
            lines[-1].append(group)
        else:
            lines.append([group])
    heights = [max(group.shape[0] for group in line) for line in lines]
    return [
        np.hstack([_padded(group, height=height, width=group.shape[1]) for group in line])
        for line, height in zip(lines, heights, strict=True)
    ]


def _padded(picture: Picture, *, height: int, width: int) -> Picture:
    """With paper below and to the right."""
    padded = paper(height, width)
    padded[: picture.shape[0], : picture.shape[1]] = picture
    return padded


def _cell(tile: Tile) -> Picture:
    """A thumbnail, or why there is none, and what is known of the film."""
    if tile.drawn.uri:
        data = np.frombuffer(base64.b64decode(tile.drawn.uri.partition(",")[2]), np.uint8)
        shown = centred(np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), np.uint8), SIDE_PX)
    else:
        shown = paper(SIDE_PX, SIDE_PX)
        cv2.rectangle(shown, (0, 0), (SIDE_PX - 1, SIDE_PX - 1), (215, 215, 215), 1)
        for number, line in enumerate(textwrap.wrap(tile.drawn.note, NOTE_LETTERS)):
            write(shown, line, x=8, y=24 + 17 * number, colour=FAINT, scale=0.38)
    about = ", ".join(word for word in (tile.about, *tile.flags) if word)
    return captioned(shown, tile.caption, short(about))
