"""What is minimised: `Views` and `Networks` in, `Losses` out.

Legend: B pictures, G = 2 global and L local crops, N patches of a global crop, M masked patches, D width, K prototypes.
Crops are crop-major; the first B rows of a global tensor are crop 0 of every picture.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dinov2.batch import NUM_GLOBAL_CROPS, Views
from dinov2.config import schema
from dinov2.loss import koleo_loss
from dinov2.loss.ibot import masks_weights
from dinov2.ssl.networks import Networks, backbone_of


@dataclass(frozen=True, kw_only=True)
class Losses:
    """One step's losses.

    `terms` has the names and scales of the public logs: `koleo_loss` and `ibot_loss` there are half of what enters
    the total. `cross_entropies` are means in nats per compared pair, to be held against `ln(prototypes)`, the value
    of a uniform solution.
    """

    total: Tensor  # what is differentiated
    terms: dict[str, Tensor]
    cross_entropies: dict[str, Tensor]
    teacher_entropy: Tensor | None  # mean entropy of one CLS assignment, nats
    teacher_marginal_entropy: Tensor | None  # entropy of the mean CLS assignment, nats; ln K = all prototypes in use


@dataclass(frozen=True, kw_only=True)
class _Part:
    """What one of DINO, KoLeo and iBOT gives."""

    total: Tensor  # weighted, as differentiated
    terms: dict[str, Tensor]
    cross_entropies: dict[str, Tensor]


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

    def __call__(self, networks: Networks, views: Views, *, teacher_temperature: float) -> Losses:
        """Losses of one batch; updates the centres of `networks` where centering is used."""
        masked = _find_masked(views.masks) if self.ibot_weight > 0 else None
        with torch.no_grad():
            targets = self._teacher(networks, views, masked, temperature=teacher_temperature)
        outputs = self._student(networks, views, masked)
        parts: list[_Part] = []
        if targets.cls is not None:
            parts.append(self._dino(networks, targets.cls, outputs, num_pictures=views.num_pictures))
        if self.koleo_weight > 0:
            parts.append(self._koleo(outputs.global_tokens))
        if masked is not None:
            parts.append(self._ibot(networks, targets, outputs, masks=views.masks, weight=masked.weight))
        own, marginal = _entropies(targets.cls)
        return Losses(
            total=torch.stack([part.total for part in parts]).sum(),
            terms={name: term for part in parts for name, term in part.terms.items()},
            cross_entropies={name: value for part in parts for name, value in part.cross_entropies.items()},
            teacher_entropy=own,
            teacher_marginal_entropy=marginal,
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
        return _Part(total=total, terms=terms, cross_entropies=entropies)

    def _koleo(self, global_tokens: Tensor) -> _Part:
        """The spread of the CLS tokens [G*B, D], each global crop by itself."""
        spreads = torch.stack([koleo_loss(crop) for crop in global_tokens.chunk(NUM_GLOBAL_CROPS)])
        total = self.koleo_weight * spreads.sum()
        return _Part(total=total, terms={"koleo_loss": total / NUM_GLOBAL_CROPS}, cross_entropies={})

    def _ibot(
        self, networks: Networks, targets: _Targets, outputs: _Outputs, *, masks: Tensor, weight: Tensor
    ) -> _Part:
        """Masked patches against the teacher's view of them: mean within a crop, then over all crops of the batch."""
        assert outputs.patch_logits is not None
        assert targets.patches is not None
        loss = networks.ibot_patch_loss.forward_masked(
            outputs.patch_logits, targets.patches, student_masks_flat=masks, masks_weight=weight
        )
        share_masked = masks.any(dim=1).float().mean()
        entropy = loss / share_masked.clamp(min=torch.finfo(torch.float32).tiny)
        terms = {"ibot_loss": loss / NUM_GLOBAL_CROPS}
        return _Part(total=self.ibot_weight * loss, terms=terms, cross_entropies={"ibot": entropy})

    def _teacher(self, networks: Networks, views: Views, masked: _Masked | None, *, temperature: float) -> _Targets:
        if self.dino_weight == 0 and masked is None:
            return _Targets(cls=None, patches=None)
        features = backbone_of(networks.teacher).forward_features(views.global_crops)
        cls_tokens = features["x_norm_clstoken"] if self.dino_weight > 0 else None  # [G*B, D]
        patches = None
        if masked is not None:
            patches = features["x_norm_patchtokens"].flatten(0, 1).index_select(0, masked.index)  # [M, D]
        cls_logits, patch_logits = _through_heads(
            networks.teacher, [cls_tokens], patches, patch_head=networks.patch_head
        )
        cls_targets = (
            None if cls_logits[0] is None else self._assign_cls(networks, cls_logits[0], temperature=temperature)
        )
        patch_targets = (
            None if patch_logits is None else self._assign_patches(networks, patch_logits, temperature=temperature)
        )
        return _Targets(cls=cls_targets, patches=patch_targets)

    def _assign_cls(self, networks: Networks, logits: Tensor, *, temperature: float) -> Tensor:
        loss = networks.dino_loss
        if self.sinkhorn:
            return loss.sinkhorn_knopp_teacher(logits, teacher_temp=temperature)
        targets = loss.softmax_center_teacher(logits, teacher_temp=temperature)
        loss.update_center(logits)
        return targets

    def _assign_patches(self, networks: Networks, logits: Tensor, *, temperature: float) -> Tensor:
        loss = networks.ibot_patch_loss
        if self.sinkhorn:
            return loss.sinkhorn_knopp_teacher(logits, teacher_temp=temperature)
        targets = loss.softmax_center_teacher(logits, teacher_temp=temperature)
        loss.update_center(logits)
        return targets

    def _student(self, networks: Networks, views: Views, masked: _Masked | None) -> _Outputs:
        backbone = backbone_of(networks.student)
        masks = views.masks if masked is not None else None
        with_local = self.dino_weight > 0 and views.num_local_crops > 0
        if with_local:
            on_global, on_local = backbone.forward_features([views.global_crops, views.local_crops], [masks, None])
        else:
            (on_global,) = backbone.forward_features([views.global_crops], [masks])
        cls_tokens = [on_global["x_norm_clstoken"], on_local["x_norm_clstoken"] if with_local else None]
        if self.dino_weight == 0:
            cls_tokens = [None, None]
        patches = None
        if masked is not None:
            patches = on_global["x_norm_patchtokens"].flatten(0, 1).index_select(0, masked.index)
        (global_logits, local_logits), patch_logits = _through_heads(
            networks.student, cls_tokens, patches, patch_head=networks.patch_head
        )
        return _Outputs(
            global_tokens=on_global["x_norm_clstoken"],
            global_logits=global_logits,
            local_logits=local_logits,
            patch_logits=patch_logits,
        )


