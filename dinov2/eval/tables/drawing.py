"""Scores and curves -> what the page's template draws: bars with intervals, lines, ticks.

In: a `Result`. Out: plain data; lengths as shares of an axis in percent, coordinates in the units of the SVG.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from dinov2.eval.scores import Score
from dinov2.eval.scores.curves import Curves, Points
from dinov2.eval.tables.sheet import WORDS, figure, number

SIDE = 100  # of a curve's square


@dataclass(frozen=True)
class Axis:
    """From where to where bars go."""

    low: float
    high: float

    @property
    def text(self) -> str:
        return f"{self.low:g} to {self.high:g}"

    def share(self, value: float) -> float:
        """Percent of the way."""
        return round(100 * min(1.0, max(0.0, (value - self.low) / (self.high - self.low))), 2)


@dataclass(frozen=True)
class Bar:
    """A value and its interval on an axis; `left`, `width` and `dot` in percent."""

    text: str
    low: str
    high: str
    left: float
    width: float
    dot: float


@dataclass(frozen=True)
class Plot:
    """One small square: a line, its diagonal or not."""

    title: str
    across: str
    up: str
    points: str
    dots: tuple[tuple[float, float], ...]
    diagonal: bool
    base: float | None = None  # height of a level line


@dataclass(frozen=True)
class Panel:
    """The plots of a class."""

    name: str
    note: str
    plots: tuple[Plot, ...]


def axis_of(scores: Iterable[Score | None]) -> Axis:
    """Wide enough for all intervals, at tenths; of distances from 0."""
    told = [one for one in scores if one is not None]
    numbers = [v for one in told for v in (one.value, one.low, one.high) if math.isfinite(v)]
    if not numbers:
        return Axis(0.0, 1.0)
    if any(one.name == "hausdorff95" for one in told):
        return Axis(0.0, max(1.0, float(math.ceil(max(numbers)))))
    low, high = math.floor(10 * min(numbers)) / 10, math.ceil(10 * max(numbers)) / 10
    return Axis(low, high if high > low else low + 0.1)


def bar_of(score: Score | None, axis: Axis) -> Bar | None:
    """None where there is no value."""
    if score is None or not math.isfinite(score.value):
        return None
    low, high = (value if math.isfinite(value) else score.value for value in (score.low, score.high))
    left = axis.share(low)
    return Bar(
        text=number(score),
        low=figure(score.low, score.name),
        high=figure(score.high, score.name),
        left=left,
        width=round(axis.share(high) - left, 2),
        dot=axis.share(score.value),
    )


def panels_of(curves: Sequence[Curves], *, scores: dict[str, dict[str, Score | None]]) -> tuple[Panel, ...]:
    """ROC, precision-recall and calibration per class; `scores` by class and name, for the notes."""
    return tuple(_panel(one, scores[one.name]) for one in curves)


def _panel(curves: Curves, scores: dict[str, Score | None]) -> Panel:
    told = [f"{WORDS[name]} {number(one)}" for name, one in scores.items() if one is not None]
    first = scores["auroc"]
    share = None
    if first is not None and first.num_positive is not None and first.num_negative is not None:
        share = first.num_positive / max(1, first.num_positive + first.num_negative)
        told.append(f"{first.num_positive:,} of {first.num_positive + first.num_negative:,}")
    plots = [
        Plot("ROC", "1 - specificity", "sensitivity", _line(curves.roc), (), diagonal=True),
        Plot(
            "precision and recall",
            "recall",
            "precision",
            _line(curves.precision_recall),
            (),
            diagonal=False,
            base=None if share is None else round(SIDE * (1 - share), 2),
        ),
    ]
    if len(curves.calibration):
        dots = tuple(_place(point) for point in curves.calibration)
        plots.append(Plot("calibration", "probability", "share", _line(curves.calibration), dots, diagonal=True))
    return Panel(curves.name, ", ".join(told), tuple(plots))


def _line(points: Points) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in map(_place, points))


def _place(point: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> tuple[float, float]:
    return round(SIDE * float(point[0]), 2), round(SIDE * (1 - float(point[1])), 2)
