"""A split's predictions -> every score with its interval, in rows; by group; with gaps; and what is to be remarked.

In: `Predictions` or `Segmentations`. Out: a `Scorecard`, plain numbers and words, which tables show and files keep.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dinov2.eval.outcome import Predictions, Segmentations
from dinov2.eval.scores.classes import Thresholds, choose_thresholds
from dinov2.eval.scores.classification import SPECIFICITY, replicate_predictions
from dinov2.eval.scores.draws import Interval, PatientDraws
from dinov2.eval.scores.replicates import MACRO, Replicates
from dinov2.eval.scores.segmentation import num_without_distance, replicate_segmentations
from dinov2.eval.scores.subgroups import MIN_CASES, MOST_GROUPS, Gap, gap, grouped

GAP_SCORES = (
    "auroc",
    "auprc",
    "f1",
    "sensitivity_at_specificity",
    "sensitivity",
    "specificity",
    "accuracy",
    "balanced_accuracy",
    "dice",
    "iou",
)


@dataclass(frozen=True, kw_only=True)
class Score:
    """A row: one score of one class, of all pictures or of a group."""

    class_name: str  # `MACRO`: over all classes
    column: str = ""  # of the group; empty: all pictures
    group: str = ""
    name: str
    value: float
    low: float
    high: float
    num_positive: int | None  # pictures; None for macro
    num_negative: int | None

    @property
    def interval(self) -> Interval:
        return Interval(self.value, self.low, self.high)


@dataclass(frozen=True, kw_only=True)
class GroupSize:
    """How many are in a group."""

    column: str
    group: str
    num_pictures: int
    num_patients: int


@dataclass(frozen=True, kw_only=True)
class Scorecard:
    """Of one split."""

    scores: tuple[Score, ...]
    groups: tuple[GroupSize, ...]
    gaps: tuple[Gap, ...]
    absent: tuple[str, ...]  # classes in no mean
    thresholds: Mapping[str, float]
    threshold_origin: str
    num_pictures: int
    num_patients: int
    draws: int
    seed: int
    remarks: tuple[str, ...]

    def find(self, name: str, class_name: str = MACRO, *, column: str = "", group: str = "") -> Score | None:
        """One row, None where there is none."""
        wanted = (name, class_name, column, group)
        return next((s for s in self.scores if (s.name, s.class_name, s.column, s.group) == wanted), None)

    def names(self) -> tuple[str, ...]:
        """Scores that have a value somewhere, in their order."""
        return tuple(dict.fromkeys(score.name for score in self.scores if math.isfinite(score.value)))


def score(
    said: Predictions | Segmentations,
    *,
    validation: Predictions | Segmentations | None = None,
    draws: int = 1000,
    seed: int = 0,
) -> Scorecard:
    """Everything there is to say of a split; `validation` gives thresholds where `said` is of another split."""
    drawn = PatientDraws.of(said.patients, draws=draws, seed=seed)
    thresholds = Thresholds({}, "")
    if isinstance(said, Predictions):
        thresholds = choose_thresholds(said, validation=validation if isinstance(validation, Predictions) else None)
    whole = _replicate(said, drawn, thresholds, rows=None)
    rows, remarks = list(_rows(whole)), list(_remarks(said, whole, thresholds))
    sizes: list[GroupSize] = []
    gaps: list[Gap] = []
    for column, values in said.groups.items():
        members = grouped(column, values)
        if not members:
            remarks.append(_why_not_grouped(column, len(np.unique(values[values != ""]))))
        made = {name: _replicate(said, drawn, thresholds, rows=rows_of) for name, rows_of in members.items()}
        for name, one in made.items():
            rows += _rows(one, column=column, group=name)
            sizes.append(
                GroupSize(column=column, group=name, num_pictures=one.num_pictures, num_patients=one.num_patients)
            )
        gaps += _gaps(made, column)
    return Scorecard(
        scores=tuple(rows),
        groups=tuple(sizes),
        gaps=tuple(gaps),
        absent=whole.absent,
        thresholds=thresholds.values,
        threshold_origin=thresholds.origin,
        num_pictures=whole.num_pictures,
        num_patients=whole.num_patients,
        draws=draws,
        seed=seed,
        remarks=tuple(remarks),
    )


def _replicate(
    said: Predictions | Segmentations, drawn: PatientDraws, thresholds: Thresholds, *, rows: NDArray[np.int64] | None
) -> Replicates:
    if isinstance(said, Predictions):
        return replicate_predictions(said, draws=drawn, thresholds=thresholds, rows=rows)
    return replicate_segmentations(said, draws=drawn, rows=rows)


def _rows(one: Replicates, *, column: str = "", group: str = "") -> Iterator[Score]:
    for class_name in one.classes:
        for name in one.names:
            value, low, high = one.interval(name, class_name)
            yield Score(
                class_name=class_name,
                column=column,
                group=group,
                name=name,
                value=value,
                low=low,
                high=high,
                num_positive=one.num_positive.get(class_name),
                num_negative=one.num_negative.get(class_name),
            )


def _gaps(made: Mapping[str, Replicates], column: str) -> Iterator[Gap]:
    if not made:
        return
    first = next(iter(made.values()))
    for name in (name for name in GAP_SCORES if name in first.names):
        for class_name in (MACRO, *first.classes[:-1]):
            found = gap(made, column=column, name=name, class_name=class_name)
            if found is not None:
                yield found


def _remarks(said: Predictions | Segmentations, whole: Replicates, thresholds: Thresholds) -> Iterator[str]:
    if whole.absent and isinstance(said, Predictions):
        yield (
            f"not in the mean over classes: {', '.join(whole.absent)} (no pictures with it, or none without it, have a "
            "known label)."
        )
    few = [f"{name} {count}" for name, count in whole.num_cases.items() if 0 < count < MIN_CASES]
    if few:
        yield f"too few pictures for an interval to be trusted (under {MIN_CASES} of a kind): {', '.join(few)}."
    if isinstance(said, Segmentations):
        if whole.absent:
            yield f"not in the mean over classes: {', '.join(whole.absent)} (in no mask and no prediction)."
        left = {name: count for name, count in num_without_distance(said).items() if count}
        if left:
            counts = ", ".join(f"{name} {count}" for name, count in left.items())
            yield f"HD95 leaves out pictures where only one of the two masks is empty: {counts}."
        return
    broken = [name for i, name in enumerate(said.classes) if np.isnan(said.scores[:, i]).any()]
    if broken:
        yield f"scores that are no numbers: {', '.join(broken)}; nothing is said of them."
    if not said.calibrated:
        yield "the scores are no probabilities: there is no calibration error."
    if thresholds.origin:
        yield f"threshold of F1, sensitivity, specificity and accuracy: {thresholds.origin}."
    else:
        yield "no F1 and accuracy: the scores are no probabilities, and no validation split says where to cut."
    yield f"sensitivity_at_specificity is at a specificity of {SPECIFICITY:g}, its threshold chosen on this very split."


def _why_not_grouped(column: str, num_values: int) -> str:
    if num_values == 0:
        return f"by {column}: not known of any picture."
    if num_values == 1:
        return f"by {column}: all pictures have the same value."
    return (
        f"by {column}: not scored; {num_values} values are more than {MOST_GROUPS}, or ages of one band or no numbers."
    )
