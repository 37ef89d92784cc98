"""Scores that look only at the order: AUROC, average precision, sensitivity at a specificity, the best F1.

In: labels and scores of one class. Out: a `Ranking`, sorted once, from which every score is read for many weightings of
the patients at a time: a bootstrap replicate is a column of weights, no row is ever copied.

Legend: N pictures, P patients, D weightings, G distinct scores of positives.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array

Floats = NDArray[np.float64]
SLACK = 1e-9  # of a rate that was computed from sums


@dataclass(frozen=True)
class Ranking:
    """Positives and negatives from the highest score down, between the scores that positives have.

    Only those scores matter: no score of this module changes at a threshold that lets in negatives alone.
    """

    thresholds: Floats  # [G], falling: scores of positives
    positives: csr_array  # [G, P] weight of the positives of a patient at each threshold
    negatives: csr_array  # [2G + 1, P] of negatives: above the first, tied with it, between it and the second ...

    @classmethod
    def of(
        cls,
        labels: NDArray[np.bool_],
        scores: NDArray[np.floating],
        *,
        units: NDArray[np.int64],
        num_units: int,
        weights: Floats | None = None,
    ) -> "Ranking":
        """From labels and finite scores [N], and the patient (index below `num_units`) of each."""
        weights = np.ones(len(labels)) if weights is None else weights
        rising, place = np.unique(scores[labels], return_inverse=True)
        num = len(rising)
        below = np.searchsorted(rising, scores[~labels], side="left")  # positives' scores that are lower
        through = np.searchsorted(rising, scores[~labels], side="right")
        segment = 2 * (num - below) - (through > below)
        return cls(
            thresholds=rising[::-1].astype(np.float64),
            positives=_tally(num - 1 - place, units[labels], weights[labels], shape=(num, num_units)),
            negatives=_tally(segment, units[~labels], weights[~labels], shape=(2 * num + 1, num_units)),
        )

    def counted(self, weights: Floats) -> "Counted":
        """Under weights of the patients [P, D]."""
        true = np.asarray(self.positives @ weights)
        false = np.cumsum(self.negatives @ weights, axis=0)
        return Counted(
            gained=true,
            true=np.cumsum(true, axis=0),
            false_before=false[:-1:2],
            false=false[1::2],
            num_positive=true.sum(axis=0),
            num_negative=false[-1],
        )


@dataclass(frozen=True)
class Counted:
    """Weights of what is at or above each threshold, from the highest down."""

    gained: Floats  # [G, D] positives at the threshold
    true: Floats  # [G, D] positives at or above it
    false_before: Floats  # [G, D] negatives above it
    false: Floats  # [G, D] negatives at or above it
    num_positive: Floats  # [D]
    num_negative: Floats  # [D]

    def auroc(self) -> Floats:
        """[D] chance that a positive scores above a negative, ties one half (Mann-Whitney). NaN: one kind is absent."""
        below = self.num_negative - 0.5 * (self.false + self.false_before)
        return _ratio((self.gained * below).sum(axis=0), self.num_positive * self.num_negative)

    def average_precision(self) -> Floats:
        """[D] sum over thresholds of (gain in recall) x precision, without interpolation, as scikit-learn's."""
        precision = np.nan_to_num(_ratio(self.true, self.true + self.false))
        return self._both(_ratio((self.gained * precision).sum(axis=0), self.num_positive))

    def sensitivity_at(self, specificity: float) -> Floats:
        """[D] the highest sensitivity of a threshold of this very set whose specificity is at least this."""
        allowed = self.false <= (1 - specificity) * self.num_negative * (1 + SLACK) + SLACK
        reached = np.where(allowed, self.true, 0.0).max(axis=0, initial=0.0)
        return self._both(_ratio(reached, self.num_positive))

    def f1(self) -> Floats:
        """[G, D] F1 of "at or above the threshold"."""
        return _ratio(2 * self.true, self.true + self.false + self.num_positive)

    def _both(self, values: Floats) -> Floats:
        return np.where((self.num_positive > 0) & (self.num_negative > 0), values, np.nan)


def auroc(labels: ArrayLike, scores: ArrayLike, *, weights: ArrayLike | None = None) -> float:
    """Area under the ROC curve (Hanley and McNeil 1982), ties counted one half.

    Args:
        labels: [N] 1, 0, or NaN, which is not counted.
        scores: [N] of which more is likelier.
        weights: [N] of the pictures.

    Returns:
        NaN where positives or negatives are absent, or a score is NaN.
    """
    return _one(labels, scores, weights, read=Counted.auroc)


def auprc(labels: ArrayLike, scores: ArrayLike, *, weights: ArrayLike | None = None) -> float:
    """Average precision; arguments and NaN as of `auroc`."""
    return _one(labels, scores, weights, read=Counted.average_precision)


def sensitivity_at_specificity(
    labels: ArrayLike, scores: ArrayLike, *, specificity: float = 0.9, weights: ArrayLike | None = None
) -> float:
    """The highest sensitivity at a specificity of at least this, the threshold chosen on this very set."""
    return _one(labels, scores, weights, read=lambda counted: counted.sensitivity_at(specificity))


def best_threshold(labels: ArrayLike, scores: ArrayLike) -> float:
    """The score at or above which F1 is highest (the highest such score); NaN where a kind is absent."""
    made = _ranking(labels, scores, None)
    if made is None or not len(made.thresholds) or not made.negatives.nnz:
        return float("nan")
    return float(made.thresholds[int(np.argmax(made.counted(np.ones((1, 1))).f1()[:, 0]))])


def _one(
    labels: ArrayLike, scores: ArrayLike, weights: ArrayLike | None, *, read: Callable[[Counted], Floats]
) -> float:
    made = _ranking(labels, scores, weights)
    return float("nan") if made is None else float(read(made.counted(np.ones((1, 1))))[0])


def _ranking(labels: ArrayLike, scores: ArrayLike, weights: ArrayLike | None) -> Ranking | None:
    """Of one unit; None where a score that counts is NaN."""
    truth, said = np.asarray(labels, dtype=np.float64), np.asarray(scores)
    known = ~np.isnan(truth)
    if np.isnan(said[known]).any():
        return None
    return Ranking.of(
        truth[known] > 0.5,
        said[known],
        units=np.zeros(int(known.sum()), dtype=np.int64),
        num_units=1,
        weights=None if weights is None else np.asarray(weights, dtype=np.float64)[known],
    )


def _tally(rows: NDArray[np.int64], columns: NDArray[np.int64], values: Floats, *, shape: tuple[int, int]) -> csr_array:
    return csr_array((values, (rows, columns)), shape=shape)


def _ratio(over: Floats, under: Floats) -> Floats:
    """NaN where there is nothing to divide by."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(under > 0, over / under, np.nan)
