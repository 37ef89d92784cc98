"""The whole backbone, additions to it, or a head alone, trained on pictures.

In: `Examples` and a `Backbone`. Out: a `Probe` whose predictions are `Predictions`; what each fit learnt.

Every fit, the last one on train + validation too, starts from the weights that were given: they are kept on the CPU and
put back first. Each epoch puts the network into train mode again, whatever looked at it in between.

Legend: N pictures, B of a batch, D width, C classes, O outputs of the head.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dinov2.distributed import World, gather_values
from dinov2.eval.backbones import Backbone
from dinov2.eval.examples import Examples
from dinov2.eval.features import autocast
from dinov2.eval.outcome import Predictions
from dinov2.eval.pictures import PictureBatch, Preparation, batches
from dinov2.eval.probes.adapters import (
    Mode,
    learnt_state,
    prepare,
    restore,
    set_training,
)
from dinov2.eval.probes.classification_loss import Balance, Outputs, Targets, targets_of
from dinov2.eval.probes.finetune_augment import Augmentation
from dinov2.eval.probes.finetune_steps import (
    Progress,
    Stepper,
    TrainingSettings,
    epoch_batches,
    stepper_for,
    steps_per_epoch,
)
from dinov2.eval.probes.predictions import predictions_of
from dinov2.eval.probes.uncertainty import Policy

FIRST_STD = 0.01  # of a head's first weights; the first bias is 0


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings(TrainingSettings):
    """What all candidates share; a candidate is a `backbone_lr` and a `head_lr`."""

    mode: Mode = "full"
    mean_patch: bool = True  # the head sees the mean patch token beside the CLS token
    epochs: int = 10
    batch_size: int = 32  # of all processes together
    weight_decay: float = 0.05
    augmentation: Augmentation | None = field(default_factory=Augmentation)
    policy: Policy = "ignore"
    balance: Balance = "none"
    precision: str = "fp32"
    workers: int = 2


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """What a fit learnt, on the CPU."""

    backbone: Mapping[str, Tensor]
    head: Mapping[str, Tensor]
    losses: tuple[float, ...]  # mean of each epoch


class Network(nn.Module):
    """A backbone and a linear map of its CLS token, with the mean patch token beside it if asked for."""

    def __init__(self, backbone: Backbone, *, num_outputs: int, mean_patch: bool) -> None:
        super().__init__()
        self.backbone, self.mean_patch = backbone, mean_patch and backbone.traits.patch_size is not None
        self.head = nn.Linear(backbone.traits.embed_dim * (2 if self.mean_patch else 1), num_outputs)

    def restart_head(self, *, seed: int) -> None:
        """The head's first weights, a function of the seed alone."""
        generator = torch.Generator().manual_seed(seed)
        first = torch.empty(self.head.weight.shape).normal_(std=FIRST_STD, generator=generator)
        with torch.no_grad():
            self.head.weight.copy_(first)
            self.head.bias.zero_()

    def forward(self, pictures: Tensor) -> Tensor:
        """[B, 3, S, S] -> logits [B, O]"""
        tokens = self.backbone(pictures)
        seen = tokens.cls
        if self.mean_patch and tokens.patches is not None:
            seen = torch.cat([seen, tokens.patches.mean(dim=1)], dim=1)
        logits: Tensor = self.head(seen)
        return logits


