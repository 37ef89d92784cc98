"""The teacher of a checkpoint, without the run around it.

In: `RUN` or `RUN/checkpoints/STEP`. Out: an exported folder.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dinov2.checkpoint.export import export_teacher, make_card
from dinov2.checkpoint.store import find_checkpoint, load_tensors, read_facts
from dinov2.config.load import from_plain
from dinov2.config.schema import Config
from dinov2.errors import CheckpointError
from dinov2.ssl import build_teacher


@dataclass(frozen=True, kw_only=True)
class SavedTeacher:
    """What an export needs of a checkpoint."""

    parts: dict[str, nn.Module]
    config: Config
    facts: dict[str, Any]


def load_teacher(checkpoint: Path) -> SavedTeacher:
    """The teacher's modules on the CPU; only its own tensors are read."""
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
    load_tensors(checkpoint, into={f"networks.teacher.{name}": tensor for name, tensor in state.items()})
    teacher = dict(build(state).items())
    return SavedTeacher(parts=teacher, config=config, facts=facts)


def export_checkpoint(path: Path, *, folder: Path) -> Path:
    """Exports the teacher of a run's newest checkpoint, or of the checkpoint given."""
    checkpoint = find_checkpoint(path)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CheckpointError(f"{folder}: exists and is not empty. Choose another --output-dir, or empty it first.")
    saved = load_teacher(checkpoint)
    provenance = {"checkpoint_step": saved.facts["step"], "pictures_seen": saved.facts["position"]}
    card = make_card(saved.config, saved.parts, step=saved.facts["step"], provenance=provenance)
    return export_teacher(saved.parts, card=card, folder=folder)
