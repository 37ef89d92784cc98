"""The door between `preprocess` and `data`: one row per picture.

In: an Arrow table, or rows. Out: a `Manifest`, which can be filtered, sampled and written. A manifest is an Arrow
table, so four million rows cost their bytes and nothing more. Columns that are not listed in `COLUMNS` (labels, sex,
age ...) travel along untouched.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dinov2.errors import ManifestError
from dinov2.manifest.columns import COLUMNS, PLACES
from dinov2.manifest.place import SHARD_MARK, Place
from dinov2.manifest.writer import TableWriter


@dataclass(frozen=True)
class Manifest:
    """Pictures and what is known of them; `root` is the folder that relative paths start from."""

    table: pa.Table
    root: Path

    def __len__(self) -> int:
        return int(self.table.num_rows)

    def path(self, row: int) -> Path:
        """The picture file of a row; of a packed picture its shard and its name in there, as `SHARD.tar::NAME`."""
        return self.root / str(self.table.column("image")[row])

    def place(self, row: int) -> Place:
        """Where the bytes of a row's picture lie.  Raises ManifestError for a packed picture without its offset."""
        return place_of(self.table, row, root=self.root)

    def row(self, row: int) -> dict[str, Any]:
        """Every column of one row, as Python values."""
        values: dict[str, Any] = self.table.slice(row, 1).to_pylist()[0]
        return values

    def filter(
        self,
        *,
        splits: Sequence[str] = (),
        views: Sequence[str] = (),
        datasets: Sequence[str] = (),
        include: frozenset[str] | None = None,
        exclude: frozenset[str] | None = None,
    ) -> "Manifest":
        """Rows that pass every filter given; upper and lower case are the same.

        `include` and `exclude` hold values of `image`, `image_id`, `source` or their file names (see `read_id_list`).
        """
        keep = pa.array(np.ones(len(self), dtype=bool))
        for column, wanted in (("split", splits), ("view", views), ("dataset", datasets)):
            if wanted:
                keep = pc.and_(keep, self._among(column, wanted))
        if include is not None:
            keep = pc.and_(keep, self._named(include))
        if exclude is not None:
            keep = pc.and_(keep, pc.invert(self._named(exclude)))
        return Manifest(self.table.filter(keep), self.root)

    def sample(self, fraction: float, *, seed: int) -> "Manifest":
        """A random share of the rows, in their order; the same rows for the same seed."""
        if fraction >= 1:
            return self
        count = max(1, round(fraction * len(self)))
        rows = np.sort(np.random.default_rng(seed).permutation(len(self))[:count])
        return Manifest(self.table.take(pa.array(rows)), self.root)

    def spread_rows(self, limit: int) -> list[int]:
        """At most `limit` rows, evenly over the manifest, in order."""
        rows = np.unique(np.linspace(0, len(self) - 1, min(limit, len(self))).astype(np.int64))
        return [int(row) for row in rows]

    def missing_files(self, *, limit: int = 20_000) -> list[int]:
        """Rows whose picture is not on disk, among at most `limit` rows spread evenly over the manifest."""
        return [row for row in self.spread_rows(limit) if not self.place(row).exists()]

    def write(self, path: Path) -> None:
        """Parquet or CSV by the file's suffix; the file appears whole or not at all.  Raises ManifestError, OSError."""
        with TableWriter(path, self.table.schema) as writer:
            writer.add_table(self.table)

    def _among(self, column: str, wanted: Sequence[str]) -> pa.Array:
        values = self.table.column(column)
        present = pc.unique(values)
        lower = {name.lower() for name in wanted}
        chosen = [value for value in present.to_pylist() if value is not None and value.lower() in lower]
        if not chosen:
            raise ManifestError(
                f"no row has {column} in {list(wanted)}; the {column}s present are "
                f"{sorted({str(value) for value in present.to_pylist()})[:12]}. "
                f"Correct the filter, or fill the column '{column}' of the manifest."
            )
        return pc.is_in(values, value_set=pa.array(chosen, type=values.type))

    def _named(self, names: frozenset[str]) -> pa.Array:
        wanted = pa.array(sorted(names), type=pa.string())
        found = pa.array(np.zeros(len(self), dtype=bool))
        for column in ("image", "image_id", "source"):
            values = self.table.column(column)
            for candidate in (values, *base_and_stem(values)):
                found = pc.or_(found, pc.is_in(candidate, value_set=wanted))
        return found


def place_of(table: pa.Table, row: int, *, root: Path) -> Place:
    """Where the bytes of a row's picture lie: a `Manifest.place` for a table with the columns of `COLUMNS`."""
    image = str(table.column("image")[row])
    if SHARD_MARK not in image:
        return Place(root / image)
    shard = image[: image.index(SHARD_MARK) + len(".tar")]
    offset, num_bytes = (table.column(name)[row].as_py() if name in table.column_names else None for name in PLACES)
    if offset is None or num_bytes is None:
        raise ManifestError(
            f"row {row}: {image} lies in a shard, and the columns 'offset' and 'num_bytes' do not say where. Take the "
            "manifest that `dinov2 manifest pack` wrote, with these columns."
        )
    return Place(root / shard, offset, num_bytes)


def base_and_stem(values: Any) -> tuple[Any, Any]:
    """The file name of every path, and the same without its suffix: Arrow strings -> twice Arrow strings."""
    base = pc.replace_substring_regex(values, pattern=r"^.*(/|::)", replacement="")
    return base, pc.replace_substring_regex(base, pattern=r"\.[^.]*$", replacement="")


def from_rows(rows: Iterable[Mapping[str, Any]], *, root: Path) -> Manifest:
    """A manifest from dictionaries; absent standard columns become null, other keys become extra columns."""
    listed = list(rows)
    extra = list(dict.fromkeys(key for row in listed for key in row if key not in COLUMNS))
    columns: dict[str, pa.Array] = {
        name: pa.array([row.get(name) for row in listed], type=kind) for name, kind in COLUMNS.items()
    }
    columns |= {name: pa.array([row.get(name) for row in listed]) for name in extra}
    return Manifest(pa.table(columns), root)
