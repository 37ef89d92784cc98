"""Decoders on patch tokens: how a grid of them is trained, and what one predicts.

In: a `TokenReader` and splits with masks. Out: a `Probe` whose predictions are `Segmentations`.

With a frozen backbone all candidates learn from the same tokens in one pass, each with its own loss and optimiser, so a
candidate's answer does not depend on which others there are. A tuned backbone belongs to one candidate, so there they
are trained one after the other, each from the weights that were given.

Legend: N pictures, B of a batch, K classes with background, h x w patches, S side of a prepared picture.
"""

import math
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from dinov2.eval.outcome import Segmentations
from dinov2.eval.probes.adapters import Mode, learnt_state, prepare, restore, set_training
from dinov2.eval.probes.decoders import DecoderName, build_decoder
from dinov2.eval.probes.finetune_steps import Progress, Stepper, TrainingSettings, stepper_for
from dinov2.eval.probes.segment_losses import LOSSES, LossName
from dinov2.eval.probes.segment_overlap import MaskPair, mask_pair, segmentations_of
from dinov2.eval.probes.segment_tokens import TokenBatch, TokenReader, TokenSplit

Tune = Literal["none", "full", "lora"]
TUNES: tuple[Tune, ...] = ("none", "full", "lora")
MODES: dict[Tune, Mode] = {"none": "frozen", "full": "full", "lora": "lora"}


@dataclass(frozen=True, kw_only=True)
class SegmentSettings(TrainingSettings):
    """What all candidates share; a candidate is an `lr`, of a tuned backbone a `backbone_lr` too."""

    decoder: DecoderName = "linear"
    width: int = 128  # channels inside the decoder
    loss: LossName = "dice+ce"
    tune: Tune = "none"
    epochs: int = 30
    weight_decay: float = 1e-4
    compare_at: int | None = None  # side in pixels; None: the mask's own size


@dataclass(frozen=True, kw_only=True)
class Segmenter:
    """What a fit learnt, on the CPU."""

    decoder: Mapping[str, Tensor]
    backbone: Mapping[str, Tensor]
    losses: tuple[float, ...]  # mean of each epoch


@dataclass
class _Member:
    """One candidate in training."""

    decoder: nn.Module
    stepper: Stepper
    total: Tensor
    losses: list[float]


