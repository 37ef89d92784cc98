"""Slices of volumes -> one row per volume: the mean over its slices.

In: features per slice. Out: a `Labelled` with a row per volume, in the order of their first slices.
"""

from dataclasses import replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dinov2.errors import ManifestError
from dinov2.eval.examples import Examples
from dinov2.eval.features.features import Features, Floats, Labelled, PatchRows
from dinov2.manifest import Manifest


def by_volume(features: Features, examples: Examples) -> Labelled:
    """Means over the slices of each volume, of every token; labels and patient are those of the first slice.

    Raises:
        ManifestError: slices of a volume differ in label or patient; names the volume.
    """
    if examples.volumes is None:
        raise ValueError(f"{examples.name} has no volumes")
    names, first, of_row = np.unique(examples.volumes, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rows = [np.flatnonzero(of_row == volume) for volume in order]
    for volume, slices in zip(order, rows, strict=True):
        if not (_equal(examples.labels[slices]) and len(set(examples.patients[slices].tolist())) == 1):
            raise ManifestError(
                f"{examples.name}: slices of the volume {names[volume]} have different labels or patients. "
                "Give every slice those of its volume."
            )
    patches = features.patches
    return Labelled(
        replace(
            features,
            cls=_means(features.cls, rows),
            pooled=None if features.pooled is None else _means(features.pooled, rows),
            patches=None if patches is None else PatchRows.of(_means(patches, rows)),
        ),
        _first_slices(examples, first[order], names=names[order]),
    )


def _means(array: "Floats | PatchRows", rows: list[NDArray[np.int64]]) -> Floats:
    return np.stack([np.mean(array[one], axis=0, dtype=np.float64) for one in rows]).astype(array.dtype)


def _equal(labels: NDArray[np.float32]) -> bool:
    return bool(np.array_equal(labels, np.broadcast_to(labels[:1], labels.shape), equal_nan=True))


def _first_slices(examples: Examples, rows: NDArray[np.int64], *, names: NDArray[np.str_]) -> Examples:
    taken = examples.take(rows)
    table = taken.manifest.table
    place = table.schema.get_field_index("image_id")
    table = table.set_column(place, "image_id", pa.array(names.tolist(), type=pa.string()))
    return replace(taken, manifest=Manifest(table, taken.manifest.root))
