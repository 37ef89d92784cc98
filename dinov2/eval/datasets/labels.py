"""Columns become labels, in one order for all splits.

In: the tables of every split together, and which columns hold labels. Out: a `Plan` made once, and by it the labels of
each table. Nothing is fitted per split: a class that a split lacks keeps its place.

Legend: N rows, C classes.
"""

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dinov2.errors import ManifestError
from dinov2.eval.datasets.source import Source
from dinov2.eval.datasets.suggest import label_like
from dinov2.eval.examples import UNCERTAIN, Task
from dinov2.layouts.columns import label_name

Labels = NDArray[np.float32]
Form = Literal["stated", "names", "findings"]
BETWEEN = "|"  # the findings of one cell
STATED = {"true": 1.0, "false": 0.0, "": math.nan, "nan": math.nan, "none": math.nan, "null": math.nan}
VALUES = (1.0, 0.0, UNCERTAIN)
MAX_NAMED = 12


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How columns become labels; the same for every split."""

    task: Task
    form: Form  # a column per class (1, 0, -1, empty), one column of names, or one of names with | between
    wanted: tuple[str, ...]  # columns, as they were asked for
    classes: tuple[str, ...]


def plan_labels(sources: Sequence[Source], *, labels: Sequence[str], classes: Sequence[str]) -> Plan:
    """What the sources' rows (those of all splits that are used) have as labels.

    Raises ManifestError where no column was named and the sources have no usual one, a column is absent, or it holds
    something that is no label.
    """
    first = sources[0]
    wanted = tuple(labels) or first.labels
    if not wanted:
        raise ManifestError(f"{first.name}: no label columns were named. {label_like(first.manifest.table)}")
    if not labels:
        for other in sources[1:]:
            if (other.labels, other.classes) != (first.labels, first.classes):
                raise ManifestError(
                    f"{first.name} has the labels {', '.join(first.classes or first.labels)}; {other.name} has "
                    f"{', '.join(other.classes or other.labels) or 'none by itself'}. Name common ones: --labels."
                )
    usual = () if labels else first.classes
    if len(wanted) > 1:
        names = _names_of_columns(first, wanted, classes=classes, usual=usual)
        return Plan(task="multilabel", form="stated", wanted=wanted, classes=names)
    texts = [text for source in sources for text in _texts(column_of(source, wanted[0]))[0]]
    if all(_is_stated(text) for text in texts):
        names = _names_of_columns(first, wanted, classes=classes, usual=usual)
        return Plan(task="multilabel", form="stated", wanted=wanted, classes=names)
    several = any(BETWEEN in text for text in texts)
    present = sorted({name for text in texts for name in _names(text, several=several)})
    chosen = tuple(classes) or usual or tuple(present)
    form: Form = "findings" if several else "names"
    _check_present(chosen, present, column=wanted[0], form=form)
    return Plan(task="multilabel" if several else "multiclass", form=form, wanted=wanted, classes=chosen)


def encode(source: Source, plan: Plan) -> tuple[Labels, NDArray[np.bool_]]:
    """Labels of every row, and whether it has any.

    -> float32 [N, C] of 1, 0, UNCERTAIN and NaN (multilabel) or [N] indices (multiclass); bool [N]

    Raises ManifestError for a cell that is no label, naming column, picture and value.
    """
    if plan.form == "stated":
        columns = [_stated(source, name) for name in plan.wanted]
        labels = np.stack(columns, axis=1)
        return labels, np.asarray(~np.isnan(labels).all(axis=1), dtype=np.bool_)
    texts, codes = _texts(column_of(source, plan.wanted[0]))
    places = {name: place for place, name in enumerate(plan.classes)}
    if plan.form == "names":
        of_text = np.array([places.get(text.strip(), -1) for text in texts], dtype=np.float32)
        labels = of_text[codes]
        return labels, np.asarray(labels >= 0, dtype=np.bool_)
    table = np.zeros((len(texts), len(plan.classes)), dtype=np.float32)
    for row, text in enumerate(texts):
        names = _names(text, several=True)
        table[row, [places[name] for name in names if name in places]] = 1.0
        if not names:
            table[row] = math.nan
    labels = table[codes]
    return labels, np.asarray(~np.isnan(labels).all(axis=1), dtype=np.bool_)


def column_of(source: Source, wanted: str) -> pa.ChunkedArray:
    """The column that a label's name means: itself, in other letters, `label_...` of it, or a usual class name.

    Raises ManifestError where there is none.
    """
    names = source.manifest.table.column_names
    usual = dict(zip(source.classes, source.labels, strict=True)) if len(source.classes) == len(source.labels) else {}
    candidates = [wanted, usual.get(wanted, ""), label_name(wanted)]
    found = next((name for name in candidates if name in names), None)
    if found is None:
        lower = {name.lower(): name for name in reversed(names)}
        found = lower.get(wanted.lower())
    if found is None:
        near = difflib.get_close_matches(wanted, [*names, *usual], n=1)
        hint = f" Did you mean {near[0]}?" if near else f" {label_like(source.manifest.table)}"
        raise ManifestError(f"{source.name}: no column {wanted}.{hint}")
    return source.manifest.table.column(found)


def _names_of_columns(
    source: Source, wanted: Sequence[str], *, classes: Sequence[str], usual: tuple[str, ...]
) -> tuple[str, ...]:
    names = tuple(classes) or usual or tuple(wanted)
    if len(names) != len(wanted):
        raise ManifestError(
            f"{source.name}: {len(wanted)} label columns ({', '.join(wanted)}) and {len(names)} names of classes "
            f"({', '.join(names)}). Give one name per column with --classes, or leave it out."
        )
    return names


def _check_present(chosen: Sequence[str], present: Sequence[str], *, column: str, form: Form) -> None:
    absent = [name for name in chosen if name not in present]
    listed = ", ".join(present[:MAX_NAMED]) + (", ..." if len(present) > MAX_NAMED else "")
    if len(absent) == len(chosen):
        raise ManifestError(f"column {column}: none of the classes {', '.join(chosen)} occurs; present are {listed}.")
    if form == "names" and len(chosen) < 2:
        raise ManifestError(f"column {column}: the only class is {', '.join(chosen)}, of {listed}. Two are the least.")


def _stated(source: Source, wanted: str) -> Labels:
    texts, codes = _texts(column_of(source, wanted))
    for place, text in enumerate(texts):
        if not _is_stated(text):
            picture = source.manifest.path(int(np.flatnonzero(codes == place)[0]))
            raise ManifestError(
                f"{source.name}: column {wanted} of {picture}: {text!r} is no label; expected 1, 0, -1 (uncertain) or "
                "nothing. A column of names is given alone: --labels COLUMN."
            )
    values = np.array([_value(text) for text in texts], dtype=np.float32)
    labels = values[codes]
    return np.where(np.isnan(labels), np.float32(source.blank), labels)


def _texts(column: pa.ChunkedArray) -> tuple[list[str], NDArray[np.int64]]:
    """Each value of a column as text, null as empty text, and for each row the place of its value."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    texts = pc.fill_null(column.cast(pa.string()), "").combine_chunks()
    coded = texts.dictionary_encode()
    return coded.dictionary.to_pylist(), np.asarray(coded.indices, dtype=np.int64)


def _is_stated(text: str) -> bool:
    value = _value(text)
    return math.isnan(value) or value in VALUES


def _value(text: str) -> float:
    """1, 0, -1, or NaN for an empty cell; infinity for anything that is no label."""
    word = text.strip().lower()
    if word in STATED:
        return STATED[word]
    try:
        return float(word)
    except ValueError:
        return math.inf


def _names(text: str, *, several: bool) -> list[str]:
    parts = text.split(BETWEEN) if several else [text]
    return [part.strip() for part in parts if part.strip()]
