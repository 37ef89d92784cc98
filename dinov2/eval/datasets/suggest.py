"""Which columns of a table look like labels or masks, for the message that asks for them.

In: an Arrow table. Out: a sentence.
"""

import pyarrow as pa
import pyarrow.compute as pc

from dinov2.manifest import COLUMNS, PLACES

NEVER = {*COLUMNS, *PLACES, "flags", "duplicate_of", "perceptual_hash", "spacing_mm", "license", "source"} - {"view"}
YES_NO = {"1", "0", "-1", "1.0", "0.0", "-1.0", "true", "false"}
MAX_CLASSES = 20
MAX_LISTED = 20
IMAGE_ENDS = (".png", ".tif", ".tiff", ".bmp", ".nii.gz", ".nii", ".npy")


def label_like(table: pa.Table) -> str:
    """`Name label columns with --labels. ... look like labels: Effusion, ... (1/0); view (AP, PA)`."""
    stated, named = [], []
    for name in table.column_names:
        if name in NEVER:
            continue
        values = _values(table, name)
        if values and values <= YES_NO:
            stated.append(name)
        elif values is not None and 2 <= len(values) <= MAX_CLASSES:
            named.append(f"{name} ({', '.join(sorted(values)[:4])}{', ...' if len(values) > 4 else ''})")
        elif values and any("|" in value for value in values):
            named.append(f"{name} (several findings with | between)")
    listed = []
    if stated:
        listed.append(f"{_few(stated)} (1 or 0)")
    if named:
        listed.append(_few(named))
    looks = f"These look like labels: {'; '.join(listed)}." if listed else "No column looks like one."
    return f"Name the columns with --labels: several (1, 0, -1, empty), or one that holds names. {looks}"


def mask_like(table: pa.Table) -> str:
    """`Name the column of mask files with --masks. ... look like it: mask`."""
    found = []
    for name in table.column_names:
        if name not in NEVER and pa.types.is_string(table.schema.field(name).type):
            texts = pc.drop_null(table.column(name).slice(0, 100)).to_pylist()
            if texts and all(text.lower().endswith(IMAGE_ENDS) for text in texts if text):
                found.append(name)
    looks = f"These look like it: {_few(found)}." if found else "No column looks like it."
    return f"Name the column with the masks' files with --masks. {looks}"


def _values(table: pa.Table, name: str) -> set[str] | None:
    kind = table.schema.field(name).type
    if pa.types.is_nested(kind) or pa.types.is_null(kind):
        return None
    values = pc.unique(table.column(name).combine_chunks()).drop_null()
    if len(values) > 1000:
        return None
    return {
        str(value).lower() if isinstance(value, bool) else str(value) for value in values.to_pylist() if value != ""
    }


def _few(names: list[str]) -> str:
    return ", ".join(names[:MAX_LISTED]) + (", ..." if len(names) > MAX_LISTED else "")
