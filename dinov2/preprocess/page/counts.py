"""What there is to count in a conversion's tables; Arrow counts, so that two million rows take seconds.

In: a manifest, `rejected.csv`. Out: numbers, categories with their counts, rows by flag and by category.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
from numpy.typing import NDArray

from dinov2.errors import ManifestError
from dinov2.manifest import COLUMNS, PLACES, Manifest
from dinov2.manifest.reading import read_parts

NEEDED: Mapping[str, pa.DataType] = {
    **COLUMNS,
    **PLACES,
    "modality": pa.string(),
    "manufacturer": pa.string(),
    "transfer_syntax": pa.string(),
    "flags": pa.string(),
    "duplicate_of": pa.string(),
    "bits": pa.int64(),
    "film_height": pa.int64(),
    "film_width": pa.int64(),
}
NOT_STATED = "not stated"
OTHER = "other"
TERM = re.compile(r"[A-Za-z0-9][\w .,()+/-]{0,47}")  # what a code or a maker's name looks like; all else is not shown
FILMS_PER_PATIENT = ((1, 1), (2, 2), (3, 3), (4, 4), (5, 9), (10, 19), (20, 49), (50, None))

Rows = NDArray[np.int64]


def read_pictures(path: Path) -> Manifest:
    """The columns that the page needs, of a conversion's folder or of a manifest; a table without rows is fine here.

    Columns that the manifest lacks are null. Raises ManifestError where there is no manifest.
    """
    file = path / "manifest.parquet" if path.is_dir() else path
    if path.is_dir() and not file.is_file():
        raise ManifestError(f"{file}: no such manifest. {_advice(path)}")
    parts = list(read_parts(file, columns=NEEDED))
    table = pa.concat_tables(parts, promote_options="permissive")
    columns = {
        name: _cast(table.column(name), kind) if name in table.column_names else pa.nulls(len(table), kind)
        for name, kind in NEEDED.items()
    }
    return Manifest(pa.table(columns), file.parent)


def _advice(folder: Path) -> str:
    if (folder / "shares").is_dir():
        return (
            f"Its shares come together with: dinov2 manifest merge {folder}/shares/*/manifest.parquet "
            f"--output {folder}/manifest.parquet"
        )
    return "Give the --output folder of `dinov2 preprocess`, or a manifest."


def _cast(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    try:
        return column.cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return pa.nulls(len(column), kind)  # a column of the user's own under one of our names


def count_rejects(path: Path) -> Counter[str]:
    """Rejects per reason code, streamed; none where there is no such file.

    Raises ManifestError where it is no table of rejects.
    """
    counts: Counter[str] = Counter()
    if not path.is_file():
        return counts
    options = pa_csv.ConvertOptions(include_columns=["reason"], column_types={"reason": pa.string()})
    parsing = pa_csv.ParseOptions(newlines_in_values=True)
    try:
        with pa_csv.open_csv(path, convert_options=options, parse_options=parsing) as reader:
            for batch in reader:
                for pair in pc.value_counts(batch.column(0)).to_pylist():
                    counts[shown(pair["values"])] += pair["counts"]
    except (pa.ArrowException, OSError) as error:
        raise ManifestError(f"{path}: not a readable table of rejects. Write it again, or move it away.") from error
    return counts


def shown(value: object) -> str:
    """A category as the page shows it: a term, or that it is none."""
    text = "" if value is None else str(value).strip()
    if not text:
        return NOT_STATED
    return text if TERM.fullmatch(text) else OTHER


def count_values(values: pa.ChunkedArray, *, most: int | None = None) -> dict[str, int]:
    """Categories with their counts, the most frequent first; beyond `most` of them the rest is one."""
    counts: Counter[str] = Counter()
    for pair in pc.value_counts(values).to_pylist():
        counts[shown(pair["values"])] += pair["counts"]
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    if most is None or len(ordered) <= most:
        return dict(ordered)
    rest = sum(count for _, count in ordered[most:])
    named = dict(ordered[:most])
    return named | {f"{len(ordered) - most} more": rest}


def rows_of(values: pa.ChunkedArray, category: str) -> Rows:
    """The rows that `count_values` counts under this category."""
    raw = [value for value in pc.unique(values).to_pylist() if shown(value) == category]
    mask = pc.is_in(values, value_set=pa.array([v for v in raw if v is not None], type=values.type))
    if None in raw:
        mask = pc.or_(mask, pc.is_null(values))
    return _rows(mask)


def rows_by_flag(flags: pa.ChunkedArray) -> dict[str, Rows]:
    """The rows of every flag that occurs, the most frequent first; a row has several flags, separated by commas."""
    lists = pc.split_pattern(pc.fill_null(flags.combine_chunks(), ""), ",")
    parents, names = pc.list_parent_indices(lists), pc.utf8_trim_whitespace(pc.list_flatten(lists))
    present = (name for name in pc.unique(names).to_pylist() if name)
    found = {name: np.asarray(parents.filter(pc.equal(names, name))).astype(np.int64) for name in present}
    return dict(sorted(found.items(), key=lambda item: (-len(item[1]), item[0])))


def numbers(values: pa.ChunkedArray) -> NDArray[np.float64]:
    """The values that are there."""
    return np.asarray(values.drop_null().cast(pa.float64()).to_numpy())


def films_per_patient(patients: pa.ChunkedArray) -> dict[str, int]:
    """How many patients have 1, 2, 3 ... films; rows without a patient are left out."""
    known = pc.value_counts(patients.drop_null())
    counts = np.asarray(known.field("counts")) if len(known) else np.zeros(0, np.int64)
    ranges = {_range(low, high): (low, high or np.inf) for low, high in FILMS_PER_PATIENT}
    found = {name: int(((counts >= low) & (counts <= high)).sum()) for name, (low, high) in ranges.items()}
    return {name: count for name, count in found.items() if count}


def row_of_each(image_ids: pa.ChunkedArray, wanted: Sequence[str | None]) -> list[int | None]:
    """The row of each of these pictures, None where it is not in the table."""
    return list(pc.index_in(pa.array(wanted, type=pa.string()), value_set=image_ids.combine_chunks()).to_pylist())


def _range(low: int, high: int | None) -> str:
    if high is None:
        return f"{low} or more"
    return str(low) if low == high else f"{low} to {high}"


def _rows(mask: pa.ChunkedArray) -> Rows:
    return np.flatnonzero(np.asarray(mask)).astype(np.int64)
