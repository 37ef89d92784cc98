"""What the columns of a user's table are, by their names and types: the file, ours, a person's, or free to travel.

In: names and types. Out: which column names the files, under which name each other one travels, and which are left out
because they look like something that names a person or a day. `privacy.keep_columns` overrides that, column by column.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from dinov2.errors import ManifestError
from dinov2.manifest import COLUMNS, SYNONYMS

TAKEN = (
    "dataset",
    "patient",
    "study",
    "view",
    "split",
    "modality",
)  # a value of the table takes the place of the file's own
MEASURED = ("flags", "spacing_mm", "bits", "manufacturer", "film_height", "film_width", "transfer_syntax", "frame")
ADDED = ("perceptual_hash", "duplicate_of", "offset", "num_bytes")
OURS = frozenset([*COLUMNS, *MEASURED, *ADDED])  # any other such column of the table is renamed
# Letters only: "Patient ID", "patient_id" and "PatientID" are one.
STANDARD: Mapping[str, str] = {
    **{re.sub(r"[^a-z]", "", word): target for word, target in SYNONYMS.items()},
    **{name: name for name in ("image", *TAKEN)},
    "studyuid": "study",
    "studyinstanceuid": "study",
}
# English, and what the exports of German, French and Spanish systems say for the same.
PERSONAL_ENDS = ("name", "birth", "date", "time", "phone", "address", "email", "physician", "initials", "datum")
PERSONAL_STARTS = ("name", "birth", "date", "accession", "physician", "address", "adresse", "phone", "geburt", "fecha")
PERSONAL_WORDS = (
    frozenset(
        {
            "id",
            "ids",
            "uid",
            "uids",
            "uuid",
            "guid",
            "mrn",
            "ssn",
            "dob",
            "dod",
            "doctor",
            "telephone",
            "fax",
            "zip",
            "postcode",
            "insurance",
        }
    )
    | frozenset({"path", "file", "filepath", "dir", "folder", "source", "nom", "nombre", "apellido", "apellidos"})
    | frozenset({"comment", "comments", "note", "notes", "report", "narrative", "history", "indication"})
)
PERSONAL_IDS = re.compile(
    r"(patient|subject|person|study|series|instance|dicom|image|case|exam|film)u?id$|^(patient|study|subject)$"
)
# A date with or without separators, or a name as DICOM writes it (PS3.5 6.2.1).
CELLS_OF_A_PERSON = r"^\d{1,4}[./-]\d{1,2}[./-]\d{1,4}|^(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])$|\^"


def file_column(names: Sequence[str], *, path: Path) -> str:
    """The column that names the files.  Raises ManifestError where there is none."""
    found = next((name for name in names if _letters(name) in STANDARD and STANDARD[_letters(name)] == "image"), None)
    if found is None:
        expected = ", ".join(("image", *(word for word, target in SYNONYMS.items() if target == "image")))
        raise ManifestError(
            f"{path}: no column names the files; expected one of {expected}. Columns present: {', '.join(names)}."
        )
    return found


def travel_names(names: Iterable[str]) -> dict[str, str]:
    """Each column's name in the manifest: the standard one where it has one and no earlier column took it."""
    given: dict[str, str] = {}
    for name in names:
        target = STANDARD.get(_letters(name), name)
        if target not in TAKEN or target in given.values():
            target = name
        if target in OURS and target not in TAKEN:
            target = f"table_{target}"
        while target in given.values():
            target = f"table_{target}"
        given[name] = target
    return given


def is_personal(name: str, cells: pa.ChunkedArray) -> bool:
    """Whether a column looks as if it named a person, a file or a day: by its name, type, or most of its cells."""
    return _is_personal_name(name) or pa.types.is_temporal(cells.type) or _are_personal(cells)


def _is_personal_name(name: str) -> bool:
    words = [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]
    whole = "".join(words)
    return (
        whole.endswith(PERSONAL_ENDS)
        or PERSONAL_IDS.search(whole) is not None
        or any(
            word in PERSONAL_WORDS or word.endswith(PERSONAL_ENDS) or word.startswith(PERSONAL_STARTS) for word in words
        )
    )


def _are_personal(cells: pa.ChunkedArray) -> bool:
    if pa.types.is_integer(cells.type):
        cells = cells.cast(pa.string())
    if not (pa.types.is_string(cells.type) or pa.types.is_large_string(cells.type)):
        return False
    matches = pc.sum(pc.match_substring_regex(cells, CELLS_OF_A_PERSON)).as_py() or 0
    return bool(2 * matches > len(cells) - cells.null_count)


def _letters(name: str) -> str:
    return re.sub(r"[^a-z]", "", name.lower())
