"""Features as a Parquet file, a row a picture, written as they come.

In: an `Extractor` and `Examples`. Out: columns image_id, image, further ones of the manifest, `cls` and on request
`pooled` (fixed-size lists of float32) and `patches` (one list a picture, patch by patch, float32 or float16); what made
them under `dinov2` in the schema's metadata, as JSON.
"""

import json
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dinov2 import __version__
from dinov2.errors import ConfigError, ManifestError
from dinov2.eval.examples import Examples
from dinov2.eval.features.features import Floats
from dinov2.eval.features.forward import Extractor, FeatureBatch, Form, patch_kind
from dinov2.eval.making import making

METADATA = b"dinov2"
BYTES_PER_GROUP = 64 * 2**20


@dataclass(frozen=True, kw_only=True)
class TableForm:
    """Which columns."""

    columns: Sequence[str] = ()  # of the manifest, besides image_id and image
    pooled: bool = False
    patches: bool = False


def write_table(
    path: Path,
    extractor: Extractor,
    examples: Examples,
    *,
    form: TableForm,
    advance: Callable[[int], None] = lambda _: None,
) -> None:
    """Writes the file, which appears whole or not at all.

    Raises:
        ManifestError: a picture cannot be read, its features are not finite, or there is no such column.
        ConfigError: the backbone has no patch tokens, or does not take the size.
    """
    _check_columns(examples, form=form)
    given = extractor.form(blocks=1, patches=form.pooled or form.patches)
    plain = examples.manifest.table.select(["image_id", "image", *form.columns])
    schema = _schema(plain.schema, form=form, given=given, precision=extractor.precision)
    about = json.dumps(_about(extractor, examples, given=given)).encode()
    with making(path.parent, name=path.name) as folder:
        partial = folder / path.name
        with (
            pq.ParquetWriter(partial, schema.with_metadata({METADATA: about})) as writer,
            closing(extractor.batches(examples, blocks=1, patches=form.patches)) as found,
        ):
            groups = _Groups(writer, rows=max(1, BYTES_PER_GROUP // _row_bytes(schema)))
            for batch in found:
                rows = plain.slice(int(batch.rows[0]), len(batch.rows))
                groups.add(pa.table([*rows.columns, *_columns(batch, form=form)], schema=schema))
                advance(len(batch.rows))
            groups.flush()
        partial.replace(path)


def _check_columns(examples: Examples, *, form: TableForm) -> None:
    """Raises ManifestError, ConfigError for columns that are not there or that features need the names of."""
    names = examples.manifest.table.column_names
    missing = [name for name in form.columns if name not in names]
    if missing:
        raise ManifestError(f"--columns: {examples.name} has no {', '.join(missing)}. It has {', '.join(names)}.")
    taken = {"cls", *(["pooled"] if form.pooled else []), *(["patches"] if form.patches else [])} & set(form.columns)
    if taken:
        raise ConfigError(f"--columns {', '.join(sorted(taken))}: features have this name. Rename it in the manifest.")


def _about(extractor: Extractor, examples: Examples, *, given: Form) -> dict[str, Any]:
    """What made the features."""
    return {
        "backbone": extractor.backbone.traits.name,
        "fingerprint": extractor.backbone.traits.fingerprint,
        **asdict(extractor.preparation),
        "precision": extractor.precision,
        "grid": given.grid,
        "version": __version__,
        "images_relative_to": str(examples.manifest.root),
    }


def _row_bytes(schema: pa.Schema) -> int:
    """Of the features of one picture."""
    lists = [field.type for field in schema if pa.types.is_fixed_size_list(field.type)]
    return sum(kind.list_size * kind.value_type.bit_width // 8 for kind in lists)


class _Groups:
    """Gathers small tables into row groups of a file."""

    def __init__(self, writer: Any, *, rows: int) -> None:
        self._writer, self._rows = writer, rows
        self._waiting: list[pa.Table] = []

    def add(self, table: pa.Table) -> None:
        self._waiting.append(table)
        if sum(one.num_rows for one in self._waiting) >= self._rows:
            self.flush()

    def flush(self) -> None:
        if self._waiting:
            self._writer.write_table(pa.concat_tables(self._waiting).combine_chunks())
            self._waiting = []


def _schema(plain: pa.Schema, *, form: TableForm, given: Form, precision: str) -> pa.Schema:
    token = pa.list_(pa.float32(), given.width)
    fields = [*plain, pa.field("cls", token)]
    if form.pooled:
        fields.append(pa.field("pooled", token))
    if form.patches and given.grid is not None:
        kind = pa.from_numpy_dtype(patch_kind(precision))
        fields.append(pa.field("patches", pa.list_(kind, given.grid[0] * given.grid[1] * given.width)))
    return pa.schema(fields)


def _columns(batch: FeatureBatch, *, form: TableForm) -> list[pa.Array]:
    columns = [_lists(batch.cls[:, -1])]
    if form.pooled and batch.pooled is not None:
        columns.append(_lists(batch.pooled[:, -1]))
    if form.patches and batch.patches is not None:
        columns.append(_lists(batch.patches.reshape(len(batch.patches), -1)))
    return columns


def _lists(values: Floats) -> pa.Array:
    """[B, F] -> B lists of F."""
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(values).reshape(-1)), values.shape[1])
