"""New manifests from old ones: measured, named, moved, joined with a table, split by patient.

In: manifests. Out: manifests; nothing on disk is changed. Merging is in `merge`.
"""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dinov2.errors import ManifestError
from dinov2.manifest.columns import COLUMNS
from dinov2.manifest.place import sha256_of, size_of
from dinov2.manifest.table import Manifest, base_and_stem

NAMES_AT_ONCE = 65_536


@dataclass(frozen=True)
class Measured:
    """What a picture file says of itself; all None where it cannot be opened."""

    width: int | None = None
    height: int | None = None
    sha256: str | None = None


def measure(manifest: Manifest) -> Iterator[Measured]:
    """Size and hash of every picture, in the order of the rows."""
    for row in range(len(manifest)):
        place = manifest.place(row)
        try:
            width, height = size_of(place)
            yield Measured(width, height, sha256_of(place))
        except OSError:
            yield Measured()


def with_measures(manifest: Manifest, measures: Sequence[Measured]) -> Manifest:
    """The manifest with width, height and sha256 filled in, one entry of `measures` per row."""
    columns = {name: [getattr(one, name) for one in measures] for name in ("width", "height", "sha256")}
    return with_columns(manifest, {name: pa.array(values, type=COLUMNS[name]) for name, values in columns.items()})


def with_dataset(manifest: Manifest, name: str) -> Manifest:
    """The manifest with this name in the column `dataset` of every row."""
    return with_columns(manifest, {"dataset": pa.array([name] * len(manifest), type=pa.string())})


def with_columns(manifest: Manifest, columns: Mapping[str, Any]) -> Manifest:
    """The manifest with these Arrow columns in the place of those of the same name, new ones last."""
    table = manifest.table
    for name, values in columns.items():
        place = table.column_names.index(name) if name in table.column_names else None
        table = table.append_column(name, values) if place is None else table.set_column(place, name, values)
    return replace(manifest, table=table)


def rebase(manifest: Manifest, root: Path) -> Manifest:
    """The same pictures, with relative paths that start from `root`."""
    old, new = (Path(os.path.normpath(folder.absolute())) for folder in (manifest.root, root))
    if old == new:
        return replace(manifest, root=root)
    image = manifest.table.column("image")
    prefix = Path(os.path.relpath(old, new)).as_posix()
    moved = pc.binary_join_element_wise(pa.scalar(prefix), image, "/")
    moved = pc.if_else(pc.starts_with(image, "/"), image, moved)
    return replace(with_columns(manifest, {"image": moved}), root=root)


def split_by_patient(manifest: Manifest, *, val: float, test: float, seed: int) -> Manifest:
    """The manifest with `split` drawn anew, so that every patient is in one split.

    `val` and `test` are shares of the patients. The draw depends on the seed and the patients' names, never on the
    order of rows; a row without a patient counts as a patient of its own. Raises ManifestError where the shares leave
    nothing to train on, or are too small for one patient.
    """
    if not (0 <= val < 1 and 0 <= test < 1 and val + test < 1):
        raise ManifestError(f"val {val} and test {test}: give shares from 0, together below 1, so that some train.")
    keys = _patient_keys(manifest).combine_chunks().dictionary_encode()
    num_patients = len(keys.dictionary)
    num_test, num_val = (round(share * num_patients) for share in (test, val))
    for name, share, count in (("val", val, num_val), ("test", test, num_test)):
        if share > 0 and count == 0:
            raise ManifestError(f"{name} {share} of {num_patients} patients is none. Raise the share, or set it to 0.")
    place = np.empty(num_patients, dtype=np.int64)  # of each patient in the draw
    place[_drawn(keys.dictionary, seed=seed)] = np.arange(num_patients)
    number = np.where(place < num_test, 0, np.where(place < num_test + num_val, 1, 2))
    names = pa.array(["test", "val", "train"]).take(pa.array(number[np.asarray(keys.indices)]))
    return with_columns(manifest, {"split": names})


def join(manifest: Manifest, labels: Manifest) -> tuple[Manifest, int]:
    """The rows of `manifest` with what `labels` knows of the same pictures, and how many rows it knows nothing of.

    A picture is found by its path, else its file name, else its file name without suffix, where that name is unique in
    `labels`. Values of `labels` win where they are not null. Raises ManifestError where no row is found.
    """
    names, places = _places(labels.table.column("image"))
    found = pa.nulls(len(manifest), pa.int64())
    for form in _forms(manifest.table.column("image")):
        found = pc.coalesce(found, places.take(pc.index_in(form, value_set=names)))
    if found.null_count == len(manifest):
        raise ManifestError(
            f"none of the {len(manifest)} pictures is named in the table; it names {labels.row(0)['image']!r}, "
            f"the pictures are {manifest.row(0)['image']!r} and so on. Name the files alike."
        )
    columns = {}
    for name in labels.table.column_names:
        known = labels.table.column(name).take(found)
        if name in ("image", "image_id") or known.null_count == len(manifest):
            continue
        columns[name] = (
            pc.coalesce(known, manifest.table.column(name)) if name in manifest.table.column_names else known
        )
    return with_columns(manifest, columns), found.null_count


def _patient_keys(manifest: Manifest) -> Any:
    """One name per patient; patient 7 of one dataset is not patient 7 of another."""
    dataset, patient, image = (manifest.table.column(name) for name in ("dataset", "patient", "image"))
    named = pc.binary_join_element_wise(pc.fill_null(dataset, "None"), patient, "\0")
    own = pc.binary_join_element_wise(pa.scalar(""), pa.scalar(""), image, "\0")
    known = pc.fill_null(pc.not_equal(patient, ""), False)
    return pc.if_else(known, named, own)


def _drawn(names: pa.Array, *, seed: int) -> NDArray[np.int64]:
    """The order of the names by their SHA-256 under the seed; some at a time are Python objects."""
    digests = np.empty((len(names), 2), dtype=">u8")
    for start in range(0, len(names), NAMES_AT_ONCE):
        part = names.slice(start, NAMES_AT_ONCE).to_pylist()
        hashed = b"".join(hashlib.sha256(f"{seed}\0{name}".encode()).digest()[:16] for name in part)
        digests[start : start + len(part)] = np.frombuffer(hashed, dtype=">u8").reshape(-1, 2)
    return np.lexsort((digests[:, 1], digests[:, 0]))


def _forms(images: Any) -> tuple[Any, Any, Any]:
    """Path, file name, and file name without suffix of every picture."""
    path = pc.replace_substring_regex(images, pattern=r"^(\./)+", replacement="")
    return path, *base_and_stem(path)


def _places(images: Any) -> tuple[Any, Any]:
    """Every name that stands for exactly one row, and that row."""
    path, base, stem = (form.combine_chunks() for form in _forms(images))
    rows = pa.array(np.arange(len(images)))
    others = (pc.not_equal(base, path), pc.and_(pc.not_equal(stem, base), pc.not_equal(stem, path)))
    names = pa.concat_arrays([path, base.filter(others[0]), stem.filter(others[1])])
    places = pa.concat_arrays([rows, rows.filter(others[0]), rows.filter(others[1])])
    counts = pc.value_counts(names)
    once = counts.field("values").filter(pc.equal(counts.field("counts"), 1))
    unique = pc.is_in(names, value_set=once)
    return names.filter(unique), places.filter(unique)
