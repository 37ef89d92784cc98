"""What is minimised: `Views` and `Networks` in, `Losses` out.

No table of the student's logits is ever there: a head stops before its last product, and `dinov2.loss.prototypes` takes
it a chunk of rows at a time. The teacher's logits are there once, in the format in which its heads compute.

Legend: B pictures, G = 2 global and L local crops, N patches of a global crop, M masked patches, D width, K prototypes,
b bottleneck. Crops are crop-major; the first B rows of a global tensor are crop 0 of every picture.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from dinov2.batch import NUM_GLOBAL_CROPS, Views
from dinov2.config import schema
from dinov2.layers.dino_head import Projection
from dinov2.loss import Assignment, DINOLoss, Reductions, iBOTPatchLoss, koleo_loss, prototype_cross_entropy
from dinov2.loss.ibot import per_patch
from dinov2.ssl.networks import Networks, backbone_of
from dinov2.ssl.reading import read_tokens

Formats = Callable[[str, str], AbstractContextManager[None]]
"""The number format in which a part computes: ("student", "backbone") -> the context of its forward pass."""

Out = TypeVar("Out")


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
class _Targets:
    cls: Assignment | None  # of [G*B, K], crop-major
    patches: Assignment | None  # of [M, K]


@dataclass(frozen=True, kw_only=True)
class _Outputs:
    global_tokens: Tensor  # [G*B, D] before the head
    global_cls: Projection | None  # of [G*B, b]
    local_cls: Projection | None  # of [L*B, b]
    patches: Projection | None  # of [M, b]


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
    compiled: bool = False  # what is done to a chunk of logits, through torch.compile

    def __call__(self, networks: Networks, views: Views, *, teacher_temperature: float, formats: Formats) -> Losses:
        """Losses of one batch; updates the centres of `networks` where centering is used."""
        masked = _find_masked(views) if self.ibot_weight > 0 else None
        with torch.no_grad():
            targets = self._teacher(networks, views, masked, temperature=teacher_temperature, formats=formats)
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
            teacher_entropy=None if targets.cls is None else targets.cls.mean_entropy(),
            teacher_marginal=None if targets.cls is None else targets.cls.mean(),
        )

    def _dino(self, networks: Networks, targets: Assignment, outputs: _Outputs, *, num_pictures: int) -> _Part:
        """Every student crop against every teacher crop but the same; mean over pairs with the public normaliser."""
        assert outputs.global_cls is not None
        compare = partial(self._compare, assignment=targets, temperature=networks.dino_loss.student_temp)
        num_local = 0 if outputs.local_cls is None else len(outputs.local_cls.features) // num_pictures
        num_pairs = NUM_GLOBAL_CROPS * (num_local + 1)
        crops = torch.arange(len(targets), device=outputs.global_tokens.device)
        other = crops.roll(num_pictures).unsqueeze(1)  # the teacher's other crop of the same picture
        on_global = compare(outputs.global_cls, targets=other, weight=1 / len(targets))
        entropies = {"dino_global": on_global}
        terms = {"dino_global_crops_loss": on_global * NUM_GLOBAL_CROPS / num_pairs}
        if outputs.local_cls is not None:
            both = crops.view(NUM_GLOBAL_CROPS, num_pictures).T.repeat(num_local, 1)  # all crops of the same picture
            on_local = compare(outputs.local_cls, targets=both, weight=1 / num_pictures)
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
        assert outputs.patches is not None
        assert targets.patches is not None
        loss = self._compare(
            outputs.patches,
            assignment=targets.patches,
            temperature=networks.ibot_patch_loss.student_temp,
            weight=weight / len(masks),
        )
        return _Part(
            total=self.ibot_weight * loss,
            terms={"ibot_loss": loss / NUM_GLOBAL_CROPS},
            cross_entropies={"ibot": loss},
            counted={"ibot": masks.any(dim=1).float().mean()},
        )

    def _compare(
        self,
        projection: Projection,
        *,
        assignment: Assignment,
        temperature: float,
        weight: Tensor | float,
        targets: Tensor | None = None,
    ) -> Tensor:
        """Weighted sum of cross-entropies over the rows of a projection."""
        if not isinstance(weight, Tensor):
            weight = projection.features.new_full((len(projection.features),), weight, dtype=torch.float32)
        return prototype_cross_entropy(
            *projection, assignment, weights=weight, temperature=temperature, targets=targets, compiled=self.compiled
        )

    def _teacher(
        self, networks: Networks, views: Views, masked: _Masked | None, *, temperature: float, formats: Formats
    ) -> _Targets:
        """What the teacher's heads assign the global crops to."""
        if self.dino_weight == 0 and masked is None:
            return _Targets(cls=None, patches=None)
        with formats("teacher", "backbone"):
            tokens = read_tokens(
                backbone_of(networks.teacher),
                [views.global_crops],
                [None],
                with_cls=self.dino_weight > 0,
                patches=None if masked is None else masked.index,
            )
        (of_cls,), of_patches = _through_heads(
            networks,
            "teacher",
            take=_logits,
            cls_tokens=tokens.cls or (None,),
            patches=tokens.patches,
            formats=formats,
        )
        assigned = partial(self._assigned, temperature=temperature)
        return _Targets(
            cls=None if of_cls is None else assigned(networks.dino_loss, of_cls),
            patches=None if of_patches is None else assigned(networks.ibot_patch_loss, of_patches),
        )

    def _assigned(self, loss: DINOLoss | iBOTPatchLoss, logits: Tensor, *, temperature: float) -> Assignment:
        """Assignments of the teacher's logits [M, K]; by centering they use the centre from before this batch."""
        if self.sinkhorn:
            return loss.balanced(logits, temperature, compiled=self.compiled)
        targets = loss.centred(logits, temperature)
        loss.update_center(logits)
        return targets

    def _student(self, networks: Networks, views: Views, masked: _Masked | None, *, formats: Formats) -> _Outputs:
        masks = views.masks if masked is not None else None
        with_local = self.dino_weight > 0 and views.num_local_crops > 0
        crops, hidden = [views.global_crops], [masks]
        if with_local:
            crops, hidden = [*crops, views.local_crops], [*hidden, None]
        with formats("student", "backbone"):
            tokens = read_tokens(
                backbone_of(networks.student), crops, hidden, patches=None if masked is None else masked.index
            )
        (global_cls, *local_cls), of_patches = _through_heads(
            networks,
            "student",
            take=_projections,
            cls_tokens=[some if self.dino_weight > 0 else None for some in tokens.cls],
            patches=tokens.patches,
            formats=formats,
        )
        return _Outputs(
            global_tokens=tokens.cls[0],
            global_cls=global_cls,
            local_cls=local_cls[0] if with_local else None,
            patches=of_patches,
        )


