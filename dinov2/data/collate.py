"""One batch from its positions in the sample stream.

In: positions. Out: arrays in the layout of `dinov2.batch.Batch`: crop-major, uint8. Everything here is a function of
the positions and of the recipe; which process does it makes no difference.

Legend: B pictures, G global and L local crops, S and s their sides, N patches of a global crop.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from dinov2.batch import NUM_GLOBAL_CROPS, Made, Replaced
from dinov2.config.schema import Crops
from dinov2.data.augmentation import AugmentationRecipe, Picture, apply_crop, draw_crops
from dinov2.data.board import Slot
from dinov2.data.dataset import Pictures, Unreadable
from dinov2.data.masking import MaskRecipe
from dinov2.data.stream import SampleStream
from dinov2.data.trays import Arrays, BatchShape, Pixels
from dinov2.errors import DataError

MAX_NEIGHBOURS = 64  # files tried for one place in the stream


@dataclass(frozen=True, kw_only=True)
class BatchMaker:
    """Makes the arrays of any batch."""

    pictures: Pictures
    stream: SampleStream
    crops: Crops
    recipe: AugmentationRecipe
    masks: MaskRecipe
    seed: int

    def shape(self, num_pictures: int) -> BatchShape:
        """The size of a batch."""
        return BatchShape(num_pictures=num_pictures, crops=self.crops, num_patches=self.masks.num_patches)

    def make(
        self, positions: Sequence[int], *, worker: int = 0, slot: Slot | None = None, into: Pixels | None = None
    ) -> Arrays:
        """Decode, crop and mask the pictures at `positions`.  Raises DataError where no file can be read at all.

        `slot`: where this process, loader process `worker`, notes what it does. `into`: the tensors to fill, of
        `shape(len(positions))`; without them, new ones.
        """
        started = time.perf_counter()
        num, crops = len(positions), self.crops
        pixels = self.shape(num).blank() if into is None else into
        global_out, local_out = pixels["global_crops"].numpy(), pixels["local_crops"].numpy()
        mask_out = pixels["masks"].numpy()
        replaced: list[Replaced] = []
        slowest = (0.0, "")
        for i, position in enumerate(positions):
            draws = draw_crops(self.recipe, crops=crops, seed=self.seed, position=position)
            read_started = time.perf_counter()
            picture, path = self._read(position, replaced=replaced, slot=slot)
            slowest = max(slowest, (time.perf_counter() - read_started, path))
            if slot is not None:
                slot.crops()
            for c, draw in enumerate(draws[:NUM_GLOBAL_CROPS]):
                global_out[c * num + i] = apply_crop(picture, draw, size=crops.global_crops_size)
            for c, draw in enumerate(draws[NUM_GLOBAL_CROPS:]):
                local_out[c * num + i] = apply_crop(picture, draw, size=crops.local_crops_size)
            mask_out[i::num] = self.masks.masks(position, num_crops=NUM_GLOBAL_CROPS)
        if slot is not None:
            slot.waits()
        return Arrays(
            **pixels,
            positions=torch.tensor(positions, dtype=torch.int64),
            replaced=tuple(replaced),
            made=Made(
                worker=worker,
                process=os.getpid(),
                seconds=time.perf_counter() - started,
                slowest_path=slowest[1],
                slowest_seconds=slowest[0],
            ),
        )

    def _read(self, position: int, *, replaced: list[Replaced], slot: Slot | None) -> tuple[Picture, str]:
        """The picture at `position`, or the nearest one after it in the stream that can be read, and its path."""
        for neighbour in range(position, position + MAX_NEIGHBOURS):
            row = self.stream.row(neighbour)
            path = str(self.pictures.path(row))
            if slot is not None:
                slot.reads(neighbour, path)
            try:
                return self.pictures.read(row), path
            except Unreadable as reason:
                replaced.append(Replaced(position=position, path=path, reason=str(reason)))
        first = replaced[-MAX_NEIGHBOURS]
        raise DataError(
            f"{MAX_NEIGHBOURS} pictures in a row cannot be read, from position {position} of the sample stream on; "
            f"the first is {first.path}: {first.reason}. Is the disk still there? "
            "dinov2 manifest check tells which files are bad."
        )
