"""MIMIC-CXR (DICOM) and MIMIC-CXR-JPG, versions 2.0.0 and 2.1.0 (PhysioNet; Johnson et al., Scientific Data 2019).

In: their tables. Out: a row per film with patient, study, view, split and the labels of both labellers. Sex and age are
not among these tables; MIMIC-IV has them.
"""

import pyarrow as pa
import pyarrow.compute as pc

from dinov2.layouts.columns import CHEXPERT_FINDINGS, CHEXPERT_LABELS, labels_of, view
from dinov2.layouts.layout import DICOM, RASTER, Layout, TableFile, Tables
from dinov2.layouts.tables import matching

RECORDS = TableFile(
    names=("cxr-record-list.csv",),
    columns=("subject_id", "study_id", "dicom_id", "path"),
    ships="MIMIC-CXR",
    gives="picture",
)
METADATA = TableFile(
    names=("mimic-cxr-2.0.0-metadata.csv", "mimic-cxr-2.1.0-metadata.csv"),
    columns=("dicom_id", "subject_id", "study_id", "ViewPosition"),
    ships="MIMIC-CXR-JPG",
    gives="view",
)
SPLIT = TableFile(
    names=("mimic-cxr-2.0.0-split.csv", "mimic-cxr-2.1.0-split.csv"),
    columns=("dicom_id", "split"),
    ships="MIMIC-CXR-JPG",
    gives="split",
    optional=True,
)
CHEXPERT = TableFile(
    names=("mimic-cxr-2.0.0-chexpert.csv", "mimic-cxr-2.1.0-chexpert.csv"),
    columns=("study_id", *CHEXPERT_FINDINGS),
    ships="MIMIC-CXR-JPG",
    gives="label of the CheXpert labeller",
    optional=True,
)
NEGBIO = TableFile(
    names=("mimic-cxr-2.0.0-negbio.csv", "mimic-cxr-2.1.0-negbio.csv"),
    columns=("study_id", *CHEXPERT_FINDINGS),
    ships="MIMIC-CXR-JPG",
    gives="label of the NegBio labeller",
    optional=True,
)
OPTIONAL_METADATA = TableFile(
    names=METADATA.names,
    columns=("dicom_id", "ViewPosition"),
    ships=METADATA.ships,
    gives=METADATA.gives,
    optional=True,
)


def _read_dicom(tables: Tables) -> pa.Table:
    records = tables.read(RECORDS)
    assert records is not None, "a table that is not optional is there or is an error"
    metadata = tables.read(OPTIONAL_METADATA)
    columns = {"image": records.column("path")}
    if metadata is not None:
        columns["view"] = view(
            matching(metadata, key="dicom_id", keys=records.column("dicom_id")).column("ViewPosition")
        )
    return _with_labels(tables, films=records, columns=columns)


def _read_jpg(tables: Tables) -> pa.Table:
    films = tables.read(METADATA)
    assert films is not None, "a table that is not optional is there or is an error"
    patient, study = films.column("subject_id"), films.column("study_id")
    path = pc.binary_join_element_wise(
        pc.binary_join_element_wise("files/p", pc.utf8_slice_codeunits(patient, 0, 2), "/p", patient, ""),
        pc.binary_join_element_wise("s", study, ""),
        pc.binary_join_element_wise(films.column("dicom_id"), ".jpg", ""),
        "/",
    )
    return _with_labels(tables, films=films, columns={"image": path, "view": view(films.column("ViewPosition"))})


def _with_labels(tables: Tables, *, films: pa.Table, columns: dict[str, pa.ChunkedArray]) -> pa.Table:
    columns |= {
        "image_id": films.column("dicom_id"),
        "patient": films.column("subject_id"),
        "study": films.column("study_id"),
    }
    split = tables.read(SPLIT)
    if split is not None:
        columns["split"] = matching(split, key="dicom_id", keys=films.column("dicom_id")).column("split")
    for file, prefix in ((CHEXPERT, "label"), (NEGBIO, "label_negbio")):
        labels = tables.read(file, floats=CHEXPERT_FINDINGS)
        if labels is not None:
            found = matching(labels, key="study_id", keys=films.column("study_id"))
            columns |= labels_of(found, CHEXPERT_FINDINGS, prefix=prefix)
    return pa.table(columns)


LABELS = f"{CHEXPERT_LABELS}; label_negbio_* the same by NegBio; of the study, not of the film"
DICOM_FILES = Layout(
    name="mimic-cxr",
    dataset="mimic-cxr",
    summary="MIMIC-CXR: 377,110 DICOM files of 65,379 patients (PhysioNet, credentialed access)",
    tables=(RECORDS, OPTIONAL_METADATA, SPLIT, CHEXPERT, NEGBIO),
    suffixes=DICOM,
    key_depth=1,
    labels=LABELS,
    read=_read_dicom,
)
JPG_FILES = Layout(
    name="mimic-cxr-jpg",
    dataset="mimic-cxr",
    summary="MIMIC-CXR-JPG: the same films as 8-bit JPEG, histogram equalised (PhysioNet, credentialed access)",
    tables=(METADATA, SPLIT, CHEXPERT, NEGBIO),
    suffixes=RASTER,
    key_depth=1,
    labels=LABELS,
    read=_read_jpg,
)
