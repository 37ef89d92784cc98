"""BRAX 1.0.0 and 1.1.0 (PhysioNet; Reis et al., Scientific Data 2022), as DICOM or as the PNGs that it ships.

In: its one table. Out: a row per film. The release has no split.
"""

from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from dinov2.layouts.columns import CHEXPERT_FINDINGS, CHEXPERT_LABELS, age, labels_of, sex, view
from dinov2.layouts.layout import DICOM, RASTER, Layout, TableFile, Tables
from dinov2.layouts.pictures import keys

DEPTH = 4  # id_*/Study_*/Series_*/image-*


def _table(path: str) -> TableFile:
    return TableFile(
        names=("master_spreadsheet_update.csv", "master_spreadsheet.csv"),
        columns=(path, "PatientID", "PatientSex", "PatientAge", "AccessionNumber", "ViewPosition", *CHEXPERT_FINDINGS),
        ships="BRAX",
        gives="picture",
    )


def _read(tables: Tables, *, path: str) -> pa.Table:
    films = tables.read(_table(path), floats=CHEXPERT_FINDINGS)
    assert films is not None, "a table that is not optional is there or is an error"
    films = films.filter(pc.is_valid(films.column(path)))
    return pa.table(
        {
            "image": films.column(path),
            "image_id": pc.replace_substring(keys(films.column(path), depth=DEPTH), pattern="/", replacement="_"),
            "patient": films.column("PatientID"),
            "study": films.column("AccessionNumber"),
            "view": view(films.column("ViewPosition")),
            "sex": sex(films.column("PatientSex")),
            "age": age(films.column("PatientAge")),
            **labels_of(films, CHEXPERT_FINDINGS),
        }
    )


DICOM_FILES = Layout(
    name="brax",
    dataset="brax",
    summary="BRAX: 40,967 DICOM files of 19,351 patients (PhysioNet, credentialed access)",
    tables=(_table("DicomPath"),),
    suffixes=DICOM,
    key_depth=DEPTH,
    labels=CHEXPERT_LABELS,
    read=partial(_read, path="DicomPath"),
)
PNG_FILES = Layout(
    name="brax-png",
    dataset="brax",
    summary="BRAX: the same films as the PNGs that it ships",
    tables=(_table("PngPath"),),
    suffixes=RASTER,
    key_depth=DEPTH,
    labels=CHEXPERT_LABELS,
    read=partial(_read, path="PngPath"),
)
