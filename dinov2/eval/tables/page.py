"""A `Result` -> one HTML page that needs nothing else: no script, no other host, light and dark.

In: a `Result` with its predictions. Out: text.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dinov2.eval.outcome import Predictions
from dinov2.eval.scores import MACRO, Gap
from dinov2.eval.scores.curves import curves_of
from dinov2.eval.tables.drawing import Axis, Bar, axis_of, bar_of, panels_of
from dinov2.eval.tables.plain import plain
from dinov2.eval.tables.result import Result
from dinov2.eval.tables.sheet import (
    WORDS,
    beside_score,
    dataset_of,
    figure,
    names_of_beside,
    number,
    sheet_of,
    why_no_gap,
    with_range,
)
from dinov2.pages import environment

OF_CLASS = (
    "auprc",
    "f1",
    "sensitivity_at_specificity",
    "sensitivity",
    "specificity",
    "calibration_error",
    "iou",
    "pooled_dice",
    "pooled_iou",
    "hausdorff95",
)  # columns of the table of classes, after the main score
MOST_TRIED = 12  # candidates that are shown before the rest is folded away


@dataclass(frozen=True)
class ClassRow:
    """A class in the table."""

    name: str
    is_mean: bool
    positives: str
    negatives: str
    bar: Bar | None
    more: tuple[tuple[str, str], ...]  # value, interval
    beside: tuple[Bar | None, ...]


@dataclass(frozen=True)
class GroupRow:
    """A group in the table of its column."""

    name: str
    num_pictures: int
    num_patients: int
    bar: Bar | None


@dataclass(frozen=True)
class GroupTable:
    """A column's groups and the gaps between them."""

    column: str
    axis: Axis
    rows: tuple[GroupRow, ...]
    gap: Gap | None
    class_gaps: tuple[tuple[str, str, str, str, str], ...]


def page_of(result: Result) -> str:
    """The whole page."""
    card, outcome = result.card, result.outcome
    said = outcome.test if result.split == "test" else outcome.val
    names = [name for name in OF_CLASS if name in card.names() and name != result.main]
    axis = _axis(result)
    noted = ("auroc", "auprc", "calibration_error")
    curves = curves_of(said) if isinstance(said, Predictions) else ()
    panels = panels_of(curves, scores={one.name: {name: card.find(name, one.name) for name in noted} for one in curves})
    tried = sorted(outcome.trail, key=_validation, reverse=True)
    return (
        environment(Path(__file__).parent, figure=figure)
        .get_template("page.html")
        .render(
            title=f"{outcome.probe} on {dataset_of(outcome)}",
            outcome=outcome,
            split=result.split,
            cards=_cards(result),
            main=WORDS[result.main],
            axis=axis,
            names=[WORDS[name] for name in names],
            rows=[_row(result, name, names, axis) for name in (*result.classes, MACRO)],
            beside=names_of_beside(result),
            counted="with it" if isinstance(said, Predictions) else "in the truth",
            panels=panels,
            groups=_groups(result),
            keys=list(dict.fromkeys(key for one in tried for key in one if key != "validation")),
            tried=[(one, number_of(one.get("validation")), plain(one) == _with(outcome, one)) for one in tried],
            most_tried=MOST_TRIED,
            remarks=sheet_of(result).remarks,
            settings=_settings(result),
            draws=card.draws,
            no_gap=why_no_gap(result),
        )
    )


def number_of(value: Any) -> str:
    """A validation score, of which there may be none."""
    return figure(float(value)) if isinstance(value, int | float) else "-"


def _axis(result: Result) -> Axis:
    scores = [result.card.find(result.main, name) for name in (*result.classes, MACRO)]
    for other in result.beside:
        scores += [
            beside_score(other, split=result.split, name=result.main, class_name=name)
            for name in (*result.classes, MACRO)
        ]
    return axis_of(scores)


def _cards(result: Result) -> list[tuple[str, str, str]]:
    """Headline numbers: value, label, colour."""
    card = result.card
    head = card.find(result.main)
    label = f"mean {WORDS[result.main]}"
    if head is not None and math.isfinite(head.low):
        label += f", {figure(head.low, head.name)} to {figure(head.high, head.name)}"
    cards = [(number(head) or "-", label, "main")]
    for other, name in zip(result.beside, names_of_beside(result), strict=True):
        cards.append((number(beside_score(other, split=result.split, name=result.main, class_name=MACRO)), name, ""))
    for name in ("accuracy", "balanced_accuracy", "iou", "hausdorff95"):
        found = card.find(name)
        if found is not None and math.isfinite(found.value) and name != result.main:
            cards.append((number(found), WORDS[name], ""))
    cards.append((f"{card.num_pictures:,}", f"pictures of {result.split}", ""))
    cards.append((f"{card.num_patients:,}", "patients", ""))
    return cards


def _row(result: Result, class_name: str, names: list[str], axis: Axis) -> ClassRow:
    card = result.card
    first = card.find(result.main, class_name)
    is_mean = class_name == MACRO
    more = [card.find(name, class_name) for name in names]
    return ClassRow(
        name="mean of classes" if is_mean else class_name,
        is_mean=is_mean,
        positives="" if first is None or first.num_positive is None else f"{first.num_positive:,}",
        negatives="" if first is None or first.num_negative is None else f"{first.num_negative:,}",
        bar=bar_of(first, axis),
        more=tuple((number(one), with_range(one)) for one in more),
        beside=tuple(
            bar_of(beside_score(other, split=result.split, name=result.main, class_name=class_name), axis)
            for other in result.beside
        ),
    )


def _groups(result: Result) -> list[GroupTable]:
    card, main = result.card, result.main
    tables = []
    for column in dict.fromkeys(size.column for size in card.groups):
        sizes = [size for size in card.groups if size.column == column]
        scores = [card.find(main, column=column, group=size.group) for size in sizes]
        axis = axis_of(scores)
        gaps = [gap for gap in card.gaps if gap.column == column and gap.name == main]
        tables.append(
            GroupTable(
                column=column,
                axis=axis,
                rows=tuple(
                    GroupRow(size.group, size.num_pictures, size.num_patients, bar_of(one, axis))
                    for size, one in zip(sizes, scores, strict=True)
                ),
                gap=next((gap for gap in gaps if gap.class_name == MACRO), None),
                class_gaps=tuple(
                    (gap.class_name, gap.best, gap.worst, *_gap_texts(gap)) for gap in gaps if gap.class_name != MACRO
                ),
            )
        )
    return tables


def _gap_texts(gap: Gap) -> tuple[str, str]:
    value, low, high = (figure(one, gap.name) for one in gap.value)
    return value, f"{low} to {high}"


def _validation(one: Mapping[str, Any]) -> float:
    value = one.get("validation")
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else -math.inf


def _with(outcome: Any, one: Mapping[str, Any]) -> Any:
    return plain({**outcome.chosen, "validation": one.get("validation")})


def _settings(result: Result) -> list[tuple[str, str]]:
    outcome = result.outcome
    rows = [("probe", outcome.probe), ("backbone", outcome.backbone), ("dataset", outcome.dataset)]
    rows += [("fitted on", outcome.fitted_on), ("chosen by", outcome.metric)]
    rows += [(f"pictures of {name}", f"{count:,}") for name, count in outcome.counts.items()]
    rows += [(f"threshold of {name}", figure(value)) for name, value in result.card.thresholds.items()]
    return rows + [(str(key), str(plain(value))) for key, value in outcome.settings.items()]
