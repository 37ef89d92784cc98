"""Features as a Parquet file, a row a picture, written as they come.

In: a backbone and `Examples`. Out: columns image_id, image, further ones of the manifest, `cls` and on request `pooled`
(fixed-size lists of float32) and `patches` (one list a picture, patch by patch, float32 or float16); what made them
under `dinov2` in the schema's metadata, as JSON.
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
import torch

from dinov2 import __version__
from dinov2.errors import ConfigError, ManifestError
from dinov2.eval.backbones.backbone import Backbone
from dinov2.eval.examples import Examples
from dinov2.eval.features.features import Floats
from dinov2.eval.features.forward import FeatureBatch, Form, feature_batches, form_of, patch_kind
from dinov2.eval.pictures import Preparation

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
    backbone: Backbone,
    examples: Examples,
    *,
    form: TableForm,
    preparation: Preparation,
    batch_size: int,
    workers: int,
    device: torch.device | str,
    precision: str = "fp32",
    advance: Callable[[int], None] | None = None,
) -> None:
    """Writes the file, which appears whole or not at all.

    Raises:
        ManifestError: a picture cannot be read, its features are not finite, or there is no such column.
        ConfigError: the backbone has no patch tokens, or does not take the size.
    """
    manifest = examples.manifest
    missing = [name for name in form.columns if name not in manifest.table.column_names]
    if missing:
        raise ManifestError(
            f"--columns: {examples.name} has no {', '.join(missing)}. It has {', '.join(manifest.table.column_names)}."
        )
    taken = {"cls", *(["pooled"] if form.pooled else []), *(["patches"] if form.patches else [])} & set(form.columns)
    if taken:
        raise ConfigError(f"--columns {', '.join(sorted(taken))}: features have this name. Rename it in the manifest.")
    given = form_of(backbone, blocks=1, patches=form.pooled or form.patches, preparation=preparation, device=device)
    plain = manifest.table.select(["image_id", "image", *form.columns])
    about = {
        "backbone": backbone.traits.name,
        "fingerprint": backbone.traits.fingerprint,
        **asdict(preparation),
        "precision": precision,
        "grid": given.grid,
        "version": __version__,
        "images_relative_to": str(manifest.root),
    }
    schema = _schema(plain.schema, form=form, given=given, precision=precision)
    row_bytes = sum(
        field.type.list_size * field.type.value_type.bit_width // 8
        for field in schema
        if pa.types.is_fixed_size_list(field.type)
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        with (
            pq.ParquetWriter(partial, schema.with_metadata({METADATA: json.dumps(about).encode()})) as writer,
            closing(
                feature_batches(
                    backbone,
                    examples,
                    blocks=1,
                    patches=form.patches,
                    preparation=preparation,
                    batch_size=batch_size,
                    workers=workers,
                    device=device,
                    precision=precision,
                )
            ) as found,
        ):
            groups = _Groups(writer, schema=schema, rows=max(1, BYTES_PER_GROUP // row_bytes))
            for batch in found:
                rows = plain.slice(int(batch.rows[0]), len(batch.rows))
                groups.add(pa.table([*rows.columns, *_columns(batch, form=form)], schema=schema))
                if advance is not None:
                    advance(len(batch.rows))
            groups.flush()
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


class _Groups:
    """Gathers small tables into row groups of a file."""

    def __init__(self, writer: Any, *, schema: pa.Schema, rows: int) -> None:
        self._writer, self._schema, self._rows = writer, schema, rows
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
