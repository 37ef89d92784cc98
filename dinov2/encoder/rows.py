"""The pictures of a manifest, read and prepared by worker processes, in batches and in order.

In: a `Manifest` and a `Preparation`. Out: squares of levels with their rows; where one cannot be read, a ManifestError
that names its row.

Legend: B pictures, S side in pixels, D width, h x w grid of patches.
"""

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dinov2.data.dataset import Shards, Unreadable, decode_picture
from dinov2.encoder import levels as reading
from dinov2.encoder.levels import Levels
from dinov2.encoder.preparation import Preparation
from dinov2.errors import ConfigError, ManifestError, PictureError
from dinov2.manifest import PLACES, Manifest

BATCHES_AHEAD = 2  # per worker


@dataclass(frozen=True, kw_only=True)
class EncodedBatch:
    """What a backbone says of B rows of a manifest; tensors on its device, in its format."""

    rows: NDArray[np.int64]  # [B]
    image_ids: tuple[str, ...]  # B
    cls: Tensor  # [B, D]
    patches: Tensor  # [B, D, h, w]

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Squares:
    """Prepared pictures of some rows."""

    rows: NDArray[np.int64]
    squares: list[Levels]


@dataclass(frozen=True)
class _Failed:
    """An error on its way from a worker, which would wrap it into its traceback."""

    message: str


def squares_of(
    manifest: Manifest, *, preparation: Preparation, batch_size: int, workers: int
) -> Generator[Squares, None, None]:
    """Batches of all rows, in their order; the last may be smaller.  Closing it ends the workers.

    `workers` 0 reads in this process. No more than a few batches per worker are in memory.

    Raises:
        ManifestError: a picture cannot be read; names the row.
        ConfigError: a batch size below 1, or a negative number of workers.
    """
    if batch_size < 1 or workers < 0:
        raise ConfigError(f"batch_size={batch_size}, workers={workers}: give 1 or more, and 0 or more.")
    workers = min(workers, -(-len(manifest) // batch_size))
    loader = DataLoader(
        _Rows(manifest, preparation=preparation),
        batch_size=batch_size,
        num_workers=workers,
        collate_fn=_collate,
        worker_init_fn=_start_worker,
        prefetch_factor=BATCHES_AHEAD if workers else None,
        generator=torch.Generator(),  # or else the loader would draw from the process's own
    )
    for batch in loader:
        if isinstance(batch, _Failed):
            raise ManifestError(batch.message)
        yield batch


class _Rows(Dataset["tuple[int, Levels] | _Failed"]):
    def __init__(self, manifest: Manifest, *, preparation: Preparation) -> None:
        known = ("image", *PLACES)
        table = manifest.table.select([name for name in known if name in manifest.table.column_names])
        self._manifest = Manifest(table, manifest.root)
        self._shards = Shards()
        self._preparation = preparation

    def __len__(self) -> int:
        return len(self._manifest)

    def __getitem__(self, row: int) -> "tuple[int, Levels] | _Failed":
        where = f"row {row}: {self._manifest.path(row)}"
        try:
            return row, self._square(row, where=where)
        except (PictureError, ManifestError) as error:
            return _Failed(str(error))
        except (OSError, Unreadable) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            return _Failed(f"{where}: {reason}. Mend the file, or leave the row out.")

    def _square(self, row: int, *, where: str) -> Levels:
        """A row of a manifest is a picture that was made; one of 16 bits is read as the training reads it."""
        place = self._manifest.place(row)
        data = self._shards.read(place) if place.is_packed else place.path.read_bytes()
        image = reading.opened(data, where=where)
        if isinstance(image, Image.Image) and reading.is_deep(image):
            return self._preparation.framing.square(decode_picture(data), where=where)
        return self._preparation.square_of_file(data, where=where)


def _start_worker(_worker: int) -> None:
    torch.set_num_threads(1)  # a worker a core


def _collate(items: "list[tuple[int, Levels] | _Failed]") -> Squares | _Failed:
    read: list[tuple[int, Levels]] = []
    for item in items:
        if isinstance(item, _Failed):
            return item
        read.append(item)
    return Squares(np.asarray([row for row, _ in read], dtype=np.int64), [square for _, square in read])
