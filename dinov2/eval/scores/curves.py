"""Predictions of a class -> points of its ROC curve, precision-recall curve and calibration, thinned for drawing.

In: a `ClassView`. Out: arrays of points from 0 to 1.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dinov2.eval.outcome import Predictions
from dinov2.eval.scores.classes import ClassView, class_views
from dinov2.eval.scores.classification import BINS, bin_of
from dinov2.eval.scores.ranks import Ranking

Points = NDArray[np.float64]
MOST_POINTS = 160
FEWEST = 5  # pictures of a bin that is drawn


@dataclass(frozen=True)
class Curves:
    """Of one class."""

    name: str
    roc: Points  # [., 2] false positive rate, sensitivity
    precision_recall: Points  # [., 2] recall, precision
    calibration: Points  # [., 2] mean probability, share of positives, in bins of at least `FEWEST` pictures


def curves_of(said: Predictions) -> tuple[Curves, ...]:
    """Of the classes that can be scored."""
    return tuple(_curves(view, calibrated=said.calibrated) for view in class_views(said) if view.scored)


def _curves(view: ClassView, *, calibrated: bool) -> Curves:
    units = np.zeros(len(view.rows), dtype=np.int64)
    counted = Ranking.of(view.labels, view.scores, units=units, num_units=1).counted(np.ones((1, 1)))
    true, false = counted.true[:, 0], counted.false[:, 0]
    before = counted.false_before[:, 0]
    corners = np.stack(  # a threshold brings a step to the right, then a slope of what is tied with it
        [np.stack([before, np.concatenate([[0.0], true[:-1]])], axis=1), np.stack([false, true], axis=1)], axis=1
    ).reshape(-1, 2)
    roc = np.concatenate([[[0.0, 0.0]], corners / [view.num_negative, view.num_positive], [[1.0, 1.0]]])
    precise = np.stack([true / view.num_positive, true / (true + false)], axis=1)
    precise = np.concatenate([[[0.0, precise[0, 1]]], precise])
    return Curves(view.name, _thinned(roc), _thinned(precise), _calibration(view) if calibrated else np.zeros((0, 2)))


def _calibration(view: ClassView) -> Points:
    bins = bin_of(view.scores)
    counts = np.bincount(bins, minlength=BINS)
    kept = counts >= FEWEST
    sums = np.stack(
        [np.bincount(bins, weights=values, minlength=BINS) for values in (view.scores, view.labels)], axis=1
    )
    return np.asarray(sums[kept] / counts[kept, None])


def _thinned(points: Points) -> Points:
    if len(points) <= MOST_POINTS:
        return points
    return points[np.unique(np.linspace(0, len(points) - 1, MOST_POINTS).astype(np.int64))]
