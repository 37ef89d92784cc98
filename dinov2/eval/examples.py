"""The door datasets -> features and probes: pictures of a split, and what is known of them.

In: a `Manifest` and labels or masks. Out: `Examples` per split, in an `EvalData` whose splits share no patient.

Legend: N pictures, C classes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from dinov2.errors import ManifestError
from dinov2.manifest import Manifest

Task = Literal["multilabel", "multiclass", "segmentation"]
Picture = NDArray[Any]  # uint8 or float32 [H, W] or [H, W, 3]; float32 in 0..1
Mask = NDArray[np.uint8]  # [H, W], class index per pixel, 0 being background
UNCERTAIN = -1.0
"""A multi-label entry that the source calls uncertain; NaN is one that nobody stated."""
SPLITS = ("train", "val", "test")
MAX_NAMED = 5


class Reader(Protocol):
    """Reads the picture and the mask of a row; it is sent to worker processes, so it pickles."""

    def picture(self, row: int) -> Picture:
        """Grey [H, W] or colour [H, W, 3].  Raises ManifestError, naming the row, where it cannot be read."""

    def mask(self, row: int) -> Mask:
        """Class indices [H, W] of the same size as the picture.  Raises ManifestError."""


@dataclass(frozen=True, kw_only=True)
class Examples:
    """One split. The order of `classes` is the dataset's and the same in every split."""

    name: str  # what messages and tables call it
    manifest: Manifest  # N rows; columns beyond the standard ones (sex, age, site ...) are for subgroups
    reader: Reader
    task: Task
    classes: tuple[str, ...]  # with segmentation, class 0 (background) is not in it: classes[i] is mask value i + 1
    labels: NDArray[np.float32]  # multilabel [N, C] of 1, 0, UNCERTAIN, NaN; multiclass [N] index; segmentation [N, 0]
    patients: NDArray[np.str_]  # [N]; a picture without a patient is its own
    volumes: NDArray[np.str_] | None = None  # [N] where rows are slices: rows of one volume are one case

    def __len__(self) -> int:
        return len(self.manifest)

    @property
    def ids(self) -> NDArray[np.str_]:
        """[N] names of the pictures."""
        return np.asarray(self.manifest.table.column("image_id").to_pylist(), dtype=np.str_)

    def group(self, column: str) -> NDArray[np.str_]:
        """[N] values of a manifest's column as text, empty where not known; all empty if there is no such column."""
        if column not in self.manifest.table.column_names:
            return np.full(len(self), "", dtype=np.str_)
        values = self.manifest.table.column(column).to_pylist()
        return np.asarray(["" if value is None else str(value) for value in values], dtype=np.str_)

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> "Examples":
        """Some rows, in the order given."""
        chosen = np.asarray(rows, dtype=np.int64)
        return replace(
            self,
            manifest=Manifest(self.manifest.table.take(chosen), self.manifest.root),
            reader=_Taken(self.reader, chosen),
            labels=self.labels[chosen],
            patients=self.patients[chosen],
            volumes=None if self.volumes is None else self.volumes[chosen],
        )


@dataclass(frozen=True, kw_only=True)
class EvalData:
    """What a probe is fitted on, chosen on and reported on.  `val` and `test` may be absent."""

    train: Examples
    val: Examples | None
    test: Examples | None

    def __post_init__(self) -> None:
        present = list(self.splits())
        for _, examples in present[1:]:
            if examples.classes != self.train.classes or examples.task != self.train.task:
                raise ManifestError(
                    f"{examples.name}: its classes are {list(examples.classes)}, those of train are "
                    f"{list(self.train.classes)}. Give every split the same labels, in the same order."
                )
        for place, (first, one) in enumerate(present):
            for second, other in present[place + 1 :]:
                _refuse_shared(one, other, names=(first, second))

    def splits(self) -> Iterator[tuple[str, Examples]]:
        """Name and examples of those that are there: train, val, test."""
        for name, examples in zip(SPLITS, (self.train, self.val, self.test), strict=True):
            if examples is not None:
                yield name, examples


def _refuse_shared(one: Examples, other: Examples, *, names: tuple[str, str]) -> None:
    shared = sorted(_patients_of(one) & _patients_of(other))
    if shared:
        listed = ", ".join(patient for _, patient in shared[:MAX_NAMED]) + (", ..." if len(shared) > MAX_NAMED else "")
        raise ManifestError(
            f"{len(shared)} patients are in both {names[0]} ({one.name}) and {names[1]} ({other.name}): {listed}. "
            "Scores would be too good. Split by patient: dinov2 manifest split MANIFEST --val 0.1 --test 0.2"
        )


def _patients_of(examples: Examples) -> set[tuple[str, str]]:
    return set(zip(examples.group("dataset").tolist(), examples.patients.tolist(), strict=True))


class _Taken:
    """A reader of chosen rows."""

    def __init__(self, reader: Reader, rows: NDArray[np.int64]) -> None:
        self._reader, self._rows = reader, rows

    def picture(self, row: int) -> Picture:
        return self._reader.picture(int(self._rows[row]))

    def mask(self, row: int) -> Mask:
        return self._reader.mask(int(self._rows[row]))
