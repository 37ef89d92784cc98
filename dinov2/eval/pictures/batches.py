"""Pictures read by worker processes, prepared, in batches and in order.

In: `Examples` and a `Preparation`. Out: `PictureBatch`es; where a picture cannot be read, one ManifestError.

Legend: B pictures, S side in pixels.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dinov2.errors import ConfigError, ManifestError
from dinov2.eval.examples import Examples, Mask, Picture
from dinov2.eval.pictures.preparation import Preparation

BATCHES_AHEAD = 2  # per worker


class Augment(Protocol):
    """Draws a square from a picture, in the place of the preparation; it is sent to workers, so it pickles."""

    def __call__(
        self, picture: Picture, mask: Mask | None, *, preparation: Preparation, rng: np.random.Generator
    ) -> tuple[NDArray[Any], Mask | None]:
        """Picture [H, W(, 3)] and mask [H, W] -> picture [S, S(, 3)] and mask [S, S], by one geometry."""


@dataclass(frozen=True, kw_only=True)
class PictureBatch:
    """B prepared pictures."""

    rows: NDArray[np.int64]  # [B] of the examples
    pictures: Tensor  # [B, 1 or 3, S, S] uint8, or float32 in 0..1
    masks: Tensor | None  # uint8 [B, S, S]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __len__(self) -> int:
        return len(self.rows)

    def normalised(self, device: torch.device | str) -> Tensor:
        """What a backbone takes; grey becomes three equal channels.  -> float32 [B, 3, S, S]"""
        moved = self.pictures.to(device, non_blocking=True)
        levels = moved.float() / 255 if moved.dtype == torch.uint8 else moved
        mean, std = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (self.mean, self.std))
        return (levels - mean) / std


def batches(
    examples: Examples,
    *,
    preparation: Preparation,
    batch_size: int,
    workers: int,
    rows: Sequence[int] | NDArray[np.int64] | None = None,
    masks: bool = False,
    augment: Augment | None = None,
    seed: int = 0,
) -> Generator[PictureBatch, None, None]:
    """Batches of `rows` (default: all), in their order; the last may be smaller.  Closing it ends the workers.

    `workers` 0 reads in this process. `augment` gets a generator of `seed` and the row, so that what it draws depends
    neither on the workers nor on the order; give another seed each epoch.

    Raises:
        ManifestError: a picture or mask cannot be read, or its mask has another size; names the row.
        ConfigError: a batch size below 1, or a negative number of workers.
    """
    if batch_size < 1 or workers < 0:
        raise ConfigError(f"--batch-size {batch_size} --workers {workers}: give 1 or more, and 0 or more.")
    chosen = np.arange(len(examples)) if rows is None else np.asarray(rows, dtype=np.int64)
    loader = DataLoader(
        _Prepared(examples, preparation=preparation, masks=masks, augment=augment, seed=seed),
        batch_size=batch_size,
        sampler=chosen.tolist(),
        num_workers=min(workers, -(-len(chosen) // batch_size)),
        collate_fn=_collate,
        worker_init_fn=_start_worker,
        prefetch_factor=BATCHES_AHEAD if workers and len(chosen) else None,
        generator=torch.Generator(),  # or else the loader would draw from the process's own
    )
    for item in loader:
        if isinstance(item, _Unreadable):
            raise ManifestError(item.message)
        read_rows, pictures, read_masks = item
        yield PictureBatch(
            rows=read_rows, pictures=pictures, masks=read_masks, mean=preparation.mean, std=preparation.std
        )


@dataclass(frozen=True)
class _Unreadable:
    """An error on its way from a worker, which would wrap it into its traceback."""

    message: str


@dataclass(frozen=True)
class _Item:
    row: int
    picture: NDArray[Any]
    mask: Mask | None


class _Prepared(Dataset["_Item | _Unreadable"]):
    def __init__(
        self, examples: Examples, *, preparation: Preparation, masks: bool, augment: Augment | None, seed: int
    ) -> None:
        self._examples, self._preparation = examples, preparation
        self._masks, self._augment, self._seed = masks, augment, seed

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, row: int) -> _Item | _Unreadable:
        try:
            return self._read(row)
        except (ManifestError, OSError, ValueError, cv2.error) as error:
            # The reader's own message names the row; that of a library does not.
            named = "" if isinstance(error, ManifestError) else f"{self._path(row)}: cannot be read: "
            return _Unreadable(f"{self._examples.name}, row {row}: {named}{error}")

    def _read(self, row: int) -> _Item:
        picture = self._examples.reader.picture(row)
        mask = self._examples.reader.mask(row) if self._masks else None
        if mask is not None and mask.shape != picture.shape[:2]:
            raise ManifestError(
                f"{self._path(row)}: its mask is {mask.shape[1]} x {mask.shape[0]} pixels, the picture "
                f"{picture.shape[1]} x {picture.shape[0]}. Give a mask of the picture's size."
            )
        if self._augment is None:
            prepared: NDArray[Any] = self._preparation.picture(picture)
            mask = None if mask is None else self._preparation.mask(mask)
        else:
            rng = np.random.default_rng([self._seed, row])
            prepared, mask = self._augment(picture, mask, preparation=self._preparation, rng=rng)
        return _Item(row, prepared, mask)

    def _path(self, row: int) -> str:
        return str(self._examples.manifest.path(row))


def _start_worker(_worker: int) -> None:
    cv2.setNumThreads(0)  # a worker a core; threads of their own would only take cores from each other
    torch.set_num_threads(1)


def _collate(items: list[_Item | _Unreadable]) -> "tuple[NDArray[np.int64], Tensor, Tensor | None] | _Unreadable":
    """One kind for the whole batch: colour if any picture has it, numbers in 0..1 if any has them."""
    read: list[_Item] = []
    for item in items:
        if isinstance(item, _Unreadable):
            return item
        read.append(item)
    in_colour = any(item.picture.ndim == 3 for item in read)
    in_levels = all(item.picture.dtype == np.uint8 for item in read)
    pictures = []
    for item in read:
        picture = item.picture if item.picture.ndim == 3 else item.picture[..., None]
        if in_colour and picture.shape[2] == 1:
            picture = np.repeat(picture, 3, axis=2)
        if not in_levels:
            picture = picture.astype(np.float32) / 255 if picture.dtype == np.uint8 else picture
        pictures.append(np.ascontiguousarray(picture.transpose(2, 0, 1)))
    masks = [item.mask for item in read if item.mask is not None]
    return (
        np.asarray([item.row for item in read], dtype=np.int64),
        torch.from_numpy(np.stack(pictures)),
        torch.from_numpy(np.stack(masks)) if masks else None,
    )
