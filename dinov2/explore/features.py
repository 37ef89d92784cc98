"""A Parquet file of features, as `dinov2 embed` writes it, in memory.

In: the file, and which of its columns is the map made of. Out: `FeatureTable`: vectors float32 [N, D], a name for every
film, and what else the file says of it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dinov2.errors import ConfigError, ManifestError

METADATA = b"dinov2"
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class FeatureTable:
    """N films, D numbers each."""

    path: Path
    table: pa.Table  # what is no list; `image_id` is filled in every row
    vectors: Floats  # [N, D], finite
    about: Mapping[str, Any]  # what made the features; empty where the file does not say

    def __len__(self) -> int:
        return len(self.vectors)

    @cached_property
    def fingerprint(self) -> str:
        """Of the vectors and their order, in hexadecimal digits."""
        digest = hashlib.sha256(repr(self.vectors.shape).encode())
        digest.update(np.ascontiguousarray(self.vectors).data)
        return digest.hexdigest()

    @property
    def ids(self) -> list[str]:
        """The image_id of every row."""
        names: list[str] = self.table.column("image_id").to_pylist()
        return names


def read_features(path: Path, *, column: str = "cls") -> FeatureTable:
    """The file, of its lists only `column`.

    Raises:
        ManifestError: it is absent, no Parquet file, without a row, or its features are not finite.
        ConfigError: it has no such column of features.
    """
    if not path.is_file():
        raise ManifestError(
            f"{path}: no such file of features. Write one: dinov2 embed --backbone B --manifest M --output {path.name}."
        )
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            _check_column(schema, column=column, path=path)
            plain = [field.name for field in schema if not pa.types.is_nested(field.type)]
            table = file.read(columns=[*plain, column])
    except (pa.ArrowException, OSError) as error:
        raise ManifestError(f"{path}: not a readable Parquet file ({error}). Write it again: dinov2 embed.") from error
    if table.num_rows == 0:
        raise ManifestError(f"{path}: the file has no row. Write it again: dinov2 embed.")
    vectors = _vectors(table.column(column), path=path, name=column)
    return FeatureTable(path, _named(table.select(plain)), vectors, _about(schema))


def _check_column(schema: pa.Schema, *, column: str, path: Path) -> None:
    lists = [field.name for field in schema if _is_list_of_numbers(field.type)]
    if column not in lists:
        has = f"It has {', '.join(lists)}." if lists else "It has none; `dinov2 embed` writes such files."
        raise ConfigError(f"{path}: no column of features named {column}. {has} Name one with --vector.")


def _is_list_of_numbers(kind: pa.DataType) -> bool:
    is_list = pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind)
    return is_list and bool(pa.types.is_floating(kind.value_type))


def _vectors(values: pa.ChunkedArray, *, path: Path, name: str) -> Floats:
    """Lists of one length -> [N, D]"""
    array = values.combine_chunks()
    lengths = pc.unique(pc.list_value_length(array)).to_pylist()
    if len(lengths) != 1 or not lengths[0]:
        raise ManifestError(f"{path}: the lists of column {name} differ in length, or are empty. Write the file again.")
    vectors = np.asarray(array.flatten()).astype(np.float32, copy=False).reshape(len(array), lengths[0])
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        row = int(np.flatnonzero(~finite)[0])
        raise ManifestError(
            f"{path}: {int((~finite).sum())} rows of column {name} hold numbers that are not finite, the first is row "
            f"{row}. Write the file again, or leave these films out."
        )
    return vectors


def _named(table: pa.Table) -> pa.Table:
    """The same with an `image_id` in every row: else the picture's path, else the row's number."""
    names = pa.array([f"row {row}" for row in range(table.num_rows)])
    for column in ("image", "image_id"):
        if column in table.column_names:
            given = table.column(column).cast(pa.string())
            names = pc.if_else(pc.fill_null(pc.not_equal(given, ""), False), given, names)
    if "image_id" in table.column_names:
        table = table.drop_columns(["image_id"])
    return table.add_column(0, "image_id", names)


def _about(schema: pa.Schema) -> Mapping[str, Any]:
    try:
        about = json.loads((schema.metadata or {}).get(METADATA, b"{}"))
    except ValueError:
        return {}
    return about if isinstance(about, dict) else {}
