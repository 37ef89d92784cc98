"""New manifests from old ones: joined with a table, split by patient, merged, moved, measured.

In: manifests. Out: manifests; nothing on disk is changed.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image, UnidentifiedImageError

from dinov2.errors import ManifestError
from dinov2.manifest.table import COLUMNS, Manifest


@dataclass(frozen=True)
class Measured:
    """What a picture file says of itself; all None where it cannot be opened."""

    width: int | None = None
    height: int | None = None
    sha256: str | None = None


def sha256_of(path: Path) -> str:
    """Of a file's bytes, in hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def size_of(path: Path) -> tuple[int, int]:
    """(width, height) in pixels from a picture file's header.  Raises OSError where it is no picture."""
    try:
        with Image.open(path) as picture:
            return picture.size
    except (UnidentifiedImageError, ValueError, SyntaxError) as error:
        raise OSError(f"{path}: not a picture ({error})") from error


def measure(manifest: Manifest) -> Iterator[Measured]:
    """Size and hash of every picture, in the order of the rows."""
    for row in range(len(manifest)):
        path = manifest.path(row)
        try:
            width, height = size_of(path)
            yield Measured(width, height, sha256_of(path))
        except OSError:
            yield Measured()


def with_measures(manifest: Manifest, measures: Sequence[Measured]) -> Manifest:
    """The manifest with width, height and sha256 filled in, one entry of `measures` per row."""
    columns = {name: [getattr(one, name) for one in measures] for name in ("width", "height", "sha256")}
    return _with_columns(manifest, {name: pa.array(values, type=COLUMNS[name]) for name, values in columns.items()})


def with_dataset(manifest: Manifest, name: str) -> Manifest:
    """The manifest with this name in the column `dataset` of every row."""
    return _with_columns(manifest, {"dataset": pa.array([name] * len(manifest), type=pa.string())})


def rebase(manifest: Manifest, root: Path) -> Manifest:
    """The same pictures, with relative paths that start from `root`."""
    old, new = (Path(os.path.normpath(folder.absolute())) for folder in (manifest.root, root))
    if old == new:
        return replace(manifest, root=root)
    image = manifest.table.column("image")
    prefix = Path(os.path.relpath(old, new)).as_posix()
    moved = pc.binary_join_element_wise(pa.scalar(prefix), image, "/")
    moved = pc.if_else(pc.starts_with(image, "/"), image, moved)
    return replace(_with_columns(manifest, {"image": moved}), root=root)


def split_by_patient(manifest: Manifest, *, val: float, test: float, seed: int) -> Manifest:
    """The manifest with `split` drawn anew, so that every patient is in one split.

    `val` and `test` are shares of the patients. The draw depends on the seed and the patients' names, never on the
    order of rows; a row without a patient counts as a patient of its own. Raises ManifestError where the shares leave
    nothing to train on, or are too small for one patient.
    """
    if not (0 <= val < 1 and 0 <= test < 1 and val + test < 1):
        raise ManifestError(f"val {val} and test {test}: give shares from 0, together below 1, so that some train.")
    keys = _patient_keys(manifest)
    patients = sorted(set(keys), key=lambda key: hashlib.sha256(f"{seed}\0{key}".encode()).digest())
    num_test, num_val = (round(share * len(patients)) for share in (test, val))
    for name, share, count in (("val", val, num_val), ("test", test, num_test)):
        if share > 0 and count == 0:
            raise ManifestError(f"{name} {share} of {len(patients)} patients is none. Raise the share, or set it to 0.")
    names = ["test"] * num_test + ["val"] * num_val + ["train"] * (len(patients) - num_test - num_val)
    split_of = dict(zip(patients, names, strict=True))
    return _with_columns(manifest, {"split": pa.array([split_of[key] for key in keys], type=pa.string())})


def merge(manifests: Sequence[Manifest], *, root: Path) -> Manifest:
    """All rows, one manifest after the other; columns that one lacks are null there.

    Raises ManifestError where a column has types that do not go together, or a picture is in two of them.
    """
    try:
        table = pa.concat_tables([rebase(one, root).table for one in manifests], promote_options="permissive")
    except pa.ArrowException as error:
        raise ManifestError(
            f"{' and '.join(str(one.root) for one in manifests)}: a column holds different things ({error}). "
            "Rename it in one of them."
        ) from error
    twice = len(table) - pc.count_distinct(table.column("image")).as_py()
    if twice:
        raise ManifestError(f"{twice} pictures are in more than one of the manifests. Merge each of them once.")
    return Manifest(table, root)


def join(manifest: Manifest, labels: Manifest) -> tuple[Manifest, int]:
    """The rows of `manifest` with what `labels` knows of the same pictures, and how many rows it knows nothing of.

    A picture is found by its path, else its file name, else its file name without suffix, where that name is unique in
    `labels`. Values of `labels` win where they are not null. Raises ManifestError where no row is found.
    """
    places = _places(labels.table.column("image").to_pylist())
    rows = [
        next((places[name] for name in _names(image) if name in places), None)
        for image in manifest.table.column("image").to_pylist()
    ]
    found = pa.array(rows, type=pa.int64())
    if found.null_count == len(rows):
        raise ManifestError(
            f"none of the {len(rows)} pictures is named in the table; it names {labels.row(0)['image']!r}, "
            f"the pictures are {manifest.row(0)['image']!r} and so on. Name the files alike."
        )
    columns = {}
    for name in labels.table.column_names:
        known = labels.table.column(name).take(found)
        if name in ("image", "image_id") or known.null_count == len(rows):
            continue
        columns[name] = (
            pc.coalesce(known, manifest.table.column(name)) if name in manifest.table.column_names else known
        )
    return _with_columns(manifest, columns), found.null_count


def _with_columns(manifest: Manifest, columns: Mapping[str, Any]) -> Manifest:
    table = manifest.table
    for name, values in columns.items():
        place = table.column_names.index(name) if name in table.column_names else None
        table = table.append_column(name, values) if place is None else table.set_column(place, name, values)
    return replace(manifest, table=table)


def _patient_keys(manifest: Manifest) -> list[str]:
    """One name per patient; patient 7 of one dataset is not patient 7 of another."""
    columns = (manifest.table.column(name).to_pylist() for name in ("dataset", "patient", "image"))
    return [
        f"{dataset}\0{patient}" if patient else f"\0\0{image}" for dataset, patient, image in zip(*columns, strict=True)
    ]


def _names(image: str) -> tuple[str, str, str]:
    path = PurePosixPath(image)
    return str(path), path.name, path.stem


def _places(images: Sequence[str]) -> dict[str, int]:
    """Every name that stands for exactly one row."""
    names = [(name, row) for row, image in enumerate(images) for name in dict.fromkeys(_names(image))]
    counts = dict(zip(*np.unique(np.array([name for name, _ in names]), return_counts=True), strict=True))
    return {name: row for name, row in names if counts[name] == 1}