class SegmentProbe:
    """A `Probe` on `TokenSplit`s."""

    def __init__(
        self,
        reader: TokenReader,
        *,
        settings: SegmentSettings,
        num_classes: int,
        groups: Sequence[str] = (),
        progress: Progress | None = None,
    ) -> None:
        """`num_classes` counts background."""
        self.reader, self.settings, self.num_classes, self.groups = reader, settings, num_classes, groups
        self.progress = progress or (lambda *_: None)
        self.mode = MODES[settings.tune]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            prepare(reader.backbone, mode=self.mode, rank=settings.rank, alpha=settings.alpha)
        self._start = learnt_state(reader.backbone, mode=self.mode)

    def fit(self, candidates: Sequence[Mapping[str, Any]], split: TokenSplit) -> list[Segmenter]:
        """See `Probe.fit`."""
        if self.mode == "frozen":
            return self._fit(candidates, split, title=f"{split.examples.name}, {len(candidates)} decoders")
        fits = []
        for place, candidate in enumerate(candidates):
            restore(self.reader.backbone, self._start)
            fits += self._fit([candidate], split, title=f"{split.examples.name}, {place + 1} of {len(candidates)}")
        return fits

    def predict(self, fitted: Segmenter, split: TokenSplit) -> Segmentations:
        """See `Probe.predict`."""
        pairs = self.compared(fitted, split)
        return segmentations_of(split.examples, pairs, groups=self.groups, distances=split.distances)

    @torch.no_grad()
    def compared(self, fitted: Segmenter, split: TokenSplit) -> Generator[MaskPair, None, None]:
        """Predicted and true mask of every picture, in order, at the size at which they are compared."""
        decoder = self.new_decoder()
        decoder.load_state_dict(dict(fitted.decoder))
        decoder.eval()
        restore(self.reader.backbone, fitted.backbone)
        self.reader.backbone.eval()
        found = self.reader.from_kept(split) if split.kept else self.reader.live(split.examples, masks=False)
        with closing(found):
            for rows, batch in found:
                probabilities = self._logits(decoder, batch).softmax(dim=1).cpu()
                for row, one in zip(rows, probabilities, strict=True):
                    yield mask_pair(
                        one,
                        split.examples.reader.mask(int(row)),
                        preparation=self.reader.preparation,
                        compare_at=self.settings.compare_at,
                    )

    def new_decoder(self) -> nn.Module:
        """With the first weights of every fit: a function of the seed alone."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.settings.seed)
            decoder = build_decoder(
                self.settings.decoder,
                embed_dim=self.reader.backbone.traits.embed_dim,
                num_blocks=len(self.reader.blocks),
                num_classes=self.num_classes,
                width=self.settings.width,
            )
        return decoder.to(self.reader.device)

    def _fit(self, candidates: Sequence[Mapping[str, Any]], split: TokenSplit, *, title: str) -> list[Segmenter]:
        settings = self.settings
        per_epoch = math.ceil(len(split.examples) / self.reader.batch_size)
        total = per_epoch * settings.epochs
        members = [self._member(candidate, total_steps=total) for candidate in candidates]
        status = ""
        for epoch in range(settings.epochs):
            if self.mode != "frozen":
                set_training(self.reader.backbone, mode=self.mode)
            for i, batch in enumerate(self._epoch(split, epoch=epoch)):
                for member in members:
                    loss = LOSSES[settings.loss](self._logits(member.decoder, batch), batch.masks)
                    member.stepper.step(loss)
                    member.total += loss.detach()
                self.progress(title, epoch * per_epoch + i + 1, total, status)
            for member in members:
                member.losses.append(float(member.total) / per_epoch)
                member.total.zero_()
            status = f"epoch {epoch + 1}: loss " + ", ".join(f"{member.losses[-1]:.3f}" for member in members)
            self.progress(title, (epoch + 1) * per_epoch, total, status)
        return [
            Segmenter(
                decoder={name: value.cpu().clone() for name, value in member.decoder.state_dict().items()},
                backbone=learnt_state(self.reader.backbone, mode=self.mode),
                losses=tuple(member.losses),
            )
            for member in members
        ]

    def _member(self, candidate: Mapping[str, Any], *, total_steps: int) -> _Member:
        decoder = self.new_decoder()
        stepper = stepper_for(
            self.reader.backbone,
            decoder,
            settings=self.settings,
            backbone_lr=candidate.get("backbone_lr", 0.0),
            head_lr=candidate["lr"],
            total_steps=total_steps,
            precision=self.reader.precision,
            device=self.reader.device,
        )
        return _Member(decoder, stepper, torch.zeros((), device=self.reader.device), [])

    def _epoch(self, split: TokenSplit, *, epoch: int) -> Generator[TokenBatch, None, None]:
        """Batches in an order drawn from (seed, epoch)."""
        seeds = [self.settings.seed, epoch]
        order = np.random.default_rng(seeds).permutation(len(split.examples))
        if split.kept:
            yield from (batch for _, batch in self.reader.from_kept(split, order=order))
            return
        found = self.reader.live(
            split.examples,
            order=order,
            augment=self.settings.augmentation,
            seed=int(np.random.default_rng([*seeds, 1]).integers(2**31)),
            gradients=self.mode != "frozen",
        )
        with closing(found):
            yield from (batch for _, batch in found)

    def _logits(self, decoder: nn.Module, batch: TokenBatch) -> Tensor:
        """[B, K, S, S]"""
        side = self.reader.preparation.size
        return interpolate(decoder(batch.tokens), size=(side, side), mode="bilinear", align_corners=False)
