"""The door probes -> scores and tables: what a probe predicted, and how its settings were chosen.

In: numbers. Out: `Predictions` or `Segmentations` of a split, in an `Outcome`.

Legend: N pictures (or volumes), C classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinov2.eval.examples import Task


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """Scores of a classification, beside the truth."""

    task: Task  # multilabel or multiclass
    classes: tuple[str, ...]
    ids: NDArray[np.str_]  # [N]
    patients: NDArray[np.str_]  # [N]
    labels: NDArray[np.float32]  # multilabel [N, C] of 1, 0, NaN (not counted); multiclass [N] index
    scores: NDArray[np.float32]  # [N, C] probabilities, or any score of which more is likelier
    groups: Mapping[str, NDArray[np.str_]] = field(default_factory=dict)  # column -> [N], empty text: not known
    calibrated: bool = True  # whether scores are probabilities, so that a calibration error means something


@dataclass(frozen=True, kw_only=True)
class Segmentations:
    """Overlap of predicted and true masks, per picture and class, in pixels of the compared masks."""

    classes: tuple[str, ...]  # without background
    ids: NDArray[np.str_]  # [N]
    patients: NDArray[np.str_]  # [N]
    true_positives: NDArray[np.int64]  # [N, C]
    false_positives: NDArray[np.int64]  # [N, C]; on background too
    false_negatives: NDArray[np.int64]  # [N, C]
    hausdorff95: NDArray[np.float32]  # [N, C], in pixels; NaN where either mask is empty
    groups: Mapping[str, NDArray[np.str_]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A probe's run. Settings were chosen by `metric` on validation; test was looked at once, afterwards."""

    probe: str  # knn, logreg, linear ...
    backbone: str
    dataset: str
    settings: Mapping[str, Any]  # what was asked for: sizes, epochs, seeds, policies
    metric: str  # that chose, e.g. macro_auroc
    chosen: Mapping[str, Any]  # the candidate that won
    trail: tuple[Mapping[str, Any], ...]  # every candidate with its validation score under `metric`
    fitted_on: str  # "train + val", "train"
    counts: Mapping[str, int]  # pictures per split
    val: Predictions | Segmentations | None  # of the chosen candidate fitted on train alone
    test: Predictions | Segmentations | None  # of the final fit
