"""Small features files, manifests and pictures for the tests."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

NUM, WIDTH = 40, 16


def write_features(
    path: Path, *, num: int = NUM, vectors: Any = None, columns: Mapping[str, Any] | None = None
) -> Path:
    """Two groups of vectors; ids film-0, film-1, ..."""
    if vectors is None:
        rng = np.random.default_rng(0)
        vectors = rng.normal(size=(num, WIDTH)) + 6 * (np.arange(num)[:, None] % 2) * np.eye(WIDTH)[0]
    vectors = np.asarray(vectors, dtype=np.float32)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
    names = [f"film-{row}" for row in range(len(vectors))]
    plain = {"image_id": names, "image": [f"{name}.png" for name in names], **(columns or {})}
    pq.write_table(pa.table({**plain, "cls": lists}), path)
    return path


def write_films(folder: Path, *, num: int = NUM, skip: Sequence[int] = (), **columns: Sequence[Any]) -> Path:
    """Pictures of grey levels 5 x row, apart from `skip`, and their manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    for row in range(num):
        if row not in skip:
            Image.fromarray(np.full((30, 20), 5 * row % 256, np.uint8)).save(folder / f"film-{row}.png")
    names = [f"film-{row}" for row in range(num)]
    table = {
        "image": [f"{name}.png" for name in names],
        "image_id": names,
        "view": [("AP", "PA", "PA", None)[row % 4] for row in range(num)],
        "age": [20.5 + row for row in range(num)],
        **columns,
    }
    pq.write_table(pa.table(table), folder / "manifest.parquet")
    return folder / "manifest.parquet"