def build_objective(*, dino: schema.Dino, ibot: schema.Ibot, centering: str) -> Objective:
    """The objective that the `dino` and `ibot` sections and `train.centering` describe."""
    return Objective(
        dino_weight=dino.loss_weight,
        koleo_weight=dino.koleo_loss_weight,
        ibot_weight=ibot.loss_weight,
        sinkhorn=centering == "sinkhorn_knopp",
    )


def uniform_value(num_prototypes: int) -> float:
    """Cross-entropy, in nats, of a student and a teacher that have collapsed to the uniform assignment."""
    return math.log(num_prototypes)


def _find_masked(masks: Tensor) -> _Masked:
    """Where the masked patches are.  bool [G*B, N] -> M indices, crop by crop."""
    return _Masked(index=masks.flatten().nonzero().squeeze(1), weight=masks_weights(masks))


def _through_heads(
    parts: torch.nn.ModuleDict, cls_tokens: list[Tensor | None], patches: Tensor | None, *, patch_head: str
) -> tuple[list[Tensor | None], Tensor | None]:
    """Tokens through their heads; all tokens of one head go through it in one pass, without padding rows."""
    by_head: dict[str, list[Tensor]] = {"dino_head": [tokens for tokens in cls_tokens if tokens is not None]}
    if patches is not None:
        by_head.setdefault(patch_head, []).append(patches)
    logits: list[Tensor] = []
    for name, tokens in by_head.items():
        if tokens:
            logits += parts[name](torch.cat(tokens)).split([t.shape[0] for t in tokens])
    patch_logits = logits.pop() if patches is not None else None
    rest = iter(logits)
    return [None if tokens is None else next(rest) for tokens in cls_tokens], patch_logits


def _entropies(targets: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """Mean entropy of the rows, and entropy of the mean row, in nats.  [M, K] -> [], []"""
    if targets is None:
        return None, None
    own = torch.special.entr(targets).sum(dim=1).mean()
    return own, torch.special.entr(targets.mean(dim=0)).sum()
