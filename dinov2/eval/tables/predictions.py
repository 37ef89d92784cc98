"""Predictions of a run <-> one Parquet file, so that results are compared and looked at again without a model.

In: predictions per split. Out: a table with a row per picture: split, id, patient; per class "score:NAME" and
"label:NAME" (multiclass: "label", a class's name; segmentation: pixels "true_positives:NAME" ... and
"hausdorff95:NAME"); "group:COLUMN". What columns cannot hold is in the table's metadata.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dinov2.eval.outcome import Predictions, Segmentations
from dinov2.eval.scores.classes import known_rows
from dinov2.eval.tables.result import Said

KEY = b"dinov2.eval"
OVERLAPS = ("true_positives", "false_positives", "false_negatives", "hausdorff95")


def write_predictions(said: Mapping[str, Said], path: Path) -> None:
    """One file for all splits.  Raises OSError."""
    first = next(iter(said.values()))
    meta: dict[str, Any] = {"version": 1, "classes": first.classes, "splits": list(said)}
    meta["task"] = first.task if isinstance(first, Predictions) else "segmentation"
    meta["calibrated"] = {name: one.calibrated for name, one in said.items() if isinstance(one, Predictions)}
    table = pa.concat_tables([_table(name, one) for name, one in said.items()], promote_options="default")
    pq.write_table(table.replace_schema_metadata({KEY: json.dumps(meta)}), path)


def read_predictions(path: Path) -> dict[str, Said]:
    """As written.  Raises OSError, pyarrow's errors, KeyError, ValueError."""
    table = pq.read_table(path)
    meta = json.loads((table.schema.metadata or {})[KEY])
    split = _texts(table, "split")
    return {name: _said(table.filter(pa.array(split == name)), meta, name) for name in meta["splits"]}


def _table(split: str, said: Said) -> pa.Table:
    columns: dict[str, Any] = {
        "split": pa.array([split] * len(said.ids), type=pa.string()),
        "id": pa.array(said.ids.tolist(), type=pa.string()),
        "patient": pa.array(said.patients.tolist(), type=pa.string()),
    }
    for i, name in enumerate(said.classes):
        if isinstance(said, Segmentations):
            columns |= {f"{what}:{name}": pa.array(getattr(said, what)[:, i]) for what in OVERLAPS}
            continue
        columns[f"score:{name}"] = pa.array(said.scores[:, i])
        if said.task == "multilabel":
            columns[f"label:{name}"] = pa.array(said.labels[:, i])
    if isinstance(said, Predictions) and said.task == "multiclass":
        known = known_rows(said)
        names = [said.classes[int(label)] if there else None for label, there in zip(said.labels, known, strict=True)]
        columns["label"] = pa.array(names, type=pa.string())
    for column, values in said.groups.items():
        columns[f"group:{column}"] = pa.array(values.tolist(), type=pa.string())
    return pa.table(columns)


def _said(table: pa.Table, meta: Mapping[str, Any], split: str) -> Said:
    classes = tuple(meta["classes"])
    shared: dict[str, Any] = {
        "classes": classes,
        "ids": _texts(table, "id"),
        "patients": _texts(table, "patient"),
        "groups": {
            name.removeprefix("group:"): _texts(table, name)
            for name in table.column_names
            if name.startswith("group:") and table.column(name).null_count < len(table)
        },
    }
    if meta["task"] == "segmentation":
        overlaps = {what: _numbers(table, [f"{what}:{name}" for name in classes]) for what in OVERLAPS}
        return Segmentations(**(shared | overlaps))
    if meta["task"] == "multilabel":
        labels = _numbers(table, [f"label:{name}" for name in classes])
    else:
        place = {name: float(i) for i, name in enumerate(classes)} | {None: np.nan}
        labels = np.asarray([place[name] for name in table.column("label").to_pylist()], dtype=np.float32)
    return Predictions(
        **shared,
        task=meta["task"],
        labels=labels,
        scores=_numbers(table, [f"score:{name}" for name in classes]),
        calibrated=meta["calibrated"][split],
    )


def _texts(table: pa.Table, name: str) -> "np.ndarray[Any, np.dtype[np.str_]]":
    return np.asarray(table.column(name).fill_null("").to_pylist(), dtype=np.str_)


def _numbers(table: pa.Table, names: list[str]) -> "np.ndarray[Any, Any]":
    """[N, C], also where N or C is 1."""
    return np.stack([table.column(name).to_numpy() for name in names], axis=1)
