"""What is minimised: `Views` and `Networks` in, `Losses` out.

Legend: B pictures, G = 2 global and L local crops, N patches of a global crop, M masked patches, D width, K prototypes.
Crops are crop-major; the first B rows of a global tensor are crop 0 of every picture.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor

from dinov2.batch import NUM_GLOBAL_CROPS, Views
from dinov2.config import schema
from dinov2.loss import DINOLoss, Reductions, iBOTPatchLoss, koleo_loss
from dinov2.loss.ibot import masks_weights
from dinov2.models.vision_transformer import Features
from dinov2.ssl.networks import Networks

Formats = Callable[[str, str], AbstractContextManager[None]]
"""The number format in which a part computes: ("student", "backbone") -> the context of its forward pass."""


@dataclass(frozen=True, kw_only=True)
class Losses:
    """One step's losses on this process; the mean over processes of each is the value of the whole batch.

    `terms` has the names and scales of the public logs: `koleo_loss` and `ibot_loss` there are half of what enters
    the total. `cross_entropies` are sums in nats per crop, over `counted`, the share of crops that they were taken of:
    their ratio is the mean per compared pair, to be held against `ln(prototypes)`, the value of a uniform solution.
    """

    total: Tensor  # what is differentiated
    terms: dict[str, Tensor]
    cross_entropies: dict[str, Tensor]
    counted: dict[str, Tensor]  # for each of `cross_entropies`
    teacher_entropy: Tensor | None  # mean entropy of one CLS assignment, nats
    teacher_marginal: Tensor | None  # [K] mean CLS assignment; its entropy is ln K where all prototypes are in use


@dataclass(frozen=True, kw_only=True)
class _Part:
    """What one of DINO, KoLeo and iBOT gives."""

    total: Tensor  # weighted, as differentiated
    terms: dict[str, Tensor]
    cross_entropies: dict[str, Tensor]
    counted: dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class _Logits:
    cls: tuple[Tensor | None, ...]  # one per size of crops, [crops, K]
    patches: Tensor | None  # [M, K]


@dataclass(frozen=True, kw_only=True)
class _Targets:
    cls: Tensor | None  # [G*B, K], crop-major
    patches: Tensor | None  # [M, K]


@dataclass(frozen=True, kw_only=True)
class _Outputs:
    global_tokens: Tensor  # [G*B, D] before the head
    global_logits: Tensor | None  # [G*B, K]
    local_logits: Tensor | None  # [L*B, K]
    patch_logits: Tensor | None  # [M, K]


@dataclass(frozen=True, kw_only=True)
class _Masked:
    index: Tensor  # int64 [M] into the flattened [G*B*N] patches
    weight: Tensor  # float [M], one over the masked patches of the same crop


@dataclass(frozen=True, kw_only=True)
class Objective:
    """The weighted sum of DINO (local and global), KoLeo and iBOT; a term of weight 0 is not computed."""

    dino_weight: float
    koleo_weight: float
    ibot_weight: float
    sinkhorn: bool
    koleo_reductions: Reductions | None = None  # where neighbours are sought among all processes

    def __call__(self, networks: Networks, views: Views, *, teacher_temperature: float, formats: Formats) -> Losses:
        """Losses of one batch; updates the centres of `networks` where centering is used."""
        masked = _find_masked(views.masks) if self.ibot_weight > 0 else None
        with torch.no_grad():
            logits = self._teacher(networks, views, masked, formats=formats)
            targets = self._targets(networks, logits, temperature=teacher_temperature)
        outputs = self._student(networks, views, masked, formats=formats)
        parts: list[_Part] = []
        if targets.cls is not None:
            parts.append(self._dino(networks, targets.cls, outputs, num_pictures=views.num_pictures))
        if self.koleo_weight > 0:
            parts.append(self._koleo(outputs.global_tokens))
        if masked is not None:
            parts.append(self._ibot(networks, targets, outputs, masks=views.masks, weight=masked.weight))
        return Losses(
            total=torch.stack([part.total for part in parts]).sum(),
            terms={name: term for part in parts for name, term in part.terms.items()},
            cross_entropies={name: value for part in parts for name, value in part.cross_entropies.items()},
            counted={name: value for part in parts for name, value in part.counted.items()},
            teacher_entropy=None if targets.cls is None else torch.special.entr(targets.cls).sum(dim=1).mean(),
            teacher_marginal=None if targets.cls is None else targets.cls.mean(dim=0),
        )

    def _dino(self, networks: Networks, targets: Tensor, outputs: _Outputs, *, num_pictures: int) -> _Part:
        """Every student crop against every teacher crop but the same; mean over pairs with the public normaliser."""
        assert outputs.global_logits is not None
        num_local = 0 if outputs.local_logits is None else outputs.local_logits.shape[0] // num_pictures
        num_pairs = NUM_GLOBAL_CROPS * (num_local + 1)
        swapped = targets.roll(num_pictures, dims=0)  # the teacher's other crop of the same picture
        on_global = networks.dino_loss([outputs.global_logits], [swapped])
        entropies = {"dino_global": on_global}
        terms = {"dino_global_crops_loss": on_global * NUM_GLOBAL_CROPS / num_pairs}
        if outputs.local_logits is not None:
            on_local = networks.dino_loss(outputs.local_logits.chunk(num_local), targets.chunk(NUM_GLOBAL_CROPS))
            entropies["dino_local"] = on_local / (NUM_GLOBAL_CROPS * num_local)
            terms["dino_local_crops_loss"] = on_local / num_pairs
        total = self.dino_weight * torch.stack(list(terms.values())).sum()
        counted = {name: torch.ones_like(value) for name, value in entropies.items()}
        return _Part(total=total, terms=terms, cross_entropies=entropies, counted=counted)

    def _koleo(self, global_tokens: Tensor) -> _Part:
        """The spread of the CLS tokens [G*B, D], each global crop by itself."""
        crops = global_tokens.chunk(NUM_GLOBAL_CROPS)
        spreads = torch.stack([koleo_loss(crop, reductions=self.koleo_reductions) for crop in crops])
        total = self.koleo_weight * spreads.sum()
        return _Part(total=total, terms={"koleo_loss": total / NUM_GLOBAL_CROPS}, cross_entropies={}, counted={})

    def _ibot(
        self, networks: Networks, targets: _Targets, outputs: _Outputs, *, masks: Tensor, weight: Tensor
    ) -> _Part:
        """Masked patches against the teacher's view of them: mean within a crop, then over all crops of the batch."""
        assert outputs.patch_logits is not None
        assert targets.patches is not None
        loss = networks.ibot_patch_loss.forward_masked(
            outputs.patch_logits, targets.patches, student_masks_flat=masks, masks_weight=weight
        )
        return _Part(
            total=self.ibot_weight * loss,
            terms={"ibot_loss": loss / NUM_GLOBAL_CROPS},
            cross_entropies={"ibot": loss},
            counted={"ibot": masks.any(dim=1).float().mean()},
        )

    def _teacher(self, networks: Networks, views: Views, masked: _Masked | None, *, formats: Formats) -> _Logits:
        """What the teacher's heads say of the global crops."""
        if self.dino_weight == 0 and masked is None:
            return _Logits(cls=(None,), patches=None)
        with formats("teacher", "backbone"):
            features = networks.teacher["backbone"](views.global_crops, is_training=True)
        cls_tokens = features["x_norm_clstoken"] if self.dino_weight > 0 else None  # [G*B, D]
        patches = None if masked is None else _masked_patches(features, masked)
        return _through_heads(networks, "teacher", cls_tokens=(cls_tokens,), patches=patches, formats=formats)

    def _targets(self, networks: Networks, logits: _Logits, *, temperature: float) -> _Targets:
        (cls,) = logits.cls
        return _Targets(
            cls=None if cls is None else self._assigned(networks.dino_loss, cls, temperature=temperature),
            patches=None
            if logits.patches is None
            else self._assigned(networks.ibot_patch_loss, logits.patches, temperature=temperature),
        )

    def _assigned(self, loss: DINOLoss | iBOTPatchLoss, logits: Tensor, *, temperature: float) -> Tensor:
        """Assignments of the teacher's logits [M, K]; by centering they use the centre from before this batch."""
        if self.sinkhorn:
            return loss.sinkhorn_knopp_teacher(logits, teacher_temp=temperature)
        targets = loss.softmax_center_teacher(logits, teacher_temp=temperature)
        loss.update_center(logits)
        return targets

    def _student(self, networks: Networks, views: Views, masked: _Masked | None, *, formats: Formats) -> _Outputs:
        masks = views.masks if masked is not None else None
        with_local = self.dino_weight > 0 and views.num_local_crops > 0
        crops, hidden = [views.global_crops], [masks]
        if with_local:
            crops, hidden = [*crops, views.local_crops], [*hidden, None]
        with formats("student", "backbone"):
            on_global, *on_local = networks.student["backbone"](crops, hidden, is_training=True)
        cls_tokens = [on_global["x_norm_clstoken"], *(features["x_norm_clstoken"] for features in on_local)]
        logits = _through_heads(
            networks,
            "student",
            cls_tokens=[tokens if self.dino_weight > 0 else None for tokens in cls_tokens],
            patches=None if masked is None else _masked_patches(on_global, masked),
            formats=formats,
        )
        return _Outputs(
            global_tokens=on_global["x_norm_clstoken"],
            global_logits=logits.cls[0],
            local_logits=logits.cls[1] if with_local else None,
            patch_logits=logits.patches,
        )