def build_objective(
    *,
    dino: schema.Dino,
    ibot: schema.Ibot,
    centering: str,
    reductions: Reductions | None = None,
    compiled: bool = False,
) -> Objective:
    """The objective that the `dino` and `ibot` sections and `train.centering` describe.

    `reductions` are over all processes; None for one process. `compiled`: see `Objective`.
    """
    return Objective(
        dino_weight=dino.loss_weight,
        koleo_weight=dino.koleo_loss_weight,
        ibot_weight=ibot.loss_weight,
        sinkhorn=centering == "sinkhorn_knopp",
        koleo_reductions=reductions if dino.koleo_over_all_processes else None,
        compiled=compiled,
    )


def uniform_value(num_prototypes: int) -> float:
    """Cross-entropy, in nats, of a student and a teacher that have collapsed to the uniform assignment."""
    return math.log(num_prototypes)


def _find_masked(views: Views) -> _Masked:
    """Where the masked patches are, and what each weighs; M indices, crop by crop."""
    index = views.hidden_patches()
    return _Masked(index=index, weight=per_patch(views.masks).index_select(0, index // views.masks.shape[1]))


def _logits(head: nn.Module, tokens: Sequence[Tensor]) -> list[Tensor]:
    """Logits of several groups of tokens, in one pass.  [M, D] each -> [M, K] each"""
    return list(head(torch.cat(list(tokens))).split([len(group) for group in tokens]))


def _projections(head: nn.Module, tokens: Sequence[Tensor]) -> list[Projection]:
    """Projections of several groups of tokens, in one pass; the prototypes are the same tensor.  [M, D] each"""
    features, prototypes = head(torch.cat(list(tokens)), as_projection=True)
    return [Projection(rows, prototypes) for rows in features.split([len(group) for group in tokens])]


def _through_heads(
    networks: Networks,
    side: str,
    *,
    take: Callable[[nn.Module, Sequence[Tensor]], Sequence[Out]],
    cls_tokens: Sequence[Tensor | None],
    patches: Tensor | None,
    formats: Formats,
) -> tuple[list[Out | None], Out | None]:
    """Tokens through their heads; all tokens of one head go through it in one pass, without padding rows."""
    by_head: dict[str, list[Tensor]] = {"dino_head": [tokens for tokens in cls_tokens if tokens is not None]}
    if patches is not None:
        by_head.setdefault(networks.patch_head, []).append(patches)
    outs: list[Out] = []
    for name, tokens in by_head.items():
        if tokens:
            with formats(side, name):
                outs += take(networks.parts(side)[name], tokens)
    of_patches = outs.pop() if patches is not None else None
    rest = iter(outs)
    return [None if tokens is None else next(rest) for tokens in cls_tokens], of_patches
