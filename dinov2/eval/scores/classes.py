"""Predictions of several classes -> one question of yes or no per class, and where its threshold lies.

In: `Predictions`. Out: a `ClassView` per class (multiclass: one against the rest), thresholds chosen on validation.

Legend: N pictures, n of them with a known label, C classes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dinov2.eval.outcome import Predictions
from dinov2.eval.scores.ranks import best_threshold

HALF = 0.5


@dataclass(frozen=True)
class ClassView:
    """One class of some pictures."""

    name: str
    rows: NDArray[np.int64]  # [n] pictures that count
    labels: NDArray[np.bool_]  # [n]
    scores: NDArray[np.float32]  # [n]
    said: NDArray[np.bool_] | None  # [n] the answer at the threshold, multiclass: the likeliest; None: no threshold

    @property
    def num_positive(self) -> int:
        return int(self.labels.sum())

    @property
    def num_negative(self) -> int:
        return len(self.labels) - self.num_positive

    @property
    def scored(self) -> bool:
        """Whether there is something to tell apart, by scores that are numbers."""
        return bool(self.num_positive and self.num_negative and not np.isnan(self.scores).any())


@dataclass(frozen=True)
class Thresholds:
    """At or above its value a class is said to be there; `origin` tells where the values come from."""

    values: Mapping[str, float]
    origin: str


def known_rows(said: Predictions) -> NDArray[np.bool_]:
    """[N] (multiclass) or [N, C]: whether the label is known."""
    return ~np.isnan(said.labels) & (said.labels >= 0)


def choose_thresholds(said: Predictions, *, validation: Predictions | None) -> Thresholds:
    """Where F1 is highest on validation; 0.5 where there is none, or where it lacks the class.

    A class has no value where scores are no probabilities and validation cannot tell. Multiclass needs none.
    """
    if said.task == "multiclass":
        return Thresholds({}, "the likeliest class")
    half = dict.fromkeys(said.classes, HALF) if said.calibrated else {}
    if validation is None:
        return Thresholds(half, "0.5" if half else "")
    best = {view.name: best_threshold(view.labels, view.scores) for view in class_views(validation)}
    chosen = {name: value for name, value in best.items() if not np.isnan(value)}
    left = [name for name in half if name not in chosen]
    note = f"; 0.5 for {', '.join(left)}, which validation lacks" if left else ""
    return Thresholds(half | chosen, "where F1 is highest on validation" + note)


def class_views(
    said: Predictions, *, thresholds: Thresholds | None = None, rows: NDArray[np.int64] | None = None
) -> Iterator[ClassView]:
    """Class by class, of all pictures or of some."""
    taken = np.arange(len(said.ids)) if rows is None else rows
    known = known_rows(said)
    likeliest = _likeliest(said) if said.task == "multiclass" else None
    for i, name in enumerate(said.classes):
        if likeliest is not None:
            counted = taken[known[taken]]
            answer = likeliest[counted] == i
            yield ClassView(name, counted, said.labels[counted] == i, said.scores[counted, i], answer)
            continue
        counted = taken[known[taken, i]]
        scores = said.scores[counted, i]
        bar = thresholds.values.get(name) if thresholds else None
        yield ClassView(
            name, counted, said.labels[counted, i] > HALF, scores, None if bar is None else scores >= np.float32(bar)
        )


def likeliest_is_right(said: Predictions, *, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """[n] of pictures with known labels: whether the class of the highest score is the true one."""
    right: NDArray[np.bool_] = _likeliest(said)[rows] == said.labels[rows]
    return right


def _likeliest(said: Predictions) -> NDArray[np.int64]:
    """[N] the class of the highest score, -1 where a score is NaN: that is no answer."""
    return np.where(np.isnan(said.scores).any(axis=1), -1, said.scores.argmax(axis=1)).astype(np.int64)
