"""The films of a features file: what a manifest says of them, and their pictures.

In: a `FeatureTable`, and a manifest or dataset. Out: `Films`: all columns row by row of the features, and uint8 [H, W]
or [H, W, 3] by the number of a row, which is the only way to a picture.
"""

from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dinov2.errors import ManifestError
from dinov2.eval.datasets.locating import open_source
from dinov2.eval.datasets.source import Pictures
from dinov2.explore.features import FeatureTable
from dinov2.manifest import Manifest

LOOKED_FOR = 24  # pictures whose headers are read before the page opens
NO_MANIFEST = "no picture: opened without a manifest"
NOT_LISTED = "not in the manifest"


@dataclass(frozen=True)
class Films:
    """N films in the order of their features."""

    table: pa.Table  # [N] columns of the manifest, then those that the features file alone has
    pictures: Pictures | None
    rows: NDArray[np.int64]  # [N] of the manifest; -1 where it has no such film
    remarks: tuple[str, ...]  # what people should know before they look
    lock: Lock  # a source's open shards are for one thread at a time

    def __len__(self) -> int:
        return len(self.rows)

    def levels(self, row: int) -> NDArray[np.uint8]:
        """The picture of a row, grey [H, W] or colour [H, W, 3].  Raises ManifestError, saying why there is none."""
        if self.pictures is None:
            raise ManifestError(NO_MANIFEST)
        if self.rows[row] < 0:
            raise ManifestError(NOT_LISTED)
        with self.lock:
            picture = self.pictures.picture(int(self.rows[row]))
        return picture if picture.dtype == np.uint8 else np.rint(picture * 255).astype(np.uint8)

    def fields(self, row: int) -> dict[str, Any]:
        """What is known of a row; what is empty is left out."""
        values: dict[str, Any] = self.table.slice(row, 1).to_pylist()[0]
        return {name: value for name, value in values.items() if value is not None and value != ""}


def join_films(features: FeatureTable, *, manifest: str | None) -> Films:
    """The films of a features file with the rows of a manifest.

    Raises ManifestError where there is no such manifest, or where none of its films has features.
    """
    repeated = _repeated(features.table)
    if manifest is None:
        return Films(features.table, None, np.full(len(features), -1), (_hint(features), *repeated), Lock())
    source = open_source(manifest, views=(), masks=None, segmentation=False).source
    rows = _match(features.table, source.manifest)
    num_found = int((rows >= 0).sum())
    if not num_found:
        made = features.about.get("images_relative_to")
        raise ManifestError(
            f"{manifest}: none of its {len(source.manifest):,} films is one of the {len(features):,} of {features.path}"
            f" (image_id {features.ids[0]!r}, ...). Give the manifest that the features were made from"
            + (f"; its pictures lay in {made}." if made else ".")
        )
    remarks = repeated
    if num_found < len(features):
        remarks.append(
            f"{len(features) - num_found:,} of {len(features):,} films with features are not in {manifest}: they are on"
            " the map, without picture and columns."
        )
    remarks += _unreadable(source.pictures, rows, of=manifest)
    return Films(_joined(features.table, source.manifest, rows), source.pictures, rows, tuple(remarks), Lock())


def _match(table: pa.Table, manifest: Manifest) -> NDArray[np.int64]:
    """[N] the manifest's row of every film: by image_id, or by the picture's path where ids repeat."""
    repeat = _num_repeated(table) or _num_repeated(manifest.table)
    key = "image" if repeat and "image" in table.column_names else "image_id"
    listed = manifest.table.column(key).cast(pa.string()).combine_chunks()
    found = pc.index_in(table.column(key).cast(pa.string()), value_set=listed)
    return np.asarray(pc.fill_null(found, -1).combine_chunks(), dtype=np.int64)


def _repeated(table: pa.Table) -> list[str]:
    """A remark where an image_id does not tell films apart."""
    count = _num_repeated(table)
    if not count:
        return []
    films = "1 film has an image_id" if count == 1 else f"{count:,} films have image_ids"
    return [f"{films} of films before: a saved selection of ids means all films of an id."]


def _num_repeated(table: pa.Table) -> int:
    """Films whose image_id another film before them has."""
    ids = table.column("image_id")
    num_distinct: int = pc.count_distinct(ids).as_py()
    num_named: int = len(ids) - ids.null_count
    return num_named - num_distinct


def _joined(table: pa.Table, manifest: Manifest, rows: NDArray[np.int64]) -> pa.Table:
    """Columns of the manifest in the order of the features; image_id as the features name it."""
    taken = manifest.table.take(pa.array(rows, mask=rows < 0))
    columns = {"image_id": table.column("image_id")}
    columns |= {name: taken.column(name) for name in taken.column_names if name != "image_id"}
    columns |= {name: table.column(name) for name in table.column_names if name not in columns}
    return pa.table(columns)


def _unreadable(pictures: Pictures, rows: NDArray[np.int64], *, of: str) -> list[str]:
    """A remark where pictures are not where the manifest says; a few are looked for, evenly over the films."""
    listed = rows[rows >= 0]
    looked = listed[np.unique(np.linspace(0, len(listed) - 1, min(LOOKED_FOR, len(listed))).astype(np.int64))]
    faults = []
    for row in looked:
        try:
            pictures.size(int(row))
        except ManifestError as error:
            faults.append(str(error).rstrip("."))
    if not faults:
        return []
    return [
        f"{len(faults)} of {len(looked)} pictures looked for cannot be read; the first: {faults[0]}. The map opens "
        f"without them. Have they moved? Then give a manifest that lies where they are, in place of {of}."
    ]


def _hint(features: FeatureTable) -> str:
    root = features.about.get("images_relative_to")
    made = Path(str(root)) / "manifest.parquet" if root else None
    example = str(made) if made is not None and made.is_file() else "M.parquet"
    return f"No manifest: the map shows ids alone. Pictures and columns come with --manifest {example}."
