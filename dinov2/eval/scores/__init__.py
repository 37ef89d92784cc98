"""Predictions -> numbers, per class and over classes, with intervals by patient."""

from dinov2.eval.scores.comparison import Difference, Side, compare
from dinov2.eval.scores.draws import Interval, PatientDraws, interval, mean_interval
from dinov2.eval.scores.metrics import METRICS, macro_auroc
from dinov2.eval.scores.overlap import Overlap, hausdorff95, mean_dice, overlap
from dinov2.eval.scores.ranks import auprc, auroc, best_threshold, sensitivity_at_specificity
from dinov2.eval.scores.replicates import MACRO
from dinov2.eval.scores.retrieval import found_at_k, precise_at_k, precision_at_k, recall_at_k
from dinov2.eval.scores.scorecard import Score, Scorecard, score
from dinov2.eval.scores.subgroups import Gap, age_bands

__all__ = [
    "MACRO",
    "METRICS",
    "Difference",
    "Gap",
    "Interval",
    "Overlap",
    "PatientDraws",
    "Score",
    "Scorecard",
    "Side",
    "age_bands",
    "auprc",
    "auroc",
    "best_threshold",
    "compare",
    "found_at_k",
    "hausdorff95",
    "interval",
    "macro_auroc",
    "mean_dice",
    "mean_interval",
    "overlap",
    "precise_at_k",
    "precision_at_k",
    "recall_at_k",
    "score",
    "sensitivity_at_specificity",
]
