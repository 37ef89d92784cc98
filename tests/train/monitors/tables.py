"""Examples without pictures: names and labels."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from dinov2.eval.examples import Examples, Mask, Picture, Task
from dinov2.manifest import Manifest


class NoPictures:
    """A reader that is not to be asked."""

    def picture(self, row: int) -> Picture:
        raise AssertionError(row)

    def mask(self, row: int) -> Mask:
        raise AssertionError(row)


def examples_of(
    count: int, *, classes: Sequence[str] = (), labels: Sequence[Any] = (), task: Task = "multilabel"
) -> Examples:
    """So many rows, called film 0, film 1, ..."""
    given = np.asarray(labels, dtype=np.float32) if len(labels) else np.zeros((count, 0), dtype=np.float32)
    return Examples(
        name="rows",
        manifest=Manifest(pa.table({"image_id": [f"film {i}" for i in range(count)]}), Path()),
        reader=NoPictures(),
        task=task,
        classes=tuple(classes),
        labels=given,
        patients=np.asarray([str(i) for i in range(count)]),
    )
