"""Numbers -> what the template draws: lines, bands, ticks, marks, in the units of the SVG.

In: records, a `Plan`. Out: a `Chart`: all runs in it over the same two axes. Coordinates are rounded to a tenth of a
unit, of which a page shows about one per pixel.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dinov2.report.catalogue import CHANCE, CLIP, FEATURES, OF_CLASS, PROBE, Plan, reference_of
from dinov2.report.envelope import Envelope, envelope
from dinov2.report.folder import Record
from dinov2.report.scale import Scale, Tick, figure, scale_of, short
from dinov2.report.series import Series

WIDTH, HEIGHT = 340, 130  # of the drawing area
NUM_COLOURS = 8
FEW_POINTS = 70  # which are drawn as dots too, where they stand apart
DOT_ROOM = 4.0
MOST_REFERENCES = 3
MOST_LOST = 60  # marks of steps that were not finite
TYPICAL_LOW = 5  # percentile

Numbers = Mapping[str, Series]


@dataclass(frozen=True)
class Line:
    """A run in a chart. `run` counts runs from 0, `colour` the eight colours, `dash` the rounds through them."""

    run: int
    colour: int
    dash: int
    path: str
    band: str  # from the least to the greatest of each column; empty where every point is drawn
    dots: tuple[tuple[float, float], ...]
    lost: tuple[float, ...]  # x of steps that were not finite
    hover: str  # JSON [[x, step, mean, low, high], ...], low and high only where they differ
    last: str


@dataclass(frozen=True)
class Reference:
    """A dashed level line."""

    y: float
    text: str
    below: bool  # the text stands below the line
    runs: tuple[int, ...]  # that it is for


@dataclass(frozen=True)
class Mark:
    """A chosen checkpoint."""

    run: int
    x: float
    colour: int
    text: str
    y: float | None  # on the line, where it has a value there
    is_right: bool  # too near to the right edge for its text


@dataclass(frozen=True)
class Chart:
    """One number of all runs."""

    key: str
    title: str
    note: str
    lines: tuple[Line, ...]
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]
    references: tuple[Reference, ...]
    marks: tuple[Mark, ...]
    is_log: bool
    said: str  # for those who hear the page


def chart_of(plan: Plan, records: Sequence[Record], *, numbers: Sequence[Numbers], last_step: int) -> Chart:
    """The runs that have the number, from step 0 to `last_step`."""
    there = [(i, one[plan.key]) for i, one in enumerate(numbers) if plan.key in one]
    across = Scale(0.0, float(max(1, last_step)))
    references = _references(plan, {i: records[i] for i, _ in there})
    up = _scale([series for _, series in there], [value for value, _ in references], plan=plan)
    lines = tuple(_line(i, series, across=across, up=up) for i, series in there)
    is_score = PROBE.match(plan.key) or OF_CLASS.match(plan.key)
    # where a choice is made, and in one run also where it shows; in every chart marks would be a thicket
    marking = there if is_score or (len(records) == 1 and plan in FEATURES) else []
    marks = tuple(
        mark
        for i, series in marking
        if (mark := _mark(i, series, key=plan.key, record=records[i], across=across, up=up)) is not None
    )
    values = np.concatenate([series.finite.values for _, series in there])
    return Chart(
        key=plan.key,
        title=plan.title,
        note=", ".join(word for word in (plan.unit, plan.note, "log" if up.is_log else "") if word),
        lines=lines,
        across=across.ticks(most=5),
        up=up.ticks(most=4),
        references=_placed(references, up=up),
        marks=marks,
        is_log=up.is_log,
        said=f"{plan.title} over steps 0 to {last_step:,}: from {figure(values.min())} to {figure(values.max())}, "
        + ", ".join(f"{records[i].name} now {figure(series.last)}" for i, series in there),
    )


def constants_of(plans: Sequence[Plan], *, numbers: Sequence[Numbers]) -> dict[str, str]:
    """Numbers that never change and are the same in all runs: key -> words instead of a chart."""
    found = {}
    for plan in plans:
        series = [one[plan.key] for one in numbers if plan.key in one]
        if series and all(one.is_constant for one in series) and len({float(one.values[0]) for one in series}) == 1:
            found[plan.key] = f"{plan.title.lower()} {figure(float(series[0].values[0]))}"
    return found


def _references(plan: Plan, records: Mapping[int, Record]) -> dict[tuple[float, str], tuple[int, ...]]:
    """Value and name of each level line -> the runs that it is for."""
    found: dict[tuple[float, str], tuple[int, ...]] = {}
    for run, record in records.items():
        if (one := reference_of(plan, record)) is not None:
            found[one] = (*found.get(one, ()), run)
    return dict(list(found.items())[:MOST_REFERENCES])


def _scale(series: Sequence[Series], references: Sequence[float], *, plan: Plan) -> Scale:
    values = np.concatenate([one.finite.values for one in series])
    low, high = float(values.min()), float(values.max())
    # a level far from all values would press them into a line at the edge
    if plan.reference == CLIP:
        near = [one for one in references if low <= one <= 2 * high]
    elif plan.reference == CHANCE:
        near = [one for one in references if 2 * low - high <= one <= high]
    else:
        near = list(references)
    low, high = min([low, *near]), max([high, *near])
    positive = low > 0
    typical = max(low, float(np.percentile(values, TYPICAL_LOW))) if positive else None
    return scale_of(low, high, may_be_log=plan.may_be_log and positive, typical_low=typical)


def _line(run: int, series: Series, *, across: Scale, up: Scale) -> Line:
    reduced = envelope(series, columns=WIDTH, first=across.low, last=across.high)
    x, y = _x(reduced.steps, across=across), _y(reduced.mean, up=up)
    few = len(series) <= FEW_POINTS and (len(x) < 2 or x[-1] - x[0] >= DOT_ROOM * (len(x) - 1))
    lost = _x(reduced.lost[:: max(1, len(reduced.lost) // MOST_LOST)].astype(np.float64), across=across)
    return Line(
        run=run,
        colour=run % NUM_COLOURS,
        dash=run // NUM_COLOURS % 3,
        path=_path(x, y),
        band=_band(reduced, x, up=up) if reduced.is_reduced else "",
        dots=tuple(zip(x, y, strict=True)) if few else (),
        lost=tuple(lost),
        hover=_hover(reduced, x),
        last=figure(series.last),
    )


def _mark(run: int, series: Series, *, key: str, record: Record, across: Scale, up: Scale) -> Mark | None:
    if record.best is None or not 0 < record.best.step <= across.high:
        return None
    x = _x(np.array([float(record.best.step)]), across=across)[0]
    at = np.flatnonzero(series.finite.steps == record.best.step)
    y = _y(series.finite.values[at], up=up)[0] if len(at) else None
    # only where curves rise, as scores do, is there room for a word below them
    text = f"best {short(record.best.step)}" if PROBE.match(key) else ""
    return Mark(run, x, run % NUM_COLOURS, text, y, is_right=x > WIDTH - 60)


def _placed(references: Mapping[tuple[float, str], tuple[int, ...]], *, up: Scale) -> tuple[Reference, ...]:
    inside = [(value, text, runs) for (value, text), runs in references.items() if up.low <= value <= up.high]
    heights = [(round(HEIGHT * (1 - up.share(value)), 1), text, runs) for value, text, runs in inside]
    return tuple(Reference(y, text, below=y < HEIGHT / 4, runs=runs) for y, text, runs in heights)


def _hover(reduced: Envelope, x: Sequence[float]) -> str:
    points = []
    for i, place in enumerate(x):
        point = [place, round(float(reduced.steps[i])), _digits(reduced.mean[i])]
        if reduced.high[i] > reduced.low[i]:
            point += [_digits(reduced.low[i]), _digits(reduced.high[i])]
        points.append(point)
    return json.dumps(points, separators=(",", ":"))


def _digits(value: float) -> float:
    return float(f"{value:.5g}")


def _x(steps: NDArray[np.float64], *, across: Scale) -> list[float]:
    return [round(one, 1) for one in (WIDTH * (steps - across.low) / (across.high - across.low)).tolist()]


def _y(values: NDArray[np.float64], *, up: Scale) -> list[float]:
    return [round(HEIGHT * (1 - up.share(one)), 1) for one in values.tolist()]


def _path(x: Sequence[float], y: Sequence[float]) -> str:
    return "M" + "L".join(f"{a:g} {b:g}" for a, b in zip(x, y, strict=True))


def _band(reduced: Envelope, x: Sequence[float], *, up: Scale) -> str:
    high, low = _y(reduced.high, up=up), _y(reduced.low, up=up)
    return _path([*x, *reversed(x)], [*high, *reversed(low)]) + "Z"
