"""The one number by which settings are chosen.

In: `Predictions`. Out: a float, more being better; NaN where there is nothing to score or a fit diverged.

Means over classes leave out a class without positives or without negatives (torchmetrics counts it as 0 in a macro
AUROC). A class whose scores are NaN makes the mean NaN: a fit that diverged does not win by losing classes.
"""

from collections.abc import Callable, Mapping

import numpy as np

from dinov2.eval.outcome import Predictions
from dinov2.eval.scores.classes import ClassView, choose_thresholds, class_views, known_rows, likeliest_is_right
from dinov2.eval.scores.ranks import auprc, auroc, sensitivity_at_specificity

Metric = Callable[[Predictions], float]


def macro_auroc(said: Predictions) -> float:
    """Mean AUROC of the classes that have positives and negatives; multiclass: each against the rest."""
    return _macro(said, lambda view: auroc(view.labels, view.scores))


def macro_auprc(said: Predictions) -> float:
    """Mean average precision of the classes that have positives and negatives."""
    return _macro(said, lambda view: auprc(view.labels, view.scores))


def macro_sensitivity(said: Predictions) -> float:
    """Mean of the sensitivities at a specificity of 0.9."""
    return _macro(said, lambda view: sensitivity_at_specificity(view.labels, view.scores))


def macro_f1(said: Predictions) -> float:
    """Mean F1: multiclass of the likeliest class, multi-label at the threshold that is best on these predictions.

    That is what validation is for, see `choose_thresholds`; of test predictions it would be too good.
    """
    return _macro(said, f1_of)


def accuracy(said: Predictions) -> float:
    """Multiclass: share of pictures whose likeliest class is right. Multi-label: mean over classes, at 0.5, or where
    scores are no probabilities at the threshold of `macro_f1`."""
    if said.task == "multiclass":
        rows = np.flatnonzero(known_rows(said))
        broken = np.isnan(said.scores[rows]).any()
        return float(likeliest_is_right(said, rows=rows).mean()) if len(rows) and not broken else float("nan")
    return _macro(said, lambda view: float(np.mean(view.said == view.labels)), at_half=True)


def balanced_accuracy(said: Predictions) -> float:
    """Multiclass: mean sensitivity of the classes that occur. Multi-label: mean over classes of the mean of sensitivity
    and specificity, at the thresholds of `accuracy`."""
    return _macro(said, sensitivity_of if said.task == "multiclass" else balance_of, at_half=True)


def f1_of(view: ClassView) -> float:
    """2 TP / (2 TP + FP + FN) of a class that has positives."""
    assert view.said is not None
    return float(2 * (view.said & view.labels).sum() / (view.said.sum() + view.labels.sum()))


def sensitivity_of(view: ClassView) -> float:
    """Share of positives that are found."""
    assert view.said is not None
    return float(view.said[view.labels].mean())


def balance_of(view: ClassView) -> float:
    """Mean of sensitivity and specificity."""
    assert view.said is not None
    return (sensitivity_of(view) + float((~view.said[~view.labels]).mean())) / 2


METRICS: Mapping[str, Metric] = {
    "macro_auroc": macro_auroc,
    "macro_auprc": macro_auprc,
    "macro_f1": macro_f1,
    "macro_sensitivity_at_specificity": macro_sensitivity,
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
}
"""By name; each of more is better."""


def _macro(said: Predictions, score: Callable[[ClassView], float], *, at_half: bool = False) -> float:
    own = None if at_half and said.calibrated else said
    values = []
    for view in class_views(said, thresholds=choose_thresholds(said, validation=own)):
        if np.isnan(view.scores).any():
            return float("nan")
        if view.scored:
            values.append(score(view))
    return float(np.mean(values)) if values else float("nan")
