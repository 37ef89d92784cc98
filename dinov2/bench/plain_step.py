"""The yardstick of the step benchmark: the same step, done the way public code does it on one process.

In: the networks of a run and crops. Out: the losses as Python numbers, with weights moved. The same weights and
numbers; different are a pass per size of crops, the padding rows through the patch head, all logits written out in
float32, Sinkhorn on transposed logits with its counts, a cross-entropy per pair of views, every term read by the host
as it comes, and an optimiser that is not fused. It shares no kernel, no packing, no compilation and no loss with ours.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax
from torch.profiler import record_function

from dinov2.batch import NUM_GLOBAL_CROPS, Views
from dinov2.bench.case import MASKED_SHARE
from dinov2.bench.plain_backbone import plain_features
from dinov2.config.schema import Ibot
from dinov2.loss import koleo_loss
from dinov2.optim.param_groups import apply_plan, build_param_groups
from dinov2.optim.schedules import StepPlan
from dinov2.ssl.networks import Networks, backbone_of
from dinov2.ssl.precision import Precision

STUDENT_TEMPERATURE = 0.1
SINKHORN_ITERATIONS = 3
MASK_RATIO = Ibot().mask_ratio_min_max
LOSSES = "losses"  # how a profile knows what is computed there


@dataclass(frozen=True, kw_only=True)
class Masked:
    """Which patches are hidden."""

    index: Tensor  # int64 [M] into the flattened patches of all global crops
    weight: Tensor  # float [M], one over the hidden patches of the same crop


def find_masked(masks: Tensor) -> Masked:
    """bool [G*B, N] -> the M hidden patches"""
    weight = (1 / masks.sum(-1).clamp(min=1.0)).unsqueeze(-1).expand_as(masks)[masks]
    return Masked(index=masks.flatten().nonzero().squeeze(1), weight=weight)


class PlainStep:
    """A student, its teacher and an AdamW of their own."""

    def __init__(
        self, networks: Networks, *, precision: Precision, pad: bool = True, clip_grad: float, loss_scaling: bool
    ) -> None:
        self.networks, self.precision = networks, precision
        self.pad, self.clip_grad = pad, clip_grad
        groups = build_param_groups(networks.student, layerwise_decay=0.9, patch_embed_lr_mult=0.2)
        self.optimizer = torch.optim.AdamW(groups, foreach=True)
        self.scaler = torch.amp.GradScaler(precision.device.type, enabled=loss_scaling)

    def __call__(self, views: Views, *, plan: StepPlan) -> dict[str, float]:
        """One optimisation step."""
        apply_plan(self.optimizer.param_groups, plan)
        self.optimizer.zero_grad(set_to_none=True)
        terms = self.terms(views, find_masked(views.masks), temperature=plan.teacher_temperature)
        torch.autograd.backward(self.scaler.scale(torch.stack(list(terms.values())).sum()))
        self.scaler.unscale_(self.optimizer)
        for module in self.networks.student.values():
            nn.utils.clip_grad_norm_(module.parameters(), max_norm=self.clip_grad)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self._follow(momentum=plan.teacher_momentum)
        return {name: float(value.detach()) for name, value in terms.items()}

    def terms(self, views: Views, masked: Masked, *, temperature: float) -> dict[str, Tensor]:
        """The four losses, as they are added up."""
        with self.precision.formats("student", "backbone"):  # one format for the whole of it
            return self._terms(views, masked, temperature=temperature)

    def _terms(self, views: Views, masked: Masked, *, temperature: float) -> dict[str, Tensor]:
        cls_targets, patch_targets = self._targets(views, masked, temperature=temperature)
        student = self.networks.student
        on_global = plain_features(backbone_of(student), views.global_crops, views.masks)
        tokens = [on_global["x_norm_clstoken"], self._padded(on_global["x_norm_patchtokens"], masked)]
        if views.num_local_crops:
            tokens.append(plain_features(backbone_of(student), views.local_crops)["x_norm_clstoken"])
        global_, patch, *local = student["dino_head"](torch.cat(tokens)).split([len(t) for t in tokens])
        pairs = NUM_GLOBAL_CROPS * (views.num_local_crops + 1)
        swapped = torch.cat(cls_targets.chunk(NUM_GLOBAL_CROPS)[::-1])
        of_local = _pairwise(local[0].chunk(views.num_local_crops), cls_targets.chunk(NUM_GLOBAL_CROPS)) if local else 0
        return {
            "dino_local": torch.as_tensor(of_local / pairs, device=global_.device),
            "dino_global": NUM_GLOBAL_CROPS * _pairwise([global_], [swapped]) / pairs,
            "koleo": 0.1 * torch.stack([koleo_loss(c) for c in on_global["x_norm_clstoken"].chunk(2)]).sum(),
            "ibot": plain_patch_loss(
                patch[: len(masked.index)], patch_targets, weight=masked.weight, num_crops=len(views.masks)
            ),
        }

    @torch.no_grad()
    def _targets(self, views: Views, masked: Masked, *, temperature: float) -> tuple[Tensor, Tensor]:
        teacher = self.networks.teacher
        features = plain_features(backbone_of(teacher), views.global_crops)
        patches = self._padded(features["x_norm_patchtokens"], masked)
        cls_tokens = features["x_norm_clstoken"]
        logits = teacher["dino_head"](torch.cat([cls_tokens, patches]))
        cls_logits, patch_logits = logits.split([len(cls_tokens), len(patches)])
        hidden = patch_logits[: len(masked.index)]
        return plain_sinkhorn(cls_logits, temperature=temperature), plain_sinkhorn(hidden, temperature=temperature)

    def _padded(self, tokens: Tensor, masked: Masked) -> Tensor:
        crops, patches, width = tokens.shape
        rows = padded_patches(num_patches=patches, num_crops=crops) if self.pad else len(masked.index)
        buffer = tokens.new_zeros(rows, width)
        buffer[: len(masked.index)] = tokens.flatten(0, 1).index_select(0, masked.index)
        return buffer

    @torch.no_grad()
    def _follow(self, *, momentum: float) -> None:
        students: list[Tensor] = list(self.networks.student.parameters())
        teachers: list[Tensor] = list(self.networks.teacher.parameters())
        torch._foreach_mul_(teachers, momentum)
        torch._foreach_add_(teachers, students, alpha=1 - momentum)


def padded_patches(*, num_patches: int, num_crops: int) -> int:
    """Rows that hold any draw of masks: every masked crop at the upper edge of its share, with the public shares."""
    low, high = MASK_RATIO
    edges = torch.linspace(low, high, int(num_crops * MASKED_SHARE) + 1)[1:]
    return sum(int(num_patches * float(edge)) for edge in edges)


@torch.no_grad()
def plain_sinkhorn(logits: Tensor, *, temperature: float) -> Tensor:
    """Balanced assignments as published, on the transposed logits.  [M, K] -> float32 [M, K]"""
    with record_function(LOSSES):
        q = torch.exp(logits.float() / temperature).t()
        prototypes, samples = q.shape
        q = q / q.sum()
        for _ in range(SINKHORN_ITERATIONS):
            q = q / q.sum(dim=1, keepdim=True) / prototypes
            q = q / q.sum(dim=0, keepdim=True) / samples
        return (q * samples).t()


def plain_patch_loss(logits: Tensor, targets: Tensor, *, weight: Tensor, num_crops: int) -> Tensor:
    """Cross-entropy with all log-probabilities written out.  [M, K], [M, K], [M] -> scalar"""
    loss = (targets * log_softmax(logits.float() / STUDENT_TEMPERATURE, dim=-1)).sum(dim=-1)
    return -(loss * weight).sum() / num_crops


def _pairwise(student: "list[Tensor] | tuple[Tensor, ...]", teacher: "list[Tensor] | tuple[Tensor, ...]") -> Tensor:
    total = student[0].new_zeros((), dtype=torch.float32)
    for view in student:
        log_probabilities = log_softmax(view.float() / STUDENT_TEMPERATURE, dim=-1)
        for target in teacher:
            total = total - (target * log_probabilities).sum(dim=-1).mean()
    return total
