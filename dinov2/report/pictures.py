"""What the looks of a run show: films in rows, steps in columns; attention; hidden patches; nearest neighbours.

In: a record with looks. Out: a `Gallery`: sprites, and which tile of them stands where. Names of films are shown only
where they are ours, for any other may say something of a patient.

Legend: F films, T looks, h x w grid of patches.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dinov2.looks import Films, Look, neighbour_picture
from dinov2.report.folder import Record
from dinov2.report.series import Series
from dinov2.report.sprites import (
    Sprite,
    agreement_colours,
    attention_colours,
    colour_sprite,
    film_uri,
    heat_sprite,
)

OUR_ID = re.compile(r"[0-9a-f]{16}")  # an HMAC
ID_LETTERS = 8
MOST_COLUMNS = 8  # steps that stand side by side
MOST_NEIGHBOURS = 5
NEIGHBOUR_FILMS = 6
FILM_PX, NEIGHBOUR_PX = 192, 96
KINDS = ("colours", "attention", "told")


@dataclass(frozen=True)
class Neighbour:
    """A monitored picture near a film; `uri` is empty where its thumbnail is missing."""

    row: int
    cosine: float
    label: str
    agrees: bool  # it has the film's label
    uri: str


@dataclass(frozen=True)
class FilmRow:
    """A film and its sprites by kind; `told` (hidden patches) only in a run with iBOT."""

    number: int
    caption: str
    label: str
    uri: str
    sprites: dict[str, Sprite]
    num_hidden: int  # patches
    first: tuple[Neighbour, ...]
    last: tuple[Neighbour, ...]


@dataclass(frozen=True)
class Gallery:
    """All pictures of a run. `columns` are the looks (counted from 0) that stand side by side."""

    films: tuple[FilmRow, ...]
    steps: tuple[int, ...]  # of the T looks
    columns: tuple[int, ...]
    grid: tuple[int, int]
    told: tuple[float, ...]  # mean agreement over hidden patches, of each look; empty without iBOT
    num_more_films: int

    @property
    def ratio(self) -> str:
        """Width / height of a map, for CSS."""
        return f"{self.grid[1]} / {self.grid[0]}"

    @property
    def neighbour_films(self) -> tuple[FilmRow, ...]:
        """Films whose neighbours are shown."""
        return tuple(film for film in self.films if film.last)[:NEIGHBOUR_FILMS]


def gallery_of(record: Record, *, most_films: int) -> Gallery | None:
    """None where the run kept no look, or no film is asked for."""
    looks = _of_one_grid(record.looks)
    if not looks or most_films < 1:
        return None
    count = min(most_films, len(record.films))
    hides = bool(looks[-1].masks[:count].any())
    films = tuple(_film(record, film, looks=looks, hides=hides) for film in range(count))
    return Gallery(
        films=films,
        steps=tuple(look.step for look in looks),
        columns=spread(len(looks), most=MOST_COLUMNS),
        grid=looks[-1].grid,
        told=tuple(mean_told(look) for look in looks) if hides else (),
        num_more_films=len(record.films) - count,
    )


def told_series(looks: Sequence[Look]) -> Series | None:
    """How well hidden patches are told, over the steps; None without looks or without iBOT."""
    hiding = [look for look in looks if look.masks.any()]
    if not hiding:
        return None
    steps = np.array([look.step for look in hiding], dtype=np.int64)
    return Series(steps, np.array([mean_told(look) for look in hiding]))


def mean_told(look: Look) -> float:
    """Mean of `agreement` over hidden patches, 0 to 1; NaN where none is hidden."""
    return float(look.agreement[look.masks].mean()) / 255 if look.masks.any() else float("nan")


def spread(count: int, *, most: int) -> tuple[int, ...]:
    """At most `most` of `count` places, the first and the last among them, evenly."""
    if count <= most:
        return tuple(range(count))
    return tuple(int(place) for place in np.unique(np.linspace(0, count - 1, most).round().astype(int)))


def _of_one_grid(looks: Sequence[Look]) -> list[Look]:
    """Those that have the newest one's grid, for tiles of a sprite are of one size."""
    return [look for look in looks if look.grid == looks[-1].grid]


def _film(record: Record, film: int, *, looks: Sequence[Look], hides: bool) -> FilmRow:
    films = record.films

    def stack(name: str) -> NDArray[np.uint8]:
        maps: NDArray[np.uint8] = np.stack([getattr(look, name)[film] for look in looks])
        return maps

    sprites = {
        "colours": colour_sprite(stack("colours")),
        "attention": heat_sprite(stack("attention"), colours=attention_colours()),
    }
    if hides:
        masks = np.stack([look.masks[film] for look in looks])
        sprites["told"] = heat_sprite(stack("agreement"), colours=agreement_colours(), shown=masks)
    name = films.image_ids[film]
    label = _label(films, int(films.rows[film])) if film < len(films.rows) else ""
    last = _neighbours(record, looks[-1], film=film, label=label)
    return FilmRow(
        number=film,
        caption=name[:ID_LETTERS] if OUR_ID.fullmatch(name) else f"film {film + 1}",
        label=label,
        uri=film_uri(films.thumbnails[film], side=FILM_PX),
        sprites=sprites,
        num_hidden=int(looks[-1].masks[film].sum()),
        first=_neighbours(record, looks[0], film=film, label=label) if len(looks) > 1 else (),
        last=last,
    )


def _neighbours(record: Record, look: Look, *, film: int, label: str) -> tuple[Neighbour, ...]:
    found = []
    rows, cosines = look.neighbours[film, :MOST_NEIGHBOURS], look.similarity[film, :MOST_NEIGHBOURS]
    for row, cosine in zip(rows.tolist(), cosines.tolist(), strict=True):
        known = _label(record.films, row)
        uri = _thumbnail(record, row)
        found.append(Neighbour(row, cosine, known, agrees=bool(label) and known == label, uri=uri))
    return tuple(found)


def _thumbnail(record: Record, row: int) -> str:
    try:
        with Image.open(neighbour_picture(record.path, row)) as picture:
            return film_uri(np.asarray(picture.convert("L")), side=NEIGHBOUR_PX)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return ""


def _label(films: Films, row: int) -> str:
    known = films.monitored_labels[row] if 0 <= row < len(films.monitored_labels) else ""
    return re.sub(r"\blabel_", "", known)
