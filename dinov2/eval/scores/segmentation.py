"""Overlaps of many pictures -> Dice, IoU and HD95 per class and over classes, of the sample and of its replicates.

In: `Segmentations`, draws of patients. Out: `Replicates`.

Dice and IoU come twice: as means over the pictures in which a class is (in the truth or in the prediction), and pooled,
that is from the pixels of all pictures together. HD95 is a mean over the pictures in which both masks are there.
"""

import numpy as np
from numpy.typing import NDArray

from dinov2.eval.outcome import Segmentations
from dinov2.eval.scores.draws import PatientDraws
from dinov2.eval.scores.overlap import dice_of, iou_of
from dinov2.eval.scores.replicates import MACRO, Replicates, macro_of

Floats = NDArray[np.float64]
SCORES = ("dice", "iou", "pooled_dice", "pooled_iou", "hausdorff95")


def replicate_segmentations(
    said: Segmentations, *, draws: PatientDraws, rows: NDArray[np.int64] | None = None
) -> Replicates:
    """All of `SCORES`, of all pictures or of some. A class that is in no truth and no prediction is absent."""
    taken = np.arange(len(said.ids)) if rows is None else rows
    sums = [_sums(said, i, draws, taken) for i in range(len(said.classes))]
    values = np.full((len(SCORES), len(sums) + 1, 1 + draws.draws), np.nan)
    done = 0
    for weights in draws.chunks():
        part = slice(done, done + weights.shape[1])
        for i, of_class in enumerate(sums):
            values[:, i, part] = _scores(of_class @ weights)
        done += weights.shape[1]
    there = [i for i in range(len(sums)) if not np.isnan(values[0, i, 0])]
    for i in range(len(SCORES)):
        known = [j for j in there if SCORES[i] != "hausdorff95" or not np.isnan(values[i, j, 0])]
        values[i, -1] = macro_of(values[i, known])
    in_truth = (said.true_positives + said.false_negatives)[taken] > 0
    return Replicates(
        names=SCORES,
        classes=(*said.classes, MACRO),
        values=values,
        num_positive={name: int(in_truth[:, i].sum()) for i, name in enumerate(said.classes)},
        num_negative={name: int((~in_truth[:, i]).sum()) for i, name in enumerate(said.classes)},
        num_cases={name: int(in_truth[:, i].sum()) for i, name in enumerate(said.classes)},
        absent=tuple(name for i, name in enumerate(said.classes) if i not in there),
        num_pictures=len(taken),
        num_patients=len(np.unique(draws.units[taken])),
    )


def num_without_distance(said: Segmentations) -> dict[str, int]:
    """Pictures per class in which only one of the two masks is empty, so that there is no distance.

    All 0 where distances were not measured.
    """
    if np.isnan(said.hausdorff95).all():
        return dict.fromkeys(said.classes, 0)
    predicted, true = said.true_positives + said.false_positives > 0, said.true_positives + said.false_negatives > 0
    return dict(zip(said.classes, (predicted != true).sum(axis=0).tolist(), strict=True))


def _sums(said: Segmentations, i: int, draws: PatientDraws, rows: NDArray[np.int64]) -> Floats:
    """[9, P] what patients add: Dice, IoU, HD95 and how many pictures have each; true and false pixels."""
    columns = []
    for values in (dice_of(said)[rows, i], iou_of(said)[rows, i], said.hausdorff95[rows, i].astype(np.float64)):
        columns += [np.nan_to_num(values), ~np.isnan(values)]
    columns += [counts[rows, i] for counts in (said.true_positives, said.false_positives, said.false_negatives)]
    units = draws.units[rows]
    return np.stack([np.bincount(units, weights=column, minlength=draws.num_patients) for column in columns])


def _scores(sums: Floats) -> Floats:
    """[9, d] -> [5, d]"""
    dice, num_dice, iou, num_iou, far, num_far, tp, fp, fn = sums
    return np.stack(
        [
            _ratio(dice, num_dice),
            _ratio(iou, num_iou),
            _ratio(2 * tp, 2 * tp + fp + fn),
            _ratio(tp, tp + fp + fn),
            _ratio(far, num_far),
        ]
    )


def _ratio(over: Floats, under: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(under > 0, over / under, np.nan)
