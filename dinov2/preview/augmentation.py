"""Crops as drawn, as a page: boxes on the film, the crops with their masks, every operation before and after.

In: a `BatchMaker`, positions of the sample stream. Out: HTML text.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dinov2.batch import NUM_GLOBAL_CROPS
from dinov2.data.augmentation import apply_crop, place_box
from dinov2.data.collate import BatchMaker
from dinov2.data.pixels import CropBox
from dinov2.data.preview import Drawn, deeds, read_drawn
from dinov2.data.preview_steps import steps_of
from dinov2.preview.page import jpeg, outline, render

FILM_PX, GLOBAL_PX, LOCAL_PX, STEP_PX = 560, 420, 200, 240  # most pixels of a side that are kept in the page
COLOURS = ("first", "second", "local")


@dataclass(frozen=True)
class ShownCrop:
    """One crop on the page."""

    name: str
    kind: str  # of COLOURS
    number: int
    box: CropBox
    uri: str
    deeds: str
    note: str
    hidden: str  # an SVG path of the hidden patches, "" of a crop without a mask


@dataclass(frozen=True)
class ShownStep:
    """One operation on the page; `uri` is "" where it was not done."""

    name: str
    drawn: str
    chance: str
    levels: str
    uri: str


def augmentation_page(
    maker: BatchMaker,
    positions: Sequence[int],
    *,
    title: str,
    preset: str,
    command: str,
    steps: bool = False,
    advance: Callable[[], None] = lambda: None,
) -> str:
    """A section a film.  Raises DataError where a film cannot be read.

    With `steps`, both global crops and the first local one are shown before and after every operation. `advance` hears
    of every film.
    """
    films = []
    for position in positions:
        drawn = read_drawn(maker, position)
        films.append((drawn, _crops(maker, drawn), jpeg(drawn.film, most=FILM_PX), _steps(maker, drawn, steps=steps)))
        advance()
    return render(
        "augmentation.html",
        title=title,
        preset=preset,
        command=command,
        films=films,
        has_steps=steps,
        grid=maker.masks.grid,
        maker=maker,
    )


def _crops(maker: BatchMaker, drawn: Drawn) -> list[ShownCrop]:
    height, width = drawn.film.shape
    shown = []
    for i, draw in enumerate(drawn.draws):
        box = place_box(draw, height=height, width=width)
        is_global = i < NUM_GLOBAL_CROPS
        mask = drawn.masks[i] if is_global else None
        share = f"{100 * box.width * box.height / (height * width):.0f} % of the film"
        if mask is not None:
            share += f"; {100 * mask.mean():.0f} % hidden" if mask.any() else "; not masked"
        crop = apply_crop(drawn.film, draw, size=_size(maker, i))
        shown.append(
            ShownCrop(
                name=_name(i),
                kind=COLOURS[min(i, NUM_GLOBAL_CROPS)],
                number=i,
                box=box,
                uri=jpeg(crop, most=GLOBAL_PX if is_global else LOCAL_PX),
                deeds=deeds(draw),
                note=share,
                hidden=outline(mask) if mask is not None else "",
            )
        )
    return shown


def _steps(maker: BatchMaker, drawn: Drawn, *, steps: bool) -> list[tuple[str, str, list[ShownStep]]]:
    """Name, kind and steps of a crop of each kind."""
    if not steps:
        return []
    kinds = range(min(len(drawn.draws), NUM_GLOBAL_CROPS + 1))
    rows = []
    for i in kinds:
        taken = steps_of(
            drawn.film, drawn.draws[i], size=_size(maker, i), recipe=maker.recipe, crop=i, kinds=tuple(kinds)
        )
        shown = [
            ShownStep(
                step.name,
                step.drawn,
                step.chance,
                step.levels,
                "" if step.picture is None else jpeg(step.picture, most=STEP_PX),
            )
            for step in taken
        ]
        rows.append((_name(i), COLOURS[i], shown))
    return rows


def _name(crop: int) -> str:
    return f"global {crop + 1}" if crop < NUM_GLOBAL_CROPS else f"local {crop - NUM_GLOBAL_CROPS + 1}"


def _size(maker: BatchMaker, crop: int) -> int:
    return maker.crops.global_crops_size if crop < NUM_GLOBAL_CROPS else maker.crops.local_crops_size
