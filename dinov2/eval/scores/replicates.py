"""Scores of a sample and of its bootstrap replicates, all at once.

In: values per score, class and replicate. Out: intervals, and means over classes that name what they leave out.

Legend: S scores, C classes, D replicates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dinov2.eval.scores.draws import Interval, interval

MACRO = "macro"  # the row over all classes
LESS_IS_BETTER = frozenset({"calibration_error", "hausdorff95"})


@dataclass(frozen=True, kw_only=True)
class Replicates:
    """`values[:, :, 0]` is the sample, the others are replicates; NaN where a score is not defined."""

    names: tuple[str, ...]  # of the scores
    classes: tuple[str, ...]  # C + 1, the last being `MACRO`
    values: NDArray[np.float64]  # [S, C + 1, 1 + D]
    num_positive: Mapping[str, int]  # pictures per class
    num_negative: Mapping[str, int]
    num_cases: Mapping[str, int]  # pictures of the rarer kind; segmentation: with the class
    absent: tuple[str, ...]  # classes without positives or without negatives: in no mean
    num_pictures: int
    num_patients: int

    def of(self, name: str, class_name: str) -> NDArray[np.float64]:
        """[1 + D]"""
        values: NDArray[np.float64] = self.values[self.names.index(name), self.classes.index(class_name)]
        return values

    def interval(self, name: str, class_name: str) -> Interval:
        """Of one score of one class."""
        return interval(self.of(name, class_name))

    def mean_over(self, name: str, classes: Sequence[str]) -> NDArray[np.float64]:
        """[1 + D] over some classes, see `macro_of`."""
        places = [self.classes.index(one) for one in classes]
        return macro_of(self.values[self.names.index(name), places])


def macro_of(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean over classes [C, 1 + D] -> [1 + D].

    Where a replicate has no positives (or negatives) of a class, the class counts with its value in the sample: leaving
    it out would shift the mean. NaN where a replicate has no class at all, and everywhere if a class has no value in
    the sample itself: which classes count is decided before.
    """
    if not len(values) or np.isnan(values[:, 0]).any():
        return np.full(values.shape[1], np.nan)
    known = np.isfinite(values)
    mean = np.where(known, values, values[:, :1]).mean(axis=0)
    return np.where(known.any(axis=0), mean, np.nan)
