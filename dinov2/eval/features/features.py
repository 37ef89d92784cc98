"""What a backbone said of a split's pictures, beside what is known of them.

In: arrays, in memory or on disk. Out: `Features` and `Labelled`, which can be taken from and joined.

Legend: N pictures (or volumes), L blocks, P patches, D width.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dinov2.errors import ManifestError
from dinov2.eval.examples import Examples, Mask, Picture, Reader
from dinov2.manifest import COLUMNS, PLACES, Manifest

Floats = NDArray[np.floating[Any]]
Rows = Sequence[int] | NDArray[np.int64]


class PatchRows:
    """Patch tokens of chosen rows of one or more arrays on disk, read when they are asked for.

    `patches[rows]` gives them in memory, [n, P, D]; `patches[3]` one picture's, [P, D].
    """

    def __init__(self, arrays: Sequence[Floats], *, part: NDArray[np.int64], row: NDArray[np.int64]) -> None:
        self._arrays, self._part, self._row = tuple(arrays), part, row

    @classmethod
    def of(cls, array: Floats) -> "PatchRows":
        """All rows of an array [N, P, D]."""
        return cls([array], part=np.zeros(len(array), dtype=np.int64), row=np.arange(len(array)))

    def __len__(self) -> int:
        return len(self._row)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(N, P, D)"""
        return (len(self), self._arrays[0].shape[1], self._arrays[0].shape[2])

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32, or float16 of a backbone that ran in half precision."""
        return self._arrays[0].dtype

    def __getitem__(self, rows: "int | slice | Rows") -> Floats:
        one = isinstance(rows, int | np.integer)
        index = np.arange(len(self))[rows if isinstance(rows, slice) else np.atleast_1d(np.asarray(rows))]
        parts, places = self._part[index], self._row[index]
        out = np.empty((len(index), *self.shape[1:]), dtype=self.dtype)
        for part in np.unique(parts):
            out[parts == part] = self._arrays[part][places[parts == part]]
        return out[0] if one else out

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Floats:
        return np.asarray(self[:], dtype=dtype)

    def take(self, rows: Rows) -> "PatchRows":
        """Some rows, in the order given; nothing is read."""
        index = np.asarray(rows, dtype=np.int64)
        return PatchRows(self._arrays, part=self._part[index], row=self._row[index])

    def joined(self, other: "PatchRows") -> "PatchRows":
        """These rows, then the other's; nothing is read."""
        return PatchRows(
            (*self._arrays, *other._arrays),
            part=np.concatenate([self._part, other._part + len(self._arrays)]),
            row=np.concatenate([self._row, other._row]),
        )


@dataclass(frozen=True, kw_only=True)
class Features:
    """Tokens of the last L blocks, last block last, each through the final norm."""

    cls: Floats  # [N, L, D]
    pooled: Floats | None  # [N, L, D], mean of the patch tokens; None of a network without them
    patches: PatchRows | None = None  # [N, P, D] of the last block, where they were asked for
    grid: tuple[int, int] | None = None  # (h, w) of the patches, P = h * w

    def __len__(self) -> int:
        return len(self.cls)

    def take(self, rows: Rows) -> "Features":
        """Some rows, in the order given."""
        index = np.asarray(rows, dtype=np.int64)
        return replace(
            self,
            cls=self.cls[index],
            pooled=None if self.pooled is None else self.pooled[index],
            patches=None if self.patches is None else self.patches.take(index),
        )

    def joined(self, other: "Features") -> "Features":
        """These rows, then the other's."""
        return replace(
            self,
            cls=np.concatenate([self.cls, other.cls]),
            pooled=None if self.pooled is None or other.pooled is None else np.concatenate([self.pooled, other.pooled]),
            patches=None if self.patches is None or other.patches is None else self.patches.joined(other.patches),
        )

    def last(self, blocks: int) -> "Features":
        """Of the last `blocks` blocks alone."""
        return replace(
            self, cls=self.cls[:, -blocks:], pooled=None if self.pooled is None else self.pooled[:, -blocks:]
        )


@dataclass(frozen=True)
class Labelled:
    """A split for a probe on features: row i of one is row i of the other."""

    features: Features
    examples: Examples

    def __post_init__(self) -> None:
        if len(self.features) != len(self.examples):
            raise ValueError(f"{len(self.features)} rows of features for {len(self.examples)} of {self.examples.name}")

    def __len__(self) -> int:
        return len(self.features)

    def take(self, rows: Rows) -> "Labelled":
        """Some rows, in the order given."""
        return Labelled(self.features.take(rows), self.examples.take(np.asarray(rows, dtype=np.int64)))

    def joined(self, other: "Labelled") -> "Labelled":
        """These rows, then the other's: what a probe is fitted on again."""
        return Labelled(self.features.joined(other.features), join_examples(self.examples, other.examples))


def join_examples(one: Examples, other: Examples) -> Examples:
    """The rows of one split, then those of another.  Raises ManifestError where their classes or tasks differ."""
    if one.classes != other.classes or one.task != other.task:
        raise ManifestError(
            f"{one.name} and {other.name}: their classes are {list(one.classes)} and {list(other.classes)}. Give both "
            "the same labels, in the same order."
        )
    tables = [_from_anywhere(examples.manifest).table for examples in (one, other)]
    try:
        table = pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException:  # a column of numbers in one is one of words in the other
        table = pa.concat_tables([_as_text(table) for table in tables], promote_options="permissive")
    return replace(
        one,
        name=f"{one.name} + {other.name}",
        manifest=Manifest(table, one.manifest.root),
        reader=_Joined(one.reader, other.reader, first=len(one)),
        labels=np.concatenate([one.labels, other.labels]),
        patients=np.concatenate([one.patients, other.patients]),
        volumes=None if one.volumes is None or other.volumes is None else np.concatenate([one.volumes, other.volumes]),
    )


def _from_anywhere(manifest: Manifest) -> Manifest:
    """The same with absolute pictures, so that the root no longer matters."""
    root = manifest.root.absolute()
    images = pa.array([(root / str(image)).as_posix() for image in manifest.table.column("image").to_pylist()])
    place = manifest.table.schema.get_field_index("image")
    return Manifest(manifest.table.set_column(place, "image", images), root)


def _as_text(table: pa.Table) -> pa.Table:
    columns = {}
    for name in table.column_names:
        if name in COLUMNS or name in PLACES:
            columns[name] = table.column(name)
            continue
        values = table.column(name).to_pylist()
        columns[name] = pa.array([None if value is None else str(value) for value in values], type=pa.string())
    return pa.table(columns)


class _Joined:
    """Two readers, one after the other."""

    def __init__(self, one: Reader, other: Reader, *, first: int) -> None:
        self._one, self._other, self._first = one, other, first

    def picture(self, row: int) -> Picture:
        return self._one.picture(row) if row < self._first else self._other.picture(row - self._first)

    def mask(self, row: int) -> Mask:
        return self._one.mask(row) if row < self._first else self._other.mask(row - self._first)
