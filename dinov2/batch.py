"""The door between `data` and `ssl`: what one process trains on in one step.

In: arrays from the loader. Out: a checked `Batch` of uint8 crops, and `Views`, the same crops as normalised floats on
the device.

Legend: B pictures of this process, G global crops and L local crops a picture, S and s their sides in pixels, N
patches of a global crop, C input channels. Crops are stacked crop-major: crop 0 of every picture, then crop 1 of
every picture, and so on.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

NUM_GLOBAL_CROPS = 2


@dataclass(frozen=True, kw_only=True)
class Replaced:
    """A picture that could not be read, and why; its place was taken by its neighbour in the sample stream."""

    position: int
    path: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Made:
    """Who made a batch, and how long that took."""

    worker: int  # number of the loader process; 0 also where there is none
    process: int
    seconds: float
    slowest_path: str  # the picture that took longest to read
    slowest_seconds: float


@dataclass(frozen=True, kw_only=True)
class Views:
    """Crops as the networks see them."""

    global_crops: Tensor  # float [G*B, C, S, S]
    local_crops: Tensor  # float [L*B, C, s, s]; L may be 0
    masks: Tensor  # bool [G*B, N]; True = hidden from the student
    hidden: Tensor | None = None  # int64 [M], where `masks` is true among the G*B*N patches, where that is known

    def hidden_patches(self) -> Tensor:
        """`hidden`; where it has to be looked up, the device is waited for.  -> int64 [M]"""
        return self.hidden if self.hidden is not None else places_of(self.masks)

    @property
    def num_pictures(self) -> int:
        """B."""
        return self.global_crops.shape[0] // NUM_GLOBAL_CROPS

    @property
    def num_local_crops(self) -> int:
        """L."""
        return self.local_crops.shape[0] // self.num_pictures


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Crops as the loader hands them over: one channel, uint8."""

    global_crops: Tensor  # uint8 [G*B, S, S]
    local_crops: Tensor  # uint8 [L*B, s, s]; L may be 0
    masks: Tensor  # bool [G*B, N]
    positions: Tensor  # int64 [B]; place of each picture in the sample stream
    replaced: tuple[Replaced, ...] = ()
    made: Made | None = None
    hidden: Tensor | None = None  # int64 [M], see `Views`; known from the moment it is brought to a device

    def __post_init__(self) -> None:
        faults = []
        num_pictures = self.positions.shape[0]
        if self.global_crops.dtype != torch.uint8 or self.local_crops.dtype != torch.uint8:
            faults.append(f"crops must be uint8, got {self.global_crops.dtype} and {self.local_crops.dtype}")
        if self.global_crops.ndim != 3 or self.global_crops.shape[0] != NUM_GLOBAL_CROPS * num_pictures:
            faults.append(
                f"global_crops must be [{NUM_GLOBAL_CROPS * num_pictures}, S, S], got {list(self.global_crops.shape)}"
            )
        if self.local_crops.ndim != 3 or (num_pictures and self.local_crops.shape[0] % num_pictures):
            faults.append(f"local_crops must be [L*{num_pictures}, s, s], got {list(self.local_crops.shape)}")
        if self.masks.dtype != torch.bool or self.masks.shape[0] != self.global_crops.shape[0]:
            faults.append(
                f"masks must be bool [{self.global_crops.shape[0]}, N], got {self.masks.dtype} {list(self.masks.shape)}"
            )
        if faults:
            raise ValueError("Batch: " + "; ".join(faults))

    def to(self, device: torch.device) -> "Batch":
        """The same batch on `device`; the copy does not block where the memory is pinned.

        How many patches are hidden is found here, where nothing has to be waited for.
        """
        return Batch(
            global_crops=self.global_crops.to(device, non_blocking=True),
            local_crops=self.local_crops.to(device, non_blocking=True),
            masks=self.masks.to(device, non_blocking=True),
            positions=self.positions,
            replaced=self.replaced,
            made=self.made,
            hidden=places_of(self.masks).to(device, non_blocking=True),
        )

    def views(self, *, mean: tuple[float, ...], std: tuple[float, ...]) -> Views:
        """uint8 grey to normalised float32 with one channel per entry of `mean` and `std` (both in 0..1 units)."""
        return Views(
            global_crops=normalise(self.global_crops, mean=mean, std=std),
            local_crops=normalise(self.local_crops, mean=mean, std=std),
            masks=self.masks,
            hidden=self.hidden,
        )


def places_of(masks: Tensor) -> Tensor:
    """Where a mask is true, crop by crop.  bool [G*B, N] -> int64 [M]"""
    return masks.flatten().nonzero().squeeze(1)


def normalise(crops: Tensor, *, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """(crops / 255 - mean) / std per channel.  uint8 [M, S, S] -> float32 [M, C, S, S]"""
    scale = torch.tensor([1 / (255 * s) for s in std], device=crops.device).view(1, -1, 1, 1)
    shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=crops.device).view(1, -1, 1, 1)
    return torch.addcmul(shift, crops.unsqueeze(1).to(torch.float32), scale)