def build_objective(
    *, dino: schema.Dino, ibot: schema.Ibot, centering: str, reductions: Reductions | None = None
) -> Objective:
    """The objective that the `dino` and `ibot` sections and `train.centering` describe.

    `reductions` are over all processes; None for one process.
    """
    return Objective(
        dino_weight=dino.loss_weight,
        koleo_weight=dino.koleo_loss_weight,
        ibot_weight=ibot.loss_weight,
        sinkhorn=centering == "sinkhorn_knopp",
        koleo_reductions=reductions if dino.koleo_over_all_processes else None,
    )


def uniform_value(num_prototypes: int) -> float:
    """Cross-entropy, in nats, of a student and a teacher that have collapsed to the uniform assignment."""
    return math.log(num_prototypes)


def _find_masked(masks: Tensor) -> _Masked:
    """Where the masked patches are.  bool [G*B, N] -> M indices, crop by crop."""
    return _Masked(index=masks.flatten().nonzero().squeeze(1), weight=masks_weights(masks))


def _masked_patches(features: Features, masked: _Masked) -> Tensor:
    """The patch tokens that the student does not see.  -> [M, D]"""
    patches: Tensor = features["x_norm_patchtokens"]
    return patches.flatten(0, 1).index_select(0, masked.index)


def _through_heads(
    networks: Networks, side: str, *, cls_tokens: Sequence[Tensor | None], patches: Tensor | None, formats: Formats
) -> _Logits:
    """Tokens through their heads; all tokens of one head go through it in one pass, without padding rows."""
    by_head: dict[str, list[Tensor]] = {"dino_head": [tokens for tokens in cls_tokens if tokens is not None]}
    if patches is not None:
        by_head.setdefault(networks.patch_head, []).append(patches)
    logits: list[Tensor] = []
    for name, tokens in by_head.items():
        if tokens:
            with formats(side, name):
                out = networks.parts(side)[name](torch.cat(tokens))
            logits += out.split([t.shape[0] for t in tokens])
    patch_logits = logits.pop() if patches is not None else None
    rest = iter(logits)
    return _Logits(cls=tuple(None if tokens is None else next(rest) for tokens in cls_tokens), patches=patch_logits)
