"""What people are shown of a look, written into the run's folder.

In: a `Run` after a step, the features of its look. Out: files as `dinov2.looks` says, and messages. A file that cannot
be written is told and does not end the training.

Legend: F films, N monitored pictures, K neighbours.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from dinov2 import looks
from dinov2.distributed import from_main
from dinov2.train.events import Message
from dinov2.train.monitors.colours import Colours, coloured
from dinov2.train.monitors.film_passes import Glimpse, see_films
from dinov2.train.monitors.films import NEIGHBOUR_PX, Shown, gather_films, gather_pictures, thumbnail
from dinov2.train.monitors.passes import Look, Seen
from dinov2.train.monitors.pictures import Monitored
from dinov2.train.run import Run

NEIGHBOURS = 5


class FilmKeeper:
    """The films of a run and the colours that they had last."""

    def __init__(self, shown: Shown) -> None:
        self._shown = shown
        self._colours: Colours | None = None
        self.written_bytes = 0  # of the last look

    def begin(self, run: Path) -> Iterator[Message]:
        """Writes the films down; earlier looks go on where they are of the same films, and are set aside where not.

        Called by the main process, with the folder of the run.
        """
        try:
            before = looks.read_films(run)
            if len(before) and not _same(before, self._shown.films):
                aside = looks.set_looks_aside(run)
                yield Message(text=f"looks: the films are not those of before, whose looks are now in {aside}")
            looks.write_films(run, self._shown.films)
            last = looks.newest_look(run)
            self._colours = last.colours if last else None
        except OSError as error:
            yield Message(text=f"looks: {error}; the training goes on without pictures", warning=True)

    def keep(self, this: Run, seen: Seen, *, share: Tensor, what: Look, temperature: float) -> Iterator[Message]:
        """Writes the look of the step that was just made.  Called by every process."""
        glimpse = see_films(this.tools, self._shown, what=what, temperature=temperature)
        rows, similarity = nearest(seen.cls, self._shown.rows) if this.world.is_main else (None, None)
        wanted = from_main(_not_there(this, rows), world=this.world)
        pictures = gather_pictures(wanted, share=share, world=this.world).numpy() if wanted else ()
        if glimpse is None or rows is None or similarity is None:
            return
        look = self._look(this.step, glimpse, rows=rows, similarity=similarity)
        small = {row: thumbnail(one, longest_px=NEIGHBOUR_PX) for row, one in zip(wanted, pictures, strict=True)}
        self.written_bytes = 0
        try:
            self.written_bytes = looks.write_look(this.folder.path, look, pictures=small)
        except OSError as error:
            yield Message(text=f"step {this.step}: this look was not kept: {error}", warning=True)

    def _look(
        self, step: int, glimpse: Glimpse, *, rows: NDArray[np.int32], similarity: NDArray[np.float32]
    ) -> looks.Look:
        height, width = self._shown.masks.shape[1:]
        self._colours = coloured(glimpse.tokens, grid=(height, width), before=self._colours)
        return looks.Look(
            step=step,
            grid=(height, width),
            colours=self._colours,
            attention=glimpse.attention,
            masks=self._shown.masks,
            agreement=glimpse.agreement,
            neighbours=rows,
            similarity=similarity,
        )


def build_keeper(this: Run, monitored: Monitored, *, share: Tensor) -> FilmKeeper | None:
    """None where `monitors.films` is 0.  Called by every process."""
    if not this.config.monitors.films:
        return None
    return FilmKeeper(gather_films(this.config, monitored=monitored, share=share, world=this.world))


def nearest(cls: Tensor, films: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The nearest other pictures of each film by cosine.  [N, D], [F] -> [F, K], [F, K]"""
    units = torch.nan_to_num(normalize(cls.float(), dim=1))
    own = torch.from_numpy(films).long().to(cls.device)
    cosines = units[own] @ units.T  # [F, N]
    cosines.scatter_(1, own.unsqueeze(1), -torch.inf)
    values, rows = cosines.topk(min(NEIGHBOURS, len(cls) - 1), dim=1)
    return rows.to(torch.int32).cpu().numpy(), values.cpu().numpy()


def _not_there(this: Run, rows: NDArray[np.int32] | None) -> list[int]:
    """Neighbours without a thumbnail yet; on the main process."""
    if rows is None:
        return []
    return [row for row in np.unique(rows).tolist() if not looks.neighbour_picture(this.folder.path, row).exists()]


def _same(one: looks.Films, other: looks.Films) -> bool:
    names = (one.image_ids, one.monitored_ids) == (other.image_ids, other.monitored_ids)
    return names and np.array_equal(one.rows, other.rows) and np.array_equal(one.thumbnails, other.thumbnails)
