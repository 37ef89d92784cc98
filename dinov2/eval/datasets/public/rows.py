"""What the public datasets' readers share: pictures below a folder, their splits, their rows as a manifest.

In: a folder, paths, tables. Out: paths; a `Manifest` whose column `split` says train, val and test.
"""

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dinov2.errors import ManifestError
from dinov2.eval.datasets.splits import role_of
from dinov2.layouts.layout import RASTER
from dinov2.layouts.pictures import keys, list_pictures, locate
from dinov2.manifest import Manifest, from_rows
from dinov2.manifest.edit import split_by_patient, with_columns

SEED = 0  # of the splits of datasets that define none

log = logging.getLogger(__name__)


def pictures_below(folder: Path, *, name: str) -> list[str]:
    """PNG, JPEG and TIFF files below a folder, relative to it, sorted.  Raises ManifestError where there is none."""
    found: list[str] = list_pictures(folder, suffixes=RASTER).to_pylist()
    if not found:
        raise ManifestError(
            f"{name}: no picture below {folder} (looked for {', '.join(RASTER)}). "
            "DICOM files are converted first: dinov2 preprocess --input DICOMS --output PICTURES, then extra=PICTURES."
        )
    return found


def is_mask(path: str) -> bool:
    """Whether a path's name, or a folder of it, says that it is a mask."""
    return any("mask" in part.lower() for part in PurePosixPath(path).parts)


def split_in(path: str) -> str:
    """train, val or test where a folder of the path is called so; empty text otherwise."""
    folders = PurePosixPath(path).parts[:-1]
    return next((role for part in folders if (role := role_of(part))), "")


def unique_ids(paths: Sequence[str]) -> list[str]:
    """File names without suffix, or with their folders where two are the same."""
    stems = [PurePosixPath(path).stem for path in paths]
    return stems if len(set(stems)) == len(stems) else [re.sub(r"\.[^./]*$", "", path) for path in paths]


def find_pictures(names: Sequence[str], *, folder: Path, name: str) -> list[str | None]:
    """For each picture's name (its suffix does not matter) the path below the folder, None where it is absent.

    Raises ManifestError where none is there.
    """
    below = pa.array(pictures_below(folder, name=name), pa.string())
    found, _ = locate(pa.chunked_array([pa.array(names, pa.string())]), pictures=below, depth=1)
    if found.null_count == len(names):
        raise ManifestError(
            f"{name}: none of its {len(names):,} pictures is below {folder}; the first is {names[0]}. Give their "
            "folder as extra=FOLDER."
        )
    if found.null_count:
        log.warning("%s: %d of %d pictures are not on disk; left out.", name, found.null_count, len(names))
    paths: list[str | None] = found.to_pylist()
    return paths


def to_manifest(rows: Iterable[Mapping[str, Any]], *, root: Path, dataset: str) -> Manifest:
    """Rows as a manifest; `source` is the picture."""
    return from_rows(({**row, "dataset": dataset, "source": row["image"]} for row in rows), root=root)


def with_splits(manifest: Manifest, *, name: str, val: float, test: float) -> Manifest:
    """The splits that the rows state; else those of the folders; else drawn by patient, as shares."""
    stated = pc.fill_null(manifest.table.column("split"), "")
    if pc.any(pc.not_equal(stated, "")).as_py():
        return manifest
    folders = [split_in(path) for path in manifest.table.column("image").to_pylist()]
    if all(folders):
        return with_columns(manifest, {"split": pa.array(folders, pa.string())})
    return with_drawn_splits(manifest, name=name, val=val, test=test)


def with_drawn_splits(manifest: Manifest, *, name: str, val: float, test: float) -> Manifest:
    """Splits drawn by patient; the same on every machine.  A published split is better, and the warning says so."""
    log.warning(
        "%s defines no split: patients were drawn (seed %d), %.0f%% to val and %.0f%% to test. For another split, make "
        "a manifest (dinov2 manifest build) and split that (dinov2 manifest split).",
        name,
        SEED,
        100 * val,
        100 * test,
    )
    return split_by_patient(manifest, val=val, test=test, seed=SEED)


def stems_of(paths: Sequence[str]) -> list[str]:
    """File names without a picture's suffix."""
    stems: list[str] = keys(pa.chunked_array([pa.array(paths, pa.string())]), depth=1).to_pylist()
    return stems
