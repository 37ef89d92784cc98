"""CheXpert 1.0, full size or small (Stanford; Irvin et al., AAAI 2019).

In: train.csv and valid.csv, and test.csv where it is there. Out: a row per film; the table is its split.
"""

import pyarrow as pa
import pyarrow.compute as pc

from dinov2.layouts.columns import CHEXPERT_FINDINGS, CHEXPERT_LABELS, age, constant, labels_of, sex, view
from dinov2.layouts.layout import RASTER, Layout, TableFile, Tables

COLUMNS = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *CHEXPERT_FINDINGS)
SHIPS = "CheXpert-v1.0 and CheXpert-v1.0-small"
TRAIN = TableFile(names=("train.csv",), columns=COLUMNS, ships=SHIPS, gives="picture")
VALID = TableFile(
    names=("valid.csv", "val.csv"), columns=COLUMNS, ships=SHIPS, gives="picture of the split valid", optional=True
)
TEST = TableFile(
    names=("test.csv", "test_labels.csv"),
    columns=("Path", *CHEXPERT_FINDINGS),
    ships="the CheXpert test set",
    gives="picture of the split test",
    optional=True,
)
IDENTITY = r"(?P<patient>patient\d+)/(?P<study>study\d+)/(?P<film>[^/]+)\.[a-z]+$"


def _read(tables: Tables) -> pa.Table:
    parts = []
    for file, split in ((TRAIN, "train"), (VALID, "valid"), (TEST, "test")):
        films = tables.read(file, floats=CHEXPERT_FINDINGS)
        if films is not None:
            parts.append(_films(films, split=split))
    return pa.concat_tables(parts, promote_options="default")


def _films(films: pa.Table, *, split: str) -> pa.Table:
    path = pc.replace_substring_regex(films.column("Path"), pattern=r"^CheXpert-[^/]*/", replacement="")
    names = pc.extract_regex(path, IDENTITY)
    patient, study, film = (pc.struct_field(names, name) for name in ("patient", "study", "film"))
    columns = {
        "image": path,
        "image_id": pc.binary_join_element_wise(patient, study, film, "_"),
        "patient": patient,
        "study": pc.binary_join_element_wise(patient, study, "_"),
        "split": constant(split, num_rows=len(films)),
    }
    if "AP/PA" in films.column_names:  # empty for lateral films
        side = pc.if_else(
            pc.equal(films.column("Frontal/Lateral"), "Lateral"), "LATERAL", pc.fill_null(films.column("AP/PA"), "")
        )
        columns |= {"view": view(side), "sex": sex(films.column("Sex")), "age": age(films.column("Age"))}
    return pa.table(columns | labels_of(films, CHEXPERT_FINDINGS))


LAYOUT = Layout(
    name="chexpert",
    dataset="chexpert",
    summary="CheXpert 1.0: 224,316 films of 65,240 patients as 8-bit JPEG, full size or small",
    tables=(TRAIN, VALID, TEST),
    suffixes=RASTER,
    key_depth=3,
    labels=f"{CHEXPERT_LABELS}; valid and test 1 or 0 by radiologists",
    read=_read,
)
