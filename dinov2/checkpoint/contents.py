"""What a checkpoint holds, by part.

In: a checkpoint's folder. Out: parts with counts, parameters and bytes; the shapes that its configuration asks for.
No tensor is read and nothing is allocated.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from dinov2.config.load import from_plain
from dinov2.config.schema import Config
from dinov2.ssl import build_networks

CENTERS = "centers"
OTHER = "other"


@dataclass(frozen=True)
class Place:
    """Where a tensor belongs: `student`, `teacher`, `optimizer`, `centers` or `other`; which of its parts; and the
    name within the part.
    """

    side: str
    part: str
    name: str


@dataclass(frozen=True, kw_only=True)
class PartSize:
    """One part of a checkpoint."""

    num_tensors: int
    num_values: int
    num_bytes: int


def place_of(name: str) -> Place:
    """Reads a stored name: `networks.teacher.backbone.norm.weight`, `optimizer.dino_head.mlp.0.bias.exp_avg` ..."""
    words = name.split(".")
    if words[0] == "networks" and words[1] in ("student", "teacher") and len(words) > 3:
        return Place(words[1], words[2], ".".join(words[3:]))
    if words[0] == "networks" and words[-1] == "center":
        return Place(CENTERS, CENTERS, ".".join(words[1:]))
    if words[0] == "optimizer" and len(words) > 2:
        return Place("optimizer", words[1], ".".join(words[2:]))
    return Place(OTHER, OTHER, name)


def sizes_by_part(stored: Mapping[str, TensorStorageMetadata]) -> dict[tuple[str, str], PartSize]:
    """(side, part) -> how much of it there is, in the order of the checkpoint."""
    sizes: dict[tuple[str, str], PartSize] = {}
    for name, one in stored.items():
        place = place_of(name)
        before = sizes.get((place.side, place.part), PartSize(num_tensors=0, num_values=0, num_bytes=0))
        sizes[place.side, place.part] = PartSize(
            num_tensors=before.num_tensors + 1,
            num_values=before.num_values + math.prod(one.size),
            num_bytes=before.num_bytes + bytes_of(one),
        )
    return sizes


def bytes_of(stored: TensorStorageMetadata) -> int:
    """Of a whole tensor in memory."""
    return int(math.prod(stored.size) * stored.properties.dtype.itemsize)


def expected_shapes(facts: Mapping[str, Any]) -> dict[str, torch.Size]:
    """Name -> shape of every tensor that the checkpoint's own configuration asks for.

    Raises ConfigError where the configuration is that of another version.
    """
    config = from_plain(Config, facts["config"])
    with torch.device("meta"):
        networks = build_networks(
            student=config.student,
            dino=config.dino,
            ibot=config.ibot,
            img_size=config.crops.global_crops_size,
            attention="sdpa",
            reductions=None,
        )
    shapes = {f"networks.{name}": tensor.shape for name, tensor in networks.state_dict().items()}
    for name, parameter in networks.student.named_parameters():
        shapes |= {f"optimizer.{name}.{moment}": parameter.shape for moment in ("exp_avg", "exp_avg_sq")}
        shapes[f"optimizer.{name}.step"] = torch.Size()
    return shapes
