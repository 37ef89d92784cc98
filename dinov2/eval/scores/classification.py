"""Predictions -> every score per class and over classes, of the sample and of its replicates.

In: `Predictions`, draws of patients, thresholds. Out: `Replicates`.

Legend: N pictures, P patients, d replicates of a chunk, B bins of a calibration.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from dinov2.eval.outcome import Predictions
from dinov2.eval.scores.classes import ClassView, Thresholds, class_views, known_rows, likeliest_is_right
from dinov2.eval.scores.draws import PatientDraws
from dinov2.eval.scores.ranks import Ranking
from dinov2.eval.scores.replicates import MACRO, Replicates, macro_of

Floats = NDArray[np.float64]
SPECIFICITY = 0.9
BINS = 15
SCORES = (
    "auroc",
    "auprc",
    "f1",
    "sensitivity_at_specificity",
    "sensitivity",
    "specificity",
    "accuracy",
    "balanced_accuracy",
    "calibration_error",
)
OVER_PICTURES = ("accuracy", "balanced_accuracy", "calibration_error")  # multiclass: not of a class


def replicate_predictions(
    said: Predictions,
    *,
    draws: PatientDraws,
    thresholds: Thresholds,
    specificity: float = SPECIFICITY,
    rows: NDArray[np.int64] | None = None,
) -> Replicates:
    """All of `SCORES`, of all pictures or of some, patients drawn from all in either case.

    Calibration error is the expected one over `BINS` bins of equal width (Naeini et al. 2015), per class of yes or no;
    over classes their mean, multiclass that of the likeliest class (Guo et al. 2017). NaN where scores are no
    probabilities. Multiclass `accuracy` and `balanced_accuracy` are over pictures and have no value per class.
    """
    taken = np.arange(len(said.ids)) if rows is None else rows
    views = list(class_views(said, thresholds=thresholds, rows=taken))
    present = [view for view in views if view.num_positive and view.num_negative]
    jobs = {
        said.classes.index(view.name): _ClassJob.of(view, draws, calibrated=said.calibrated)
        for view in present
        if view.scored
    }
    overall = _OverallJob.of(said, draws, rows=taken) if said.task == "multiclass" else None
    values = np.full((len(SCORES), len(views) + 1, 1 + draws.draws), np.nan)
    done = 0
    for weights in draws.chunks():
        part = slice(done, done + weights.shape[1])
        for place, job in jobs.items():
            values[:, place, part] = job.scores(weights, specificity=specificity)
        if overall is not None:
            values[[SCORES.index("accuracy"), SCORES.index("calibration_error")], -1, part] = overall.scores(weights)
        done += weights.shape[1]
    places = [said.classes.index(view.name) for view in present]
    for i, name in enumerate(SCORES):
        if overall is None or name not in OVER_PICTURES:
            values[i, -1] = macro_of(values[i, places])
    if overall is not None:
        values[SCORES.index("balanced_accuracy"), -1] = macro_of(values[SCORES.index("sensitivity"), places])
        values[[SCORES.index(name) for name in OVER_PICTURES], :-1] = np.nan
    counted = np.unique(np.concatenate([view.rows for view in views])) if views else taken[:0]
    return Replicates(
        names=SCORES,
        classes=(*said.classes, MACRO),
        values=values,
        num_positive={view.name: view.num_positive for view in views},
        num_negative={view.name: view.num_negative for view in views},
        num_cases={view.name: min(view.num_positive, view.num_negative) for view in views},
        absent=tuple(view.name for view in views if view not in present),
        num_pictures=len(counted),
        num_patients=len(np.unique(draws.units[counted])),
    )


@dataclass(frozen=True)
class _ClassJob:
    """What a class needs to be scored under any weights."""

    ranking: Ranking
    answers: csr_array | None  # [4, P] true and false positives, false and true negatives
    gaps: csr_array | None  # [B, P] score minus label, summed

    @classmethod
    def of(cls, view: ClassView, draws: PatientDraws, *, calibrated: bool) -> "_ClassJob":
        units, num = draws.units[view.rows], draws.num_patients
        answers = None
        if view.said is not None:
            cell = np.where(view.said, np.where(view.labels, 0, 1), np.where(view.labels, 2, 3))
            answers = csr_array((np.ones(len(cell)), (cell, units)), shape=(4, num))
        gaps = _gaps(view.scores, view.labels, units, num) if calibrated else None
        return cls(Ranking.of(view.labels, view.scores, units=units, num_units=num), answers, gaps)

    def scores(self, weights: Floats, *, specificity: float) -> Floats:
        """[S, d]"""
        counted = self.ranking.counted(weights)
        both = (counted.num_positive > 0) & (counted.num_negative > 0)
        values = np.full((len(SCORES), weights.shape[1]), np.nan)
        values[0] = counted.auroc()
        values[1] = counted.average_precision()
        values[3] = counted.sensitivity_at(specificity)
        num = np.maximum(counted.num_positive + counted.num_negative, 1)
        if self.answers is not None:
            tp, fp, fn, tn = np.asarray(self.answers @ weights)
            positive, negative = np.maximum(tp + fn, 1), np.maximum(fp + tn, 1)
            values[2] = 2 * tp / np.maximum(2 * tp + fp + fn, 1)
            values[4], values[5] = tp / positive, tn / negative
            values[6] = (tp + tn) / num
            values[7] = (values[4] + values[5]) / 2
        if self.gaps is not None:
            values[8] = np.abs(np.asarray(self.gaps @ weights)).sum(axis=0) / num
        values[:, ~both] = np.nan
        return values


@dataclass(frozen=True)
class _OverallJob:
    """Of a multiclass problem: is the likeliest class right, and is it as sure as it should be?"""

    right: csr_array  # [2, P] right ones, all
    gaps: csr_array | None

    @classmethod
    def of(cls, said: Predictions, draws: PatientDraws, *, rows: NDArray[np.int64]) -> "_OverallJob":
        counted = rows[known_rows(said)[rows]]
        right, units = likeliest_is_right(said, rows=counted), draws.units[counted]
        cells = np.concatenate([np.zeros(int(right.sum())), np.ones(len(right))]).astype(np.int64)
        tally = csr_array(
            (np.ones(len(cells)), (cells, np.concatenate([units[right], units]))), shape=(2, draws.num_patients)
        )
        sure = said.scores[counted].max(axis=1, initial=0.0)
        broken = np.isnan(sure).any()
        if broken:
            tally = tally * np.nan
        calibrated = said.calibrated and not broken
        return cls(tally, _gaps(sure, right, units, draws.num_patients) if calibrated else None)

    def scores(self, weights: Floats) -> Floats:
        """[2, d] accuracy, calibration error"""
        right, num = np.asarray(self.right @ weights)
        with np.errstate(invalid="ignore"):
            num = np.where(num > 0, num, np.nan)
        off = np.full_like(right, np.nan)
        if self.gaps is not None:
            off = np.abs(np.asarray(self.gaps @ weights)).sum(axis=0) / num
        return np.stack([right / num, off])


def _gaps(
    scores: NDArray[np.float32], labels: NDArray[np.bool_], units: NDArray[np.int64], num_units: int
) -> csr_array:
    """Sums of (score - label) by bin [B, P]: |weighted sum| over the bins is the calibration error times the weight."""
    bins = bin_of(scores)
    return csr_array((scores.astype(np.float64) - labels, (bins, units)), shape=(BINS, num_units))


def bin_of(scores: NDArray[np.floating]) -> NDArray[np.int64]:
    """Which of `BINS` bins of equal width a probability is in; an edge belongs to the bin above, 1 to the last."""
    return np.clip(np.floor(scores.astype(np.float64) * BINS), 0, BINS - 1).astype(np.int64)
