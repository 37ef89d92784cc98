"""RSNA Pneumonia Detection 2018, SIIM-ACR Pneumothorax 2019 and CANDID-PTX: a table, and DICOM films made PNG.

In: the folder with the dataset's table, and that of the converted films (`extra`, where they are not below it). Out: a
`Source`. None of them defines a split with labels, so one is drawn by patient where folders do not say it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from dinov2.errors import ManifestError
from dinov2.eval.datasets.masks import Runs
from dinov2.eval.datasets.public.request import Request
from dinov2.eval.datasets.public.rows import find_pictures, split_in, to_manifest, with_splits
from dinov2.eval.datasets.reading import Films
from dinov2.eval.datasets.source import Source
from dinov2.layouts.tables import TableFile, Tables

VAL, TEST = 0.15, 0.15
SIDE = 1024  # pixels of the films on which both sets' masks were drawn
RSNA_LABELS = TableFile(
    names=("stage_2_train_labels.csv", "stage_1_train_labels.csv"),
    columns=("patientId", "Target"),
    ships="the RSNA Pneumonia Detection Challenge",
    gives="label",
)
RSNA_CLASSES = TableFile(
    names=("stage_2_detailed_class_info.csv", "stage_1_detailed_class_info.csv"),
    columns=("patientId", "class"),
    ships="the RSNA Pneumonia Detection Challenge",
    gives="class (Normal, Lung Opacity, No Lung Opacity / Not Normal)",
    optional=True,
)
SIIM = TableFile(
    names=("stage_2_train.csv", "train-rle.csv"),
    columns=("ImageId", "EncodedPixels"),
    ships="the SIIM-ACR Pneumothorax Segmentation challenge",
    gives="mask",
)
CANDID = TableFile(
    names=("Pneumothorax_reports.csv", "pneumothorax_reports.csv"),
    columns=("anonID", "SOPInstanceUID", "EncodedPixels"),
    ships="CANDID-PTX",
    gives="mask",
)
SPACED = {" EncodedPixels": "EncodedPixels"}  # as the challenge's header has it


def rsna(asked: Request) -> Source:
    """RSNAPneumonia: `pneumonia` 1 or 0; the column `class` has the three classes (--labels class)."""
    tables = Tables(asked.root)
    boxes = _read(tables, RSNA_LABELS)
    target = dict(zip(boxes["patientId"], boxes["Target"], strict=True))  # the same in every box of a film
    named = tables.read(RSNA_CLASSES)
    kinds = (
        {}
        if named is None
        else dict(zip(*(named.column(name).to_pylist() for name in RSNA_CLASSES.columns), strict=True))
    )
    rows = [
        {"id": film, "patient": film, "pneumonia": _target(value, film=film), "class": kinds.get(film)}
        for film, value in target.items()
    ]
    return _source("RSNAPneumonia", rows, folder=asked.pictures, dataset="rsna-pneumonia", label="pneumonia")


def siim(asked: Request) -> Source:
    """SIIM: `pneumothorax` 1 or 0, and its mask from every run-length text of the film."""
    table = _read(Tables(asked.root), SIIM, synonyms=SPACED)
    runs = _runs_of(table["ImageId"], table["EncodedPixels"])
    rows = [{"id": film, "runs": texts, "pneumothorax": float(bool(texts))} for film, texts in runs.items()]
    return _source("SIIM", rows, folder=asked.pictures, dataset="siim", label="pneumothorax")


def candid(asked: Request) -> Source:
    """CandidPTX: `pneumothorax` 1 or 0, and its mask from every run-length text of the film."""
    table = _read(Tables(asked.root), CANDID)
    runs = _runs_of(table["SOPInstanceUID"], table["EncodedPixels"])
    patients = dict(zip(table["SOPInstanceUID"], table["anonID"], strict=True))
    rows = [
        {"id": film, "patient": patients[film], "runs": texts, "pneumothorax": float(bool(texts))}
        for film, texts in runs.items()
    ]
    return _source("CandidPTX", rows, folder=asked.pictures, dataset="candid-ptx", label="pneumothorax")


def _read(tables: Tables, file: TableFile, *, synonyms: dict[str, str] | None = None) -> dict[str, list[Any]]:
    table: pa.Table | None = tables.read(file, synonyms=synonyms)
    assert table is not None, "a table that is not optional is there or is an error"
    return {name: table.column(name).to_pylist() for name in table.column_names}


def _runs_of(films: Sequence[str], texts: Sequence[str | None]) -> dict[str, list[str]]:
    """The texts of each film; none where it says -1 or nothing."""
    runs: dict[str, list[str]] = {}
    for film, text in zip(films, texts, strict=True):
        listed = runs.setdefault(film, [])
        if text and text.strip() not in ("", "-1"):
            listed.append(text)
    return runs


def _source(name: str, rows: Sequence[dict[str, Any]], *, folder: Path, dataset: str, label: str) -> Source:
    """Rows with the picture of each on disk; those without are left out."""
    paths = find_pictures([row["id"] for row in rows], folder=folder, name=name)
    there = [(row, path) for row, path in zip(rows, paths, strict=True) if path]
    kept = [
        {
            "image": path,
            "image_id": row["id"],
            "split": split_in(path),
            **{key: value for key, value in row.items() if key not in ("id", "runs")},
        }
        for row, path in there
    ]
    manifest = with_splits(to_manifest(kept, root=folder, dataset=dataset), name=name, val=VAL, test=TEST)
    texts = [row.get("runs", []) for row, _ in there]
    return Source(
        name=name,
        manifest=manifest,
        pictures=Films(manifest),
        labels=(label,),
        classes=(label,),
        masks=Runs(texts, height=SIDE, width=SIDE) if "runs" in rows[0] else None,
        mask_classes=("pneumothorax",) if "runs" in rows[0] else (),
    )


def _target(value: str, *, film: str) -> float:
    if value not in ("0", "1"):
        raise ManifestError(
            f"RSNAPneumonia: film {film} has Target {value!r}; expected 0 or 1. Download the table again."
        )
    return float(value)