class FinetuneProbe:
    """A `Probe` on `Examples`; candidates are trained one after the other."""

    def __init__(
        self,
        backbone: Backbone,
        *,
        settings: FinetuneSettings,
        preparation: Preparation,
        world: World,
        score: Callable[[Predictions], float],
        watched: Examples | None = None,
        groups: Sequence[str] = (),
        progress: Progress | None = None,
    ) -> None:
        """`watched` (validation) is scored after every epoch of the fits on train alone."""
        self.settings, self.preparation, self.world = settings, preparation, world
        self.score, self.watched, self.groups = score, watched, groups
        self.progress = progress or (lambda *_: None)
        self.epochs: list[dict[str, Any]] = []  # fitted_on, the candidate, epoch, loss, validation
        self.backbone = backbone.to(world.device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            prepare(backbone, mode=settings.mode, rank=settings.rank, alpha=settings.alpha)
        self._start = learnt_state(backbone, mode=settings.mode)
        self._outputs: Outputs | None = None
        self._network: Network | None = None

    def fit(self, candidates: Sequence[Mapping[str, Any]], split: Examples) -> list[Tuned]:
        """See `Probe.fit`."""
        targets = targets_of(
            split.labels,
            task=split.task,
            num_classes=len(split.classes),
            policy=self.settings.policy,
            balance=self.settings.balance,
            seed=self.settings.seed,
        ).to(self.world.device)
        if self._outputs is None:
            self._outputs = targets.outputs
            self._network = Network(
                self.backbone, num_outputs=targets.outputs.width, mean_patch=self.settings.mean_patch
            ).to(self.world.device)
        titles = [f"{split.name}, {place + 1} of {len(candidates)}" for place in range(len(candidates))]
        return [
            self._fit_one(one, split, targets=targets, title=title)
            for one, title in zip(candidates, titles, strict=True)
        ]

    def predict(self, fitted: Tuned, split: Examples) -> Predictions:
        """See `Probe.predict`; every process has all predictions."""
        restore(self.backbone, fitted.backbone)
        self.network.head.load_state_dict(dict(fitted.head))
        return self._predict(split)

    @property
    def network(self) -> Network:
        """The one network that every fit uses in turn.  Raises AssertionError before the first."""
        assert self._network is not None
        return self._network

    def _fit_one(self, candidate: Mapping[str, Any], split: Examples, *, targets: Targets, title: str) -> Tuned:
        settings, network, device = self.settings, self.network, self.world.device
        restore(self.backbone, self._start)
        network.restart_head(seed=settings.seed)
        trained = _over_processes(network, world=self.world)
        per_epoch = steps_per_epoch(len(split), batch_size=settings.batch_size, world=self.world)
        total = per_epoch * settings.epochs
        stepper = self._stepper(candidate, total_steps=total)
        entries = len(split.classes) if split.task == "multilabel" else 1
        losses: list[float] = []
        status = ""
        for epoch in range(settings.epochs):
            set_training(self.backbone, mode=settings.mode)  # an evaluation may have been in between
            seen = torch.zeros((), device=device)
            for i, (batch, share) in enumerate(self._epoch(split, epoch=epoch)):
                with autocast(device, settings.precision):
                    logits = trained(batch.normalised(device))
                rows = torch.from_numpy(batch.rows).to(device)
                loss = targets.loss(logits.float().unsqueeze(0), rows).sum() / entries * share
                stepper.step(loss)
                seen += loss.detach()
                self.progress(title, epoch * per_epoch + i + 1, total, status)
            losses.append(float(np.mean(gather_values(float(seen), world=self.world))) / per_epoch)
            status = self._told(candidate, split, epoch=epoch, loss=losses[-1])
            self.progress(title, (epoch + 1) * per_epoch, total, status)
        head = {name: value.detach().cpu().clone() for name, value in network.head.state_dict().items()}
        return Tuned(backbone=learnt_state(self.backbone, mode=settings.mode), head=head, losses=tuple(losses))

    def _told(self, candidate: Mapping[str, Any], split: Examples, *, epoch: int, loss: float) -> str:
        """Scores validation if these fits do not see it, and says how it goes."""
        value = None
        if self.watched is not None and not set(self.watched.ids.tolist()) & set(split.ids.tolist()):
            value = self.score(self._predict(self.watched))
        self.epochs.append(
            {"fitted_on": split.name, **candidate, "epoch": epoch + 1, "loss": loss, "validation": value}
        )
        return f"epoch {epoch + 1}: loss {loss:.4f}" + ("" if value is None else f", validation {value:.4f}")

    def _stepper(self, candidate: Mapping[str, Any], *, total_steps: int) -> Stepper:
        return stepper_for(
            self.backbone,
            self.network.head,
            settings=self.settings,
            backbone_lr=candidate["backbone_lr"],
            head_lr=candidate["head_lr"],
            total_steps=total_steps,
            precision=self.settings.precision,
            device=self.world.device,
        )

    def _epoch(self, split: Examples, *, epoch: int) -> Generator[tuple[PictureBatch, float], None, None]:
        settings = self.settings
        return epoch_batches(
            split,
            preparation=self.preparation,
            augment=settings.augmentation,
            batch_size=settings.batch_size,
            workers=settings.workers,
            seed=settings.seed,
            epoch=epoch,
            world=self.world,
        )

    @torch.no_grad()
    def _predict(self, split: Examples) -> Predictions:
        assert self._outputs is not None
        settings, device = self.settings, self.world.device
        self.network.eval()
        rows = np.arange(len(split))[self.world.rank :: self.world.size]
        said: list[Any] = []
        if len(rows):
            found = batches(
                split,
                preparation=self.preparation,
                batch_size=settings.batch_size,
                workers=settings.workers,
                rows=rows,
            )
            with closing(found):
                for batch in found:
                    with autocast(device, settings.precision):
                        logits = self.network(batch.normalised(device))
                    said.append(self._outputs.probabilities(logits.float()).cpu().numpy())
        mine = (rows, np.concatenate(said) if said else np.zeros((0, len(split.classes)), dtype=np.float32))
        scores = np.zeros((len(split), len(split.classes)), dtype=np.float32)
        for places, values in gather_values(mine, world=self.world):
            scores[places] = values
        return predictions_of(split, scores, groups=self.groups)


def _over_processes(network: Network, *, world: World) -> nn.Module:
    """The same network; over several processes one whose gradients are their mean."""
    if world.size == 1:
        return network
    device_ids = [world.device] if world.device.type == "cuda" else None
    # the mask token, for one, has no part in what is computed
    return DistributedDataParallel(network, device_ids=device_ids, find_unused_parameters=True)
