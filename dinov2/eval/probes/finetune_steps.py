"""One optimiser with its schedule, from what trainings on pictures share; and how pictures are shared out in an epoch.

In: settings, a backbone with a head, losses; a split. Out: changed parameters; batches of this process.

Legend: B pictures of a batch over all processes, N pictures of a split.
"""

import math
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dinov2.distributed import World
from dinov2.eval.backbones import Backbone
from dinov2.eval.examples import Examples
from dinov2.eval.pictures import Augment, PictureBatch, Preparation, batches
from dinov2.eval.probes.adapters import ALPHA, RANK
from dinov2.eval.probes.finetune_augment import Augmentation
from dinov2.eval.probes.finetune_groups import parameter_groups, warmup_cosine

Progress = Callable[[str, int, int, str], None]
"""What is being done, steps done, steps in all, how it goes."""


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """What a training of a backbone, or of a decoder on one, is told."""

    rank: int = RANK
    alpha: float = ALPHA
    epochs: int
    warmup_share: float = 0.1  # of the steps
    weight_decay: float
    layer_decay: float = 0.75  # of a backbone that learns
    clip_norm: float = 1.0
    augmentation: Augmentation | None = None
    seed: int = 0


class Stepper:
    """AdamW (betas 0.9, 0.999) over `total_steps`, warm-up and half a cosine, gradients clipped to a norm."""

    def __init__(
        self,
        groups: list[dict[str, Any]],
        *,
        total_steps: int,
        warmup_share: float,
        clip_norm: float,
        precision: str,
        device: torch.device,
    ) -> None:
        warmup = max(1, round(warmup_share * total_steps))
        self._parameters = [parameter for group in groups for parameter in group["params"]]
        self._clip_norm = clip_norm
        self._optimizer = torch.optim.AdamW(groups)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer, lambda step: warmup_cosine(step, total=total_steps, warmup=warmup)
        )
        self._scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")

    def step(self, loss: Tensor) -> None:
        """One update from a loss."""
        self._optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(self._scaler.scale(loss))
        self._scaler.unscale_(self._optimizer)
        nn.utils.clip_grad_norm_(self._parameters, self._clip_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._schedule.step()


def stepper_for(
    backbone: Backbone,
    head: nn.Module,
    *,
    settings: TrainingSettings,
    backbone_lr: float,
    head_lr: float,
    total_steps: int,
    precision: str,
    device: torch.device,
) -> Stepper:
    """Of a head, and of what learns of the backbone."""
    groups = parameter_groups(
        backbone,
        head,
        backbone_lr=backbone_lr,
        head_lr=head_lr,
        weight_decay=settings.weight_decay,
        layer_decay=settings.layer_decay,
    )
    return Stepper(
        groups,
        total_steps=total_steps,
        warmup_share=settings.warmup_share,
        clip_norm=settings.clip_norm,
        precision=precision,
        device=device,
    )


def batch_size_over(world: World, *, batch_size: int) -> int:
    """Pictures of a step over all processes: `batch_size`, rounded up so that each has equally many."""
    return math.ceil(batch_size / world.size) * world.size


def steps_per_epoch(num_pictures: int, *, batch_size: int, world: World) -> int:
    """Steps in which every process has at least one picture."""
    whole, rest = divmod(num_pictures, batch_size_over(world, batch_size=batch_size))
    return max(1, whole + (1 if rest >= world.size else 0))


def epoch_batches(
    split: Examples,
    *,
    preparation: Preparation,
    augment: Augment | None,
    batch_size: int,
    workers: int,
    seed: int,
    epoch: int,
    world: World,
    masks: bool = False,
) -> Generator[tuple[PictureBatch, float], None, None]:
    """This process's part of every batch, in an order drawn from (seed, epoch), and what its mean loss counts.

    The second is (its pictures) * (processes) / (pictures of the batch): the mean over processes of what it multiplies
    is then the mean over the pictures. Pictures of a last batch that has fewer of them than there are processes wait
    for the next epoch.
    """
    at_once = batch_size_over(world, batch_size=batch_size)
    order = np.random.default_rng([seed, epoch]).permutation(len(split))
    parts = [order[first : first + at_once] for first in range(0, len(order), at_once)]
    parts = [part for part in parts if len(part) >= world.size] or parts
    mine = np.concatenate([part[world.rank :: world.size] for part in parts])
    found = batches(
        split,
        preparation=preparation,
        batch_size=at_once // world.size,
        workers=workers,
        rows=mine,
        masks=masks,
        augment=augment,
        seed=int(np.random.default_rng([seed, epoch, 1]).integers(2**31)),
    )
    with closing(found):
        for batch, part in zip(found, parts, strict=True):
            yield batch, len(batch) * world.size / len(part)
