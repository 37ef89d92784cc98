"""Two results on the same pictures -> which is better, and how sure that is: a paired bootstrap.

In: two `Predictions` (or `Segmentations`) of the same pictures. Out: differences with intervals and p, per class.

Both are scored under the same draws of patients, so what is common to them cancels (Efron and Tibshirani 1993).
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from dinov2.errors import ConfigError
from dinov2.eval.outcome import Predictions, Segmentations
from dinov2.eval.scores.classes import Thresholds, choose_thresholds
from dinov2.eval.scores.classification import replicate_predictions
from dinov2.eval.scores.draws import Interval, PatientDraws, interval
from dinov2.eval.scores.replicates import LESS_IS_BETTER, MACRO, Replicates
from dinov2.eval.scores.segmentation import replicate_segmentations

Said = Predictions | Segmentations
Kind = TypeVar("Kind", bound=Said)
ALPHA = 0.05


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One score of one class: the first result minus the second."""

    class_name: str
    name: str
    first: float
    second: float
    value: Interval
    p: float  # two-sided

    @property
    def better(self) -> int:
        """1: the first, -1: the second, 0: they cannot be told apart at `ALPHA`."""
        if not self.p < ALPHA or self.value.low <= 0 <= self.value.high:
            return 0
        return (1 if self.value.value > 0 else -1) * (-1 if self.name in LESS_IS_BETTER else 1)


@dataclass(frozen=True)
class Side:
    """A result that takes part: its split, and where thresholds come from."""

    name: str
    said: Said
    validation: Said | None = None


def compare(first: Side, second: Side, *, draws: int = 1000, seed: int = 0) -> tuple[Difference, ...]:
    """Every score, over classes first, then class by class.

    p = min(1, 2 min(1 + #{difference <= 0}, 1 + #{difference >= 0}) / (1 + D)) over the D replicates that have one
    (Davison and Hinkley 1997, 4.2: the sample counts as a replicate).

    Raises:
        ConfigError: other pictures, patients, classes, labels or masks; says how many.
    """
    other = replace(second, said=aligned(first, second))
    drawn = PatientDraws.of(first.said.patients, draws=draws, seed=seed)
    one, two = (_replicate(side, drawn) for side in (first, other))
    return tuple(
        _difference(one, two, name=name, class_name=class_name)
        for class_name in (MACRO, *one.classes[:-1])
        for name in one.names
        if not np.isnan(one.of(name, class_name)[0] - two.of(name, class_name)[0])
    )


def aligned(first: Side, second: Side) -> Said:
    """The second's predictions in the first's order.  Raises ConfigError, see `compare`."""
    one, two = first.said, second.said
    names = f"{first.name} and {second.name}"
    if type(one) is not type(two) or _task(one) != _task(two):
        raise ConfigError(f"{names}: one is {_task(one)}, the other {_task(two)}. Compare results of one task.")
    if one.classes != two.classes:
        raise ConfigError(
            f"{names}: the classes are {list(one.classes)} and {list(two.classes)}. Give both the same --labels, in "
            "the same order."
        )
    for side in (first, second):
        num_twice = len(side.said.ids) - len(np.unique(side.said.ids))
        if num_twice:
            raise ConfigError(f"{side.name}: {num_twice} ids are there twice, so pictures cannot be matched by them.")
    common = np.intersect1d(one.ids, two.ids)
    if not len(common) == len(one.ids) == len(two.ids):
        raise ConfigError(
            f"{names}: of {len(one.ids)} and {len(two.ids)} pictures {len(common)} are in both. A paired comparison "
            "needs the same pictures: evaluate both on the same split."
        )
    place = {name: i for i, name in enumerate(two.ids.tolist())}
    moved = take(two, np.asarray([place[name] for name in one.ids.tolist()], dtype=np.int64))
    _refuse_other_truth(one, moved, names=names)
    return moved


def take(said: Kind, rows: NDArray[np.int64]) -> Kind:
    """Some pictures, in the order given."""
    moved = {
        field.name: getattr(said, field.name)[rows]
        for field in fields(said)
        if isinstance(getattr(said, field.name), np.ndarray)
    }
    groups: Mapping[str, NDArray[np.str_]] = {column: values[rows] for column, values in said.groups.items()}
    return replace(said, **moved, groups=groups)


def _refuse_other_truth(one: Said, two: Said, *, names: str) -> None:
    if isinstance(one, Predictions) and isinstance(two, Predictions):
        same = (one.labels == two.labels) | (np.isnan(one.labels) & np.isnan(two.labels))
        what = "labels"
    else:
        assert isinstance(one, Segmentations)
        assert isinstance(two, Segmentations)
        same = (one.true_positives + one.false_negatives) == (two.true_positives + two.false_negatives)
        what = "masks (by their pixels; were they compared at the same size?)"
    differ = int((~same.reshape(len(one.ids), -1).all(axis=1)).sum()) if len(one.ids) else 0
    if differ:
        raise ConfigError(f"{names}: {differ} of {len(one.ids)} pictures have other {what}. Evaluate both on the same.")
    other = int((one.patients != two.patients).sum())
    if other:
        raise ConfigError(
            f"{names}: {other} of {len(one.ids)} pictures are of another patient. Evaluate both on the same manifest."
        )


def _replicate(side: Side, drawn: PatientDraws) -> Replicates:
    if isinstance(side.said, Segmentations):
        return replicate_segmentations(side.said, draws=drawn)
    validation = side.validation if isinstance(side.validation, Predictions) else None
    thresholds: Thresholds = choose_thresholds(side.said, validation=validation)
    return replicate_predictions(side.said, draws=drawn, thresholds=thresholds)


def _difference(one: Replicates, two: Replicates, *, name: str, class_name: str) -> Difference:
    values = one.of(name, class_name) - two.of(name, class_name)
    return Difference(
        class_name=class_name,
        name=name,
        first=float(one.of(name, class_name)[0]),
        second=float(two.of(name, class_name)[0]),
        value=interval(values),
        p=two_sided_p(values[1:]),
    )


def two_sided_p(replicates: NDArray[np.float64]) -> float:
    """See `compare`; NaN without replicates."""
    known = replicates[np.isfinite(replicates)]
    if not len(known):
        return float("nan")
    side = min(int((known <= 0).sum()), int((known >= 0).sum()))
    return min(1.0, 2 * (1 + side) / (1 + len(known)))


def _task(said: Said) -> str:
    return said.task if isinstance(said, Predictions) else "segmentation"
