"""Contact sheets: which films are shown together, and how each is drawn.

In: the manifest, the private folder. Out: a `Sheet` per group, its tiles drawn one after the other; only the films that
are drawn are read.
"""

import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dinov2.errors import ManifestError
from dinov2.manifest import Manifest
from dinov2.preprocess.page.counts import Rows, count_values, row_of_each, rows_by_flag, rows_of, shown
from dinov2.preprocess.page.thumbnails import BURNED_IN_NOTE, Drawn, draw_picture, draw_rejected
from dinov2.preprocess.reasons import Flag, Reason
from dinov2.preprocess.work.lookup import Rejected, rejected_sources

OUR_ID = re.compile(r"[0-9a-f]{16}")  # an HMAC; any other name of a picture may say something
MOST_CATEGORIES = 12  # views, and makers, that get a sheet of their own
ID_LETTERS = 8
PAIRED = (Flag.NEAR_DUPLICATE, Flag.DUPLICATE_PIXELS)


@dataclass(frozen=True)
class Tile:
    """A thumbnail and what stands below it; `partner` is the film it is compared with."""

    drawn: Drawn
    caption: str
    about: str
    flags: tuple[str, ...] = ()
    partner: "Tile | None" = None


@dataclass(frozen=True)
class Sheet:
    """Films of one kind: some of `count`."""

    kind: str  # the chapter it belongs to
    name: str
    count: int
    tiles: tuple[Tile, ...]

    @property
    def anchor(self) -> str:
        """Its place on the page."""
        return re.sub(r"[^a-z0-9]+", "-", f"{self.kind} {self.name}".lower()).strip("-")


@dataclass(frozen=True)
class Plan:
    """A sheet before it is drawn: rows of the manifest, rows with the rows they repeat, or rejected inputs."""

    kind: str
    name: str
    count: int
    rows: tuple[int, ...] = ()
    partners: tuple[int | None, ...] = ()
    rejected: tuple[Rejected, ...] = ()

    @property
    def num_tiles(self) -> int:
        """Films to draw."""
        return len(self.rows) + sum(row is not None for row in self.partners) + len(self.rejected)


def plan_sheets(manifest: Manifest, *, per_sheet: int, seed: int) -> tuple[Plan, ...]:
    """A random sample of all pictures, of each flag's, each view's and each maker's, and pairs that look the same.

    What is drawn for a sheet depends on the seed and the sheet's name alone.
    """
    table = manifest.table
    by_flag = rows_by_flag(table.column("flags"))
    plans = [_plan("sample", "all pictures", np.arange(len(table)), per_sheet=2 * per_sheet, seed=seed)]
    plans += [_plan("flag", shown(name), rows, per_sheet=per_sheet, seed=seed) for name, rows in by_flag.items()]
    for flag in PAIRED:
        rows = by_flag.get(str(flag), np.zeros(0, np.int64))
        plan = _plan("pairs", str(flag), rows, per_sheet=max(1, per_sheet // 2), seed=seed)
        repeated = [table.column("duplicate_of")[row].as_py() for row in plan.rows]
        partners = row_of_each(table.column("image_id"), repeated) if repeated else []
        plans.append(Plan(plan.kind, plan.name, plan.count, plan.rows, tuple(partners)))
    for kind, column in (("view", "view"), ("manufacturer", "manufacturer")):
        categories = [name for name in count_values(table.column(column)) if len(table)][:MOST_CATEGORIES]
        rows_in = {name: rows_of(table.column(column), name) for name in categories}
        plans += [_plan(kind, name, rows, per_sheet=per_sheet, seed=seed) for name, rows in rows_in.items()]
    return tuple(plan for plan in plans if plan.count)


def plan_rejects(private: Path, counts: Mapping[str, int], *, per_sheet: int) -> tuple[Plan, ...]:
    """A few rejected films per reason, faults first; empty where the private folder does not tell where they are."""
    found = rejected_sources(private, per_reason=per_sheet)
    order = sorted(found, key=lambda reason: (("fault", "filter", "duplicate").index(reason.kind), -counts[reason]))
    return tuple(Plan("reason", str(reason), counts[reason], rejected=found[reason]) for reason in order)


class Drawer:
    """Draws plans; counts in `num_drawn` how many films it has looked at."""

    def __init__(self, manifest: Manifest, *, show_burned_in: bool) -> None:
        """`show_burned_in`: also films that say they carry text about the patient."""
        self.manifest, self.show_burned_in = manifest, show_burned_in
        self.num_drawn = 0
        self._seen: dict[int, Drawn] = {}

    def draw(self, plan: Plan) -> Iterator[Tile]:
        """Tile after tile."""
        partners: Sequence[int | None] = plan.partners or (None,) * len(plan.rows)
        for row, other in zip(plan.rows, partners, strict=True):
            yield self._picture(row, partner=None if other is None else self._picture(other))
        reason = Reason(plan.name) if plan.rejected else None
        for one in plan.rejected:
            if reason is not None:
                self.num_drawn += 1
                drawn = draw_rejected(one.source, frame=one.frame, reason=reason, show_burned_in=self.show_burned_in)
                yield Tile(drawn, f"source {one.name[:ID_LETTERS]}", drawn.about)

    def _picture(self, row: int, *, partner: Tile | None = None) -> Tile:
        self.num_drawn += 1
        values = self.manifest.row(row)
        flags = tuple(shown(flag) for flag in (values["flags"] or "").split(",") if flag)
        if row not in self._seen:
            self._seen[row] = self._draw(row, flags=flags)
        image_id = str(values["image_id"])
        caption = image_id[:ID_LETTERS] if OUR_ID.fullmatch(image_id) else f"row {row}"
        view = shown(values["view"]) if values["view"] else ""
        return Tile(self._seen[row], caption, view, flags, partner)

    def _draw(self, row: int, *, flags: tuple[str, ...]) -> Drawn:
        if Flag.BURNED_IN in flags and not self.show_burned_in:
            return Drawn(note=BURNED_IN_NOTE)
        try:
            return draw_picture(self.manifest.place(row))
        except ManifestError:
            return Drawn(note="the manifest does not say where in its shard the picture is")


def _plan(kind: str, name: str, rows: Rows, *, per_sheet: int, seed: int) -> Plan:
    rng = np.random.default_rng([seed, zlib.crc32(f"{kind} {name}".encode())])
    drawn = rng.choice(rows, size=min(per_sheet, len(rows)), replace=False) if len(rows) else rows
    return Plan(kind, name, len(rows), rows=tuple(int(row) for row in np.sort(drawn)))
