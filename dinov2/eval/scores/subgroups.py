"""Scores by group of patients or pictures: sex, age band, view, site.

In: a column's values per picture. Out: rows of each group, and the gap between the best and the worst.

Patients are drawn from all groups together, so a replicate is one world in which every group is scored, and the gap has
an interval of its own.

Legend: N pictures.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dinov2.eval.scores.draws import Interval, interval
from dinov2.eval.scores.replicates import LESS_IS_BETTER, MACRO, Replicates

AGE_BANDS = ((0, "0-17"), (18, "18-39"), (40, "40-64"), (65, "65+"))
MOST_GROUPS = 20  # a column of more values is no grouping
MIN_CASES = 10  # pictures with and without the class that a group needs for the gap
OLDEST = 130


@dataclass(frozen=True)
class Gap:
    """Best minus worst group of one score; the pair is the sample's, its interval that of their difference."""

    column: str
    class_name: str
    name: str  # of the score
    best: str
    worst: str
    value: Interval
    classes: tuple[str, ...]  # that were averaged, for macro
    left_out: tuple[str, ...]  # groups that are too small


def age_bands(ages: Sequence[str] | NDArray[np.str_]) -> NDArray[np.str_]:
    """Years as text ("57", "57.5", DICOM's "057Y", "008M") -> 0-17, 18-39, 40-64, 65+.  [N] -> [N]

    Empty, no number, or not from 0 to 130: empty text, that is not known.
    """
    return np.asarray([_band(str(age)) for age in ages], dtype=np.str_)


def grouped(column: str, values: NDArray[np.str_]) -> dict[str, NDArray[np.int64]]:
    """Rows of each value in order of their names; unknown ones in no group. Columns of ages become bands.

    Empty where the column has one value, or more than `MOST_GROUPS`.
    """
    banded = age_bands(values) if is_age(column) else values
    names = [str(name) for name in np.unique(banded) if name]
    if not 2 <= len(names) <= MOST_GROUPS:
        return {}
    if is_age(column):
        names.sort(key=[band for _, band in AGE_BANDS].index)
    return {name: np.flatnonzero(banded == name) for name in names}


def is_age(column: str) -> bool:
    """Whether a column holds ages: "age", "Patient Age", "age_years"."""
    return "age" in column.lower().replace("_", " ").replace("-", " ").split() or column.lower() == "patientage"


def gap(
    of_groups: Mapping[str, Replicates], *, column: str, name: str, class_name: str, min_cases: int = MIN_CASES
) -> Gap | None:
    """Between the groups that have at least `min_cases` pictures with and without the class (segmentation: with).

    For macro: a group stays if it has such a class; the mean is over the classes that are such in all groups that stay.
    None where fewer than two groups stay, or no class.
    """
    if class_name == MACRO:
        kept = [group for group, one in of_groups.items() if _rich(one, min_cases)]
        common = set.intersection(*(_rich(of_groups[group], min_cases) for group in kept)) if kept else set()
        classes = tuple(one for one in next(iter(of_groups.values())).classes if one in common)
    else:
        kept = [group for group, one in of_groups.items() if class_name in _rich(one, min_cases)]
        classes = (class_name,)
    values = {group: of_groups[group].mean_over(name, classes) for group in kept} if classes else {}
    values = {group: value for group, value in values.items() if not np.isnan(value[0])}
    if len(values) < 2:
        return None
    order = sorted(values, key=lambda group: float(values[group][0]), reverse=name not in LESS_IS_BETTER)
    best, worst = order[0], order[-1]
    return Gap(
        column=column,
        class_name=class_name,
        name=name,
        best=best,
        worst=worst,
        value=interval(values[best] - values[worst]),
        classes=classes if class_name == MACRO else (),
        left_out=tuple(group for group in of_groups if group not in values),
    )


def _rich(one: Replicates, min_cases: int) -> set[str]:
    """Classes with enough pictures."""
    return {name for name, count in one.num_cases.items() if count >= min_cases}


def _band(age: str) -> str:
    text = age.strip().upper()
    unit = text[-1:] if text[-1:] in ("Y", "M", "W", "D") else "Y"
    try:
        years = float(text.rstrip("YMWD")) / {"Y": 1, "M": 12, "W": 52.2, "D": 365.25}[unit]
    except ValueError:
        return ""
    if not 0 <= years <= OLDEST:
        return ""
    return [name for start, name in AGE_BANDS if years >= start][-1]
