"""Room for batches in memory that the main process and its forked workers share.

In: how large a batch is, and how many may be under way at once. Out: trays: a worker fills one in place, the main
process reads it where it lies, and the tray is free again when the last tensor over it is gone. So a batch is neither
copied on its way, nor does it bring a file descriptor or fresh memory pages with it.

The memory belongs to no file and no name: it ends with the processes that use it, however they end, and does not count
against the size of /dev/shm.
"""

import itertools
import math
import mmap
import weakref
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor

from dinov2.batch import NUM_GLOBAL_CROPS, Made, Replaced
from dinov2.config.schema import Crops
from dinov2.errors import DataError

ALIGNMENT = 64  # bytes; a cache line
PAGE = mmap.PAGESIZE


class Pixels(TypedDict):
    """What of a batch is large.  B pictures, G global and L local crops, S and s their sides, N patches of a global."""

    global_crops: Tensor  # uint8 [G*B, S, S]
    local_crops: Tensor  # uint8 [L*B, s, s]
    masks: Tensor  # bool [G*B, N]


class Arrays(Pixels):
    """The fields of a `Batch`."""

    positions: Tensor  # int64 [B]
    replaced: tuple[Replaced, ...]
    made: Made


@dataclass(frozen=True, kw_only=True)
class BatchShape:
    """The size of a batch of `num_pictures`."""

    num_pictures: int
    crops: Crops
    num_patches: int

    def blank(self) -> Pixels:
        """Tensors of this process's own, not yet filled."""
        return self.over(torch.empty(self.num_bytes, dtype=torch.uint8))

    def over(self, memory: Tensor) -> Pixels:
        """The tensors of a batch over `memory`, uint8 [num_bytes] or more; they share it."""
        start, parts = 0, []
        for shape in self._shapes():
            size = math.prod(shape)
            parts.append(memory[start : start + size].view(shape))
            start += _up(size, ALIGNMENT)
        return Pixels(global_crops=parts[0], local_crops=parts[1], masks=parts[2].view(torch.bool))

    @property
    def num_bytes(self) -> int:
        """Of all tensors, each from a cache line of its own on."""
        return sum(_up(math.prod(shape), ALIGNMENT) for shape in self._shapes())

    def _shapes(self) -> tuple[tuple[int, ...], ...]:
        crops, num_globals = self.crops, NUM_GLOBAL_CROPS * self.num_pictures
        return (
            (num_globals, crops.global_crops_size, crops.global_crops_size),
            (crops.local_crops_number * self.num_pictures, crops.local_crops_size, crops.local_crops_size),
            (num_globals, self.num_patches),
        )


class Trays:
    """Shared memory for `count` batches.  To be made before the workers are forked.

    Raises DataError where the system gives no such memory.
    """

    def __init__(self, shape: BatchShape, *, count: int) -> None:
        self.shape = shape
        self._stride = _up(max(1, shape.num_bytes), PAGE)
        try:
            self._memory = mmap.mmap(-1, count * self._stride)  # anonymous, shared; pages appear when they are written
        except OSError as error:
            raise DataError(
                f"no memory for {count} batches of {shape.num_bytes / 1e6:.1f} MB ({error.strerror}). Lower "
                "train.num_workers or data.prefetch_batches, or give the job more memory."
            ) from error
        self._free = deque(range(count))
        self._key = next(_KEYS)
        _OPEN[self._key] = self

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return _trays_of, (self._key,)  # a worker's word of a tray names the trays that the main process has

    @property
    def num_free(self) -> int:
        """Trays that nobody fills or reads."""
        return len(self._free)

    def take(self) -> int | None:
        """A free tray, for a worker to fill; None where all are in use."""
        try:
            return self._free.pop()  # the one used last: its pages are there already
        except IndexError:
            return None

    def fill(self, tray: int) -> Pixels:
        """A tray's tensors, for the worker to write."""
        return self.shape.over(torch.from_numpy(self._array(tray)))

    def lend(self, tray: int) -> Pixels:
        """A tray's tensors; it is free again when the last tensor, view or slice over it is gone."""
        array = self._array(tray)
        returns = weakref.finalize(array, self._free.append, tray)
        returns.atexit = False
        return self.shape.over(torch.from_numpy(array))

    def _array(self, tray: int) -> "np.ndarray[tuple[int], np.dtype[np.uint8]]":
        return np.frombuffer(self._memory, dtype=np.uint8, count=self._stride, offset=tray * self._stride)


@dataclass(frozen=True)
class InTray:
    """A worker's word that a batch lies ready."""

    trays: Trays
    tray: int
    positions: tuple[int, ...]
    replaced: tuple[Replaced, ...]
    made: Made

    def arrays(self) -> Arrays:
        """The batch where it lies."""
        return Arrays(
            **self.trays.lend(self.tray),
            positions=torch.tensor(self.positions, dtype=torch.int64),
            replaced=self.replaced,
            made=self.made,
        )

    def pin_memory(self) -> Arrays:
        """The batch in page-locked memory, from which a copy to the accelerator does not block; the tray is free.

        Called by torch's own thread for that. The memory comes from torch's allocator, which knows of copies that are
        still under way; a tray that is page-locked itself would not.
        """
        lent = self.trays.lend(self.tray)
        return Arrays(
            global_crops=lent["global_crops"].pin_memory(),
            local_crops=lent["local_crops"].pin_memory(),
            masks=lent["masks"].pin_memory(),
            positions=torch.tensor(self.positions, dtype=torch.int64),
            replaced=self.replaced,
            made=self.made,
        )


class Numbered(Iterable[tuple[int, int | None]]):
    """Batch numbers, each with a tray that is free when it is handed out; None where there is none."""

    def __init__(self, batches: range, trays: Trays | None) -> None:
        self.batches, self.trays = batches, trays

    def __iter__(self) -> Iterator[tuple[int, int | None]]:
        for number in self.batches:
            yield number, None if self.trays is None else self.trays.take()

    def __len__(self) -> int:
        return len(self.batches)


_KEYS = itertools.count()
_OPEN: "weakref.WeakValueDictionary[int, Trays]" = weakref.WeakValueDictionary()


def _trays_of(key: int) -> Trays:
    return _OPEN[key]


def _up(size: int, unit: int) -> int:
    return -(-size // unit) * unit
