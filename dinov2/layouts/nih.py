"""NIH ChestX-ray14, both releases of its table (NIH Clinical Center; Wang et al., CVPR 2017).

In: Data_Entry_2017 and the two lists of file names. Out: a row per film, split train_val or test.
"""

import pyarrow as pa
import pyarrow.compute as pc

from dinov2.layouts.columns import age, label_name, sex, view
from dinov2.layouts.layout import RASTER, Layout, TableFile, Tables

FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
    "No Finding",
)
SHIPS = "NIH ChestX-ray14 (nihcc.app.box.com/v/ChestXray-NIHCC, or Kaggle)"
ENTRIES = TableFile(
    names=("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv", "labels.csv"),
    columns=(
        "Image Index",
        "Finding Labels",
        "Follow-up #",
        "Patient ID",
        "Patient Age",
        "Patient Sex",
        "View Position",
    ),
    ships=SHIPS,
    gives="picture",
)
TRAINING = TableFile(
    names=("train_val_list.txt", "train_val_list_NIH.txt"),
    columns=(),
    ships=SHIPS,
    gives="split train_val",
    optional=True,
)
TEST = TableFile(
    names=("test_list.txt", "test_list_NIH.txt"), columns=(), ships=SHIPS, gives="split test", optional=True
)


def _read(tables: Tables) -> pa.Table:
    films = tables.read(ENTRIES, synonyms={"Patient Gender": "Patient Sex"})
    assert films is not None, "a table that is not optional is there or is an error"
    name, patient, found = (films.column(column) for column in ("Image Index", "Patient ID", "Finding Labels"))
    split = pa.chunked_array([pa.nulls(len(films), pa.string())])
    for file, word in ((TRAINING, "train_val"), (TEST, "test")):
        listed = tables.lines(file)
        if listed is not None:
            split = pc.if_else(pc.is_in(name, value_set=listed), word, split)
    columns = {
        "image": name,
        "image_id": pc.replace_substring_regex(name, pattern=r"\.[a-z]+$", replacement=""),
        "patient": patient,
        "study": pc.binary_join_element_wise(patient, films.column("Follow-up #"), "_"),  # one film each
        "view": view(films.column("View Position")),
        "split": split,
        "sex": sex(films.column("Patient Sex")),
        "age": age(films.column("Patient Age")),
    }
    for finding in FINDINGS:
        present = pc.match_substring_regex(found, rf"(^|\|)\s*{finding}\s*(\||$)")
        columns[label_name(finding)] = pc.cast(present, pa.float32())
    return pa.table(columns)


LAYOUT = Layout(
    name="nih",
    dataset="nih",
    summary="NIH ChestX-ray14: 112,120 frontal films of 30,805 patients as 8-bit PNG",
    tables=(ENTRIES, TRAINING, TEST),
    suffixes=RASTER,
    key_depth=1,
    labels="1 mentioned in the report, 0 not mentioned (machine-read); never -1 or null",
    read=_read,
)
