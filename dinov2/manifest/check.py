"""What is wrong with a manifest, before a long run finds out.

In: a manifest. Out: faults, each naming its rows. What it shares with an evaluation set is in `leakage`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dinov2.manifest.columns import PLACES
from dinov2.manifest.place import Place, sha256_of, size_of
from dinov2.manifest.table import Manifest, place_of

ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong: its kind, and what and where it is."""

    kind: str  # missing, unreadable, size, content, duplicate, split
    text: str


def file_faults(
    manifest: Manifest, *, hashes: bool = False, rows: Sequence[int] | None = None
) -> Iterator[Fault | None]:
    """For every row (or each of `rows`, ascending) in order: what is wrong with its file, or None.

    The file must be there and open as a picture of the width and height that the row states; with `hashes`, its bytes
    must have the sha256 that the row states. Only what a row states is compared.
    """
    columns = [name for name in ("image", "width", "height", "sha256", *PLACES) if name in manifest.table.column_names]
    table = manifest.table.select(columns)
    total = len(manifest) if rows is None else len(rows)
    for start in range(0, total, ROWS_AT_ONCE):
        stop = min(start + ROWS_AT_ONCE, total)
        numbers = range(start, stop) if rows is None else rows[start:stop]
        part = table.slice(start, stop - start) if rows is None else table.take(pa.array(numbers, type=pa.int64()))
        part = part.combine_chunks()
        for place, (number, stated) in enumerate(zip(numbers, part.to_pylist(), strict=True)):
            yield _file_fault(place_of(part, place, root=manifest.root), number, stated, hashes=hashes)


def table_faults(manifest: Manifest) -> list[Fault]:
    """A picture in two rows, the same bytes in two rows, a patient in two splits."""
    faults = []
    for column, words in (("image", "the picture"), ("sha256", "the same picture")):
        for value, images in _images_by(manifest, column, values=_repeated(manifest, column)).items():
            named = value if column == "image" else _few(images)
            faults.append(Fault("duplicate", f"{words} is in {len(images)} rows: {named}"))
    patients = _patients(manifest, also=["split"])
    splits = patients.filter(pc.not_equal(patients.column("split"), "")).group_by(["dataset", "patient"])
    counted = splits.aggregate([("split", "count_distinct"), ("split", "distinct")])
    leaking = counted.filter(pc.greater(counted.column("split_count_distinct"), 1))
    for row in _in_order(leaking):
        listed = ", ".join(sorted(row["split_distinct"]))
        faults.append(Fault("split", f"patient {row['patient']}{_of(row['dataset'])} is in the splits {listed}"))
    return faults


def _file_fault(place: Place, row: int, stated: dict[str, Any], *, hashes: bool) -> Fault | None:
    path = place.path
    try:
        if not path.is_file():
            return Fault("missing", f"row {row}: {path} is not there")
        size = size_of(place)
        if any(s is not None and s != f for s, f in zip((stated["width"], stated["height"]), size, strict=True)):
            expected = f"{stated['width']} x {stated['height']}"
            return Fault("size", f"row {row}: {path} is {size[0]} x {size[1]} pixels, and {expected} in the manifest")
        if hashes and stated["sha256"] and sha256_of(place) != stated["sha256"]:
            return Fault("content", f"row {row}: {path} is not the file of the manifest (its sha256 differs)")
    except OSError as error:
        where = "" if str(path) in str(error) else f"{path}: "
        return Fault("unreadable", f"row {row}: {where}{error}")
    return None


def _repeated(manifest: Manifest, column: str) -> Any:
    counts = pc.value_counts(manifest.table.column(column))
    values = counts.field("values").filter(pc.greater(counts.field("counts"), 1)).drop_null()
    return values.filter(pc.not_equal(values, ""))


def _images_by(manifest: Manifest, column: str, *, values: Any) -> dict[str, list[str]]:
    """Value of the column -> the pictures of its rows, for these values."""
    if not len(values):
        return {}
    rows = manifest.table.select(list(dict.fromkeys([column, "image"])))
    rows = rows.filter(pc.is_in(rows.column(column), value_set=values))
    images: dict[str, list[str]] = {}
    for value, image in zip(rows.column(column).to_pylist(), rows.column("image").to_pylist(), strict=True):
        images.setdefault(value, []).append(image)
    return images


def _patients(manifest: Manifest, *, also: Sequence[str] = ()) -> pa.Table:
    """dataset, patient and other columns of the rows with a patient; empty text where one is not stated."""
    columns = {name: pc.fill_null(manifest.table.column(name), "") for name in ("dataset", "patient", *also)}
    table = pa.table(columns)
    return table.filter(pc.not_equal(table.column("patient"), ""))


def _in_order(patients: pa.Table) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = patients.sort_by([("dataset", "ascending"), ("patient", "ascending")]).to_pylist()
    return rows


def _few(images: list[str], *, limit: int = 3) -> str:
    return ", ".join(images[:limit]) + (", ..." if len(images) > limit else "")


def _of(dataset: str) -> str:
    return f" of {dataset}" if dataset else ""
