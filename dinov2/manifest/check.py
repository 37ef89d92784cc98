"""What is wrong with a manifest, before a long run finds out.

In: a manifest, and another one that must share nothing with it. Out: faults, each naming its rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from dinov2.manifest.edit import sha256_of, size_of
from dinov2.manifest.table import Manifest


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong: its kind, and what and where it is."""

    kind: str  # missing, unreadable, size, content, duplicate, split, shared
    text: str


def file_faults(manifest: Manifest, *, hashes: bool = False) -> Iterator[Fault | None]:
    """For every row in order: what is wrong with its file, or None.

    The file must be there and open as a picture of the width and height that the row states; with `hashes`, its bytes
    must have the sha256 that the row states. Only what a row states is compared.
    """
    for row in range(len(manifest)):
        yield _file_fault(manifest, row, hashes=hashes)


def table_faults(manifest: Manifest) -> list[Fault]:
    """A picture in two rows, the same bytes in two rows, a patient in two splits."""
    faults = []
    for column, words in (("image", "the picture"), ("sha256", "the same picture")):
        for value, images in _images_by(manifest, column, values=_repeated(manifest, column)).items():
            named = value if column == "image" else _few(images)
            faults.append(Fault("duplicate", f"{words} is in {len(images)} rows: {named}"))
    for (dataset, patient), splits in _splits_by_patient(manifest).items():
        if len(splits) > 1:
            faults.append(Fault("split", f"patient {patient}{_of(dataset)} is in the splits {', '.join(splits)}"))
    return faults


def shared_faults(manifest: Manifest, other: Manifest) -> list[Fault]:
    """Pictures (by sha256) and patients (by dataset and name) that are in both manifests."""
    hashes = _values(manifest, "sha256") & _values(other, "sha256")
    shared = _images_by(manifest, "sha256", values=hashes).values()
    faults = [Fault("shared", f"the picture {_few(images)} is in both (same sha256)") for images in shared]
    patients = _splits_by_patient(manifest).keys() & _splits_by_patient(other).keys()
    return faults + [
        Fault("shared", f"patient {patient}{_of(dataset)} is in both") for dataset, patient in sorted(patients)
    ]


def _file_fault(manifest: Manifest, row: int, *, hashes: bool) -> Fault | None:
    path, stated = manifest.path(row), manifest.row(row)
    try:
        if not path.is_file():
            return Fault("missing", f"row {row}: {path} is not there")
        size = size_of(path)
        if any(s is not None and s != f for s, f in zip((stated["width"], stated["height"]), size, strict=True)):
            expected = f"{stated['width']} x {stated['height']}"
            return Fault("size", f"row {row}: {path} is {size[0]} x {size[1]} pixels, and {expected} in the manifest")
        if hashes and stated["sha256"] and sha256_of(path) != stated["sha256"]:
            return Fault("content", f"row {row}: {path} is not the file of the manifest (its sha256 differs)")
    except OSError as error:
        return Fault("unreadable", f"row {row}: {error}")
    return None


def _values(manifest: Manifest, column: str) -> set[str]:
    return {value for value in pc.unique(manifest.table.column(column)).to_pylist() if value}


def _repeated(manifest: Manifest, column: str) -> set[str]:
    counts = pc.value_counts(manifest.table.column(column))
    return {
        value for value in counts.filter(pc.greater(counts.field("counts"), 1)).field("values").to_pylist() if value
    }


def _images_by(manifest: Manifest, column: str, *, values: set[str]) -> dict[str, list[str]]:
    """Value of the column -> the pictures of its rows, for these values."""
    wanted = pc.is_in(manifest.table.column(column), value_set=pa.array(sorted(values), type=pa.string()))
    rows = manifest.table.filter(wanted)
    images: dict[str, list[str]] = {}
    for value, image in zip(rows.column(column).to_pylist(), rows.column("image").to_pylist(), strict=True):
        images.setdefault(value, []).append(image)
    return images


def _splits_by_patient(manifest: Manifest) -> dict[tuple[str, str], list[str]]:
    """(dataset, patient) -> its splits; rows without a patient are left out."""
    columns = (manifest.table.column(name).to_pylist() for name in ("dataset", "patient", "split"))
    splits: dict[tuple[str, str], set[str]] = {}
    for dataset, patient, split in zip(*columns, strict=True):
        if patient:
            splits.setdefault((dataset or "", patient), set()).update([split] if split else [])
    return {key: sorted(names) for key, names in splits.items()}


def _few(images: list[str], *, limit: int = 3) -> str:
    return ", ".join(images[:limit]) + (", ..." if len(images) > limit else "")


def _of(dataset: str) -> str:
    return f" of {dataset}" if dataset else ""
