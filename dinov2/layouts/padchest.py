"""PadChest (BIMCV, University of Alicante; Bustos et al., Medical Image Analysis 2020).

In: its one table. Out: a row per film; a label column for each finding that occurs in the table. Age is the year of the
study less that of the birth; neither date is kept.
"""

import ast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dinov2.layouts.columns import label_name, plausible_age, sex, view
from dinov2.layouts.layout import RASTER, Layout, TableFile, Tables

FILMS = TableFile(
    names=("PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv", "PADCHEST_chest_x_ray_images_labels_160K.csv"),
    columns=(
        "ImageID",
        "ImageDir",
        "StudyDate_DICOM",
        "StudyID",
        "PatientID",
        "PatientBirth",
        "PatientSex_DICOM",
        "Projection",
        "MethodLabel",
        "Labels",
    ),
    ships="PadChest (bimcv.cipf.es/bimcv-projects/padchest)",
    gives="picture",
)


def _read(tables: Tables) -> pa.Table:
    films = tables.read(FILMS)
    assert films is not None, "a table that is not optional is there or is an error"
    films = films.filter(pc.is_valid(films.column("ImageID")))
    name = films.column("ImageID")
    born, taken = (
        pc.cast(pc.struct_field(pc.extract_regex(films.column(column), r"^(?P<year>\d{4})"), "year"), pa.int16())
        for column in ("PatientBirth", "StudyDate_DICOM")
    )
    columns = {
        "image": pc.binary_join_element_wise(films.column("ImageDir"), name, "/", null_handling="skip"),
        "image_id": pc.replace_substring_regex(name, pattern=r"\.[a-z]+$", replacement=""),
        "patient": films.column("PatientID"),
        "study": films.column("StudyID"),
        "view": view(films.column("Projection")),
        "sex": sex(films.column("PatientSex_DICOM")),
        "age": plausible_age(pc.subtract(taken, born)),
        "projection": films.column("Projection"),  # tells AP_horizontal (in bed) from AP
        "labelled_by": films.column("MethodLabel"),  # Physician, or RNN_model
    }
    return pa.table(columns | _labels(films.column("Labels")))


def _labels(column: pa.ChunkedArray) -> dict[str, pa.Array]:
    """A column per finding: 1 where a film's list has it, 0 where it has not, null where there is no list."""
    coded = column.combine_chunks().dictionary_encode()
    lists = [_findings(text) for text in coded.dictionary.to_pylist()]
    rows = coded.indices.fill_null(len(lists)).to_numpy()  # a row without a list points behind the last one
    unread = np.array([not found for found in lists] + [True])[rows]
    columns = {}
    for finding in sorted({finding for found in lists for finding in found}):
        has = np.array([finding in found for found in lists] + [False], np.float32)[rows]
        columns[label_name(finding)] = pa.array(has, mask=unread)
    return columns


def _findings(text: str) -> frozenset[str]:
    """What a cell such as `['pleural effusion', ' nodule']` lists; nothing where it is no list."""
    try:
        listed = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return frozenset()
    if not isinstance(listed, list):
        return frozenset()
    return frozenset(one.strip().lower() for one in listed if isinstance(one, str) and one.strip())


LAYOUT = Layout(
    name="padchest",
    dataset="padchest",
    summary="PadChest: 160,868 films of some 67,000 patients as 16-bit PNG",
    tables=(FILMS,),
    suffixes=RASTER,
    key_depth=1,
    labels="1 in the film's list, 0 not, null where there is no list; labelled_by tells physicians from the model",
    read=_read,
)
