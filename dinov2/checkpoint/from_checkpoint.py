"""One network of a checkpoint, without the run around it.

In: `RUN/checkpoints/STEP`. Out: the parts of its teacher or its student on the CPU, and the centres of its losses.
"""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dinov2.checkpoint.reading import load_tensors, read_facts, tensor_metadata
from dinov2.config.schema import Config
from dinov2.models.key_maps import CENTERS
from dinov2.ssl import build_teacher

Which = Literal["teacher", "student"]


@dataclass(frozen=True, kw_only=True)
class SavedNetwork:
    """What an export needs of a checkpoint."""

    parts: dict[str, nn.Module]  # "backbone", "dino_head", "ibot_head"; in evaluation mode, gradients off
    config: Config
    facts: dict[str, Any]
    centers: dict[str, Tensor] = field(default_factory=dict)  # "dino_center", "ibot_center" [K]


def load_network(checkpoint: Path, *, which: Which) -> SavedNetwork:
    """The modules of one network; only its own tensors and the centres are read.

    The student is the network without drop path: the same parameters as its teacher's, the values that were trained.

    Raises:
        CheckpointError: the checkpoint cannot be read, or lacks a tensor of this network.
    """
    from dinov2.config.load import from_plain  # OmegaConf, which opening a file of weights does not need

    facts = read_facts(checkpoint)
    config = from_plain(Config, facts["config"])
    build = partial(
        build_teacher,
        student=config.student,
        dino=config.dino,
        ibot=config.ibot,
        img_size=config.crops.global_crops_size,
    )
    state = {name: torch.empty(tensor.shape) for name, tensor in build(None).state_dict().items()}
    stored = {f"networks.{which}.{name}": tensor for name, tensor in state.items()}
    centers = _empty_centers(checkpoint)
    load_tensors(checkpoint, into=stored | centers)
    flat = {CENTERS[name.removeprefix("networks.")]: center.flatten() for name, center in centers.items()}
    return SavedNetwork(parts=dict(build(state).items()), config=config, facts=facts, centers=flat)


def load_teacher(checkpoint: Path) -> SavedNetwork:
    """The teacher's; see `load_network`."""
    return load_network(checkpoint, which="teacher")


def _empty_centers(checkpoint: Path) -> dict[str, Tensor]:
    """Those that the checkpoint has, at its shapes and under its names."""
    names = [f"networks.{name}" for name in CENTERS]
    stored = tensor_metadata(checkpoint)
    return {name: torch.empty(stored[name].size) for name in names if name in stored}
