"""What a manifest's columns are called and hold.

In: nothing. Out: the standard columns with their Arrow types, and the other names under which tables carry them.
"""

from collections.abc import Mapping, Sequence

import pyarrow as pa

COLUMNS: Mapping[str, pa.DataType] = {
    "image": pa.string(),  # path of the picture, relative to the manifest's folder or absolute; or SHARD.tar::NAME
    "image_id": pa.string(),
    "dataset": pa.string(),
    "patient": pa.string(),
    "study": pa.string(),
    "view": pa.string(),  # AP, PA, LATERAL, LL, RL ... as the source says
    "split": pa.string(),  # train, val, test ... as the source says
    "width": pa.int32(),
    "height": pa.int32(),
    "sha256": pa.string(),  # of the picture file's bytes
    "source": pa.string(),  # the input file, relative to the input folder
}
KEPT_AS_TEXT = frozenset({"flags", "duplicate_of", "perceptual_hash", "spacing_mm"})  # never numbers in a CSV
PLACES: Mapping[str, pa.DataType] = {"offset": pa.int64(), "num_bytes": pa.int64()}  # of a picture within its shard
SYNONYMS: Mapping[str, str] = {
    "file": "image",
    "path": "image",
    "filename": "image",
    "file_name": "image",
    "image_path": "image",
    "patient_id": "patient",
    "subject_id": "patient",
    "study_id": "study",
    "view_position": "view",
    "viewposition": "view",
}


def standard_name(name: str) -> str:
    """What a column is called here; a column that is not one of ours keeps its name."""
    lower = name.lower()
    return SYNONYMS.get(lower, lower if lower in COLUMNS else name)


def standard_names(present: Sequence[str]) -> list[str]:
    """Each column's standard name, unless another column has it already."""
    names = list(present)
    for place, name in enumerate(names):
        standard = standard_name(name)
        if standard not in names:
            names[place] = standard
    return names
