"""Patients drawn with replacement: the replicates of a bootstrap, and intervals from them.

In: the patient of each row. Out: weights of the patients, a column a replicate; percentile intervals.

Pictures of a patient are alike, so patients are drawn and not pictures (a cluster bootstrap; Davison and Hinkley 1997,
3.8). A patient who is drawn twice weighs two.

Legend: N rows, P patients, D replicates.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

CHUNK = 32  # so that a class's sums stay in the processor's cache
LEVEL = 0.95


class Interval(NamedTuple):
    """A value and where 95 in 100 replicates lie; NaN where it cannot be told."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class PatientDraws:
    """The same patients, draws and seed give the same weights, so two results are compared replicate by replicate."""

    units: NDArray[np.int64]  # [N] index of the row's patient, patients in the order of their names
    num_patients: int
    draws: int
    seed: int

    @classmethod
    def of(cls, patients: ArrayLike, *, draws: int, seed: int) -> "PatientDraws":
        """For the patients [N] of the rows."""
        names, units = np.unique(np.asarray(patients, dtype=np.str_), return_inverse=True)
        return cls(units=units.astype(np.int64), num_patients=len(names), draws=draws, seed=seed)

    def chunks(self) -> Iterator[NDArray[np.float64]]:
        """Weights [P, d], d at most `CHUNK`; 1 + `draws` columns in all. The first is all ones: the sample itself."""
        rng = np.random.default_rng(self.seed)
        column = np.ones(self.num_patients)
        pending = [column]
        for _ in range(self.draws if self.num_patients else 0):
            drawn = rng.integers(self.num_patients, size=self.num_patients)
            pending.append(np.bincount(drawn, minlength=self.num_patients).astype(np.float64))
            if len(pending) == CHUNK:
                yield np.stack(pending, axis=1)
                pending = []
        if pending:
            yield np.stack(pending, axis=1)


def interval(values: NDArray[np.float64]) -> Interval:
    """From [1 + D], the sample first: a percentile interval over the replicates that have a value.

    NaN limits where fewer than half of the replicates have one.
    """
    point, replicates = float(values[0]), values[1:]
    known = replicates[np.isfinite(replicates)]
    if np.isnan(point) or not len(known) or 2 * len(known) < len(replicates):
        return Interval(point, float("nan"), float("nan"))
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(point, float(low), float(high))


def mean_interval(values: ArrayLike, patients: ArrayLike, *, draws: int = 1000, seed: int = 0) -> Interval:
    """The mean over rows [N] with an interval by patient; NaN rows are not counted."""
    rows = np.asarray(values, dtype=np.float64)
    drawn = PatientDraws.of(patients, draws=draws, seed=seed)
    known = ~np.isnan(rows)
    sums = np.bincount(drawn.units[known], weights=rows[known], minlength=drawn.num_patients)
    counts = np.bincount(drawn.units[known], minlength=drawn.num_patients).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = [(sums @ weights) / (counts @ weights) for weights in drawn.chunks()]
    return interval(np.concatenate(means))
