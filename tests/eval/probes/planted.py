"""Features in which the answer is known, as `Labelled` splits."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dinov2.eval.examples import Examples, Mask, Picture, Task
from dinov2.eval.features import Features, Labelled, PatchRows
from dinov2.manifest import from_rows

CLASSES = ("zebra", "apple", "mango")  # not in the alphabet's order
DIM = 12


@dataclass(frozen=True)
class Pictures:
    """A reader of pictures in memory."""

    values: NDArray[np.uint8]  # [N, H, W]

    def picture(self, row: int) -> Picture:
        return self.values[row]

    def mask(self, row: int) -> Mask:
        return np.zeros_like(self.values[row])


def examples_of(
    labels: NDArray[np.float32],
    *,
    name: str,
    task: Task = "multilabel",
    classes: tuple[str, ...] = CLASSES,
    patients: list[str] | None = None,
    pictures: NDArray[np.uint8] | None = None,
    columns: dict[str, list[str]] | None = None,
) -> Examples:
    owners = patients or [f"{name} patient {row}" for row in range(len(labels))]
    rows = [
        {"image": f"{name}{row}.png", "image_id": f"{name}{row}", "patient_id": owners[row]}
        | {column: values[row] for column, values in (columns or {}).items()}
        for row in range(len(labels))
    ]
    return Examples(
        name=name,
        manifest=from_rows(rows, root=Path("/nowhere")),
        reader=Pictures(np.zeros((len(labels), 8, 8), dtype=np.uint8) if pictures is None else pictures),
        task=task,
        classes=classes,
        labels=labels,
        patients=np.asarray(owners),
    )


def planted(
    num: int, *, name: str, task: Task = "multilabel", signal: float = 3.0, noise: float = 0.3, seed: int = 0
) -> Labelled:
    """Class c is direction c of the last block's CLS token and of patch 0; with signal 0 features know nothing."""
    rng = np.random.default_rng([seed, *name.encode()])
    if task == "multilabel":
        labels = (rng.random((num, len(CLASSES))) < 0.4).astype(np.float32)
        shown = labels * 2 - 1
    else:
        labels = rng.integers(0, len(CLASSES), num).astype(np.float32)
        shown = np.eye(len(CLASSES))[labels.astype(int)]
    cls = rng.normal(size=(num, 2, DIM)).astype(np.float32)
    cls[:, 1, : len(CLASSES)] = signal * shown + (noise if signal else 1) * cls[:, 1, : len(CLASSES)]
    patches = rng.normal(size=(num, 6, DIM)).astype(np.float32)
    patches[:, 0, : len(CLASSES)] += 2 * signal * shown
    patches[:, 0, -1] += 8  # by which a query can know it
    features = Features(
        cls=cls, pooled=rng.normal(size=(num, 2, DIM)).astype(np.float32), patches=PatchRows.of(patches), grid=(2, 3)
    )
    return Labelled(features, examples_of(labels, name=name, task=task))


def splits(task: Task = "multilabel", *, signal: float = 3.0, seed: int = 0) -> tuple[Labelled, Labelled, Labelled]:
    train, val, test = (
        planted(num, name=name, task=task, signal=signal, seed=seed)
        for name, num in (("train", 160), ("val", 80), ("test", 120))
    )
    return train, val, test


def with_labels(split: Labelled, labels: NDArray[np.float32]) -> Labelled:
    return Labelled(split.features, replace(split.examples, labels=labels))
