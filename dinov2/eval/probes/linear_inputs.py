"""What a head sees of the features: CLS tokens of the last n blocks, and the mean patch token of the last.

In: `Features`. Out: [N, F] by name, as views of one array, so that a grid of inputs costs the memory of the widest.

Legend: N pictures, L blocks kept, D width, F = (n + pooled) x D.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dinov2.errors import ConfigError
from dinov2.eval.features import Features


@dataclass(frozen=True, order=True)
class InputChoice:
    """Blocks and pooling of a head, as the public linear evaluation names them (n_last_blocks, avgpool)."""

    blocks: int
    pooled: bool

    @property
    def name(self) -> str:
        return f"cls of {self.blocks} block{'s' * (self.blocks > 1)}" + (" + mean patch" if self.pooled else "")


def inputs_of(features: Features, choices: Sequence[InputChoice]) -> dict[str, Tensor]:
    """Name of a choice -> [N, F] float32: CLS tokens from the earlier block to the last, then the mean patch token.

    Raises:
        ConfigError: more blocks than were kept, or no patch tokens to average.
    """
    most = max(choice.blocks for choice in choices)
    cls = np.asarray(features.cls)
    if most > cls.shape[1]:
        raise ConfigError(
            f"{most} blocks are asked for and the backbone gives {cls.shape[1]}. Give --blocks {cls.shape[1]}."
        )
    parts = [cls[:, -most:].reshape(len(cls), -1)]
    if any(choice.pooled for choice in choices):
        if features.pooled is None:
            raise ConfigError("this backbone has no patch tokens to average. Give --pooled false.")
        parts.append(np.asarray(features.pooled)[:, -1])
    width = cls.shape[2]
    whole = torch.from_numpy(np.concatenate(parts, axis=1, dtype=np.float32))  # [N, (most + 1) * D]
    return {
        choice.name: whole[:, (most - choice.blocks) * width : (most + choice.pooled) * width]
        for choice in dict.fromkeys(choices)
    }


def input_of(features: Features, choice: InputChoice) -> NDArray[np.float32]:
    """[N, F] of one choice.  Raises ConfigError as `inputs_of` does."""
    array: NDArray[np.float32] = inputs_of(features, [choice])[choice.name].numpy()
    return array
