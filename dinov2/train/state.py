"""What a run must remember besides its configuration, as named tensors and plain facts.

In: networks, optimiser, scaler. Out: what `checkpoint.store` writes, and the way back. Everything random is
a function of (seed, step, rank) or of (seed, position in the sample stream), so no random state is kept.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dinov2.checkpoint import store
from dinov2.train.step import StepTools


def named_tensors(tools: StepTools) -> dict[str, Tensor]:
    """Networks and optimiser state, under names that do not depend on the number of processes."""
    tensors = {f"networks.{name}": tensor for name, tensor in tools.networks.state_dict().items()}
    for name, parameter in tools.networks.student.named_parameters():
        for key, value in tools.optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{name}.{key}"] = value
    return tensors


def restore_tensors(tools: StepTools, checkpoint: Path) -> None:
    """Puts networks and optimiser back as they were.  Raises CheckpointError where the architecture is another."""
    store.load_tensors(checkpoint, into=named_tensors(tools))


def scaler_facts(scaler: torch.amp.GradScaler) -> dict[str, Any]:
    """The gradient scaler's state; empty where it is off."""
    return dict(scaler.state_dict())


def restore_scaler(scaler: torch.amp.GradScaler, facts: dict[str, Any]) -> None:
    """Puts the scaler back; a run that did not scale before starts with the default scale."""
    if scaler.is_enabled() and facts:
        scaler.load_state_dict(facts)
