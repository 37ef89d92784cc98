"""The yardstick of the step benchmark: the same step, done the way public code does it on one process.

In: the parts of a run and crops. Out: the losses as Python numbers, with weights moved. The same networks and numbers;
different are the padding rows through the patch head, torch's fused attention at every length, Sinkhorn on transposed
logits with its counts, a cross-entropy per pair of views, every term read by the host as it comes, and an optimiser
that is not fused.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax

from dinov2.batch import NUM_GLOBAL_CROPS, Views
from dinov2.layers.attention import use_attention
from dinov2.loss import koleo_loss
from dinov2.optim.param_groups import apply_plan, build_param_groups
from dinov2.optim.schedules import StepPlan
from dinov2.ssl.networks import Networks, backbone_of
from dinov2.ssl.precision import Precision

STUDENT_TEMPERATURE = 0.1
SINKHORN_ITERATIONS = 3


class PlainStep:
    """A student, its teacher and an AdamW of their own."""

    def __init__(self, networks: Networks, *, precision: Precision, padded_patches: int, clip_grad: float) -> None:
        use_attention(networks, "sdpa")
        self.networks, self.precision = networks, precision
        self.padded_patches, self.clip_grad = padded_patches, clip_grad
        groups = build_param_groups(networks.student, layerwise_decay=0.9, patch_embed_lr_mult=0.2)
        self.optimizer = torch.optim.AdamW(groups, foreach=True)

    def __call__(self, views: Views, *, plan: StepPlan) -> dict[str, float]:
        """One optimisation step."""
        apply_plan(self.optimizer.param_groups, plan)
        self.optimizer.zero_grad(set_to_none=True)
        with self.precision.formats("student", "backbone"):  # one format for the whole of it
            terms = self._terms(views, temperature=plan.teacher_temperature)
        torch.autograd.backward(torch.stack(list(terms.values())).sum())
        for module in self.networks.student.values():
            nn.utils.clip_grad_norm_(module.parameters(), max_norm=self.clip_grad)
        self.optimizer.step()
        self._follow(momentum=plan.teacher_momentum)
        return {name: float(value.detach()) for name, value in terms.items()}

    def _terms(self, views: Views, *, temperature: float) -> dict[str, Tensor]:
        index = views.masks.flatten().nonzero().squeeze(1)
        cls_targets, patch_targets = self._targets(views, index, temperature=temperature)
        student = self.networks.student
        on_global, on_local = backbone_of(student).forward_features(
            [views.global_crops, views.local_crops], [views.masks, None]
        )
        patches = self._padded(on_global["x_norm_patchtokens"], index)
        tokens = [on_local["x_norm_clstoken"], on_global["x_norm_clstoken"], patches]
        local, global_, patch = student["dino_head"](torch.cat(tokens)).split([len(t) for t in tokens])
        pairs = NUM_GLOBAL_CROPS * (views.num_local_crops + 1)
        swapped = torch.cat(cls_targets.chunk(NUM_GLOBAL_CROPS)[::-1])
        return {
            "dino_local": _pairwise(local.chunk(views.num_local_crops), cls_targets.chunk(NUM_GLOBAL_CROPS)) / pairs,
            "dino_global": NUM_GLOBAL_CROPS * _pairwise([global_], [swapped]) / pairs,
            "koleo": 0.1 * torch.stack([koleo_loss(c) for c in on_global["x_norm_clstoken"].chunk(2)]).sum(),
            "ibot": _patches(patch[: len(index)], patch_targets, masks=views.masks),
        }

    @torch.no_grad()
    def _targets(self, views: Views, index: Tensor, *, temperature: float) -> tuple[Tensor, Tensor]:
        teacher = self.networks.teacher
        features = backbone_of(teacher).forward_features(views.global_crops)
        patches = self._padded(features["x_norm_patchtokens"], index)
        cls_tokens = features["x_norm_clstoken"]
        logits = teacher["dino_head"](torch.cat([cls_tokens, patches]))
        cls_logits, patch_logits = logits.split([len(cls_tokens), len(patches)])
        return _sinkhorn(cls_logits, temperature), _sinkhorn(patch_logits[: len(index)], temperature)

    def _padded(self, tokens: Tensor, index: Tensor) -> Tensor:
        buffer = tokens.new_zeros(self.padded_patches, tokens.shape[-1])
        buffer[: len(index)] = tokens.flatten(0, 1).index_select(0, index)
        return buffer

    @torch.no_grad()
    def _follow(self, *, momentum: float) -> None:
        students: list[Tensor] = list(self.networks.student.parameters())
        teachers: list[Tensor] = list(self.networks.teacher.parameters())
        torch._foreach_mul_(teachers, momentum)
        torch._foreach_add_(teachers, students, alpha=1 - momentum)


def padded_patches(masked_share: tuple[float, float], *, num_patches: int, num_masked_crops: int) -> int:
    """Rows that hold any draw of masks: every crop at the upper edge of its share."""
    low, high = masked_share
    edges = torch.linspace(low, high, num_masked_crops + 1)[1:]
    return sum(int(num_patches * float(edge)) for edge in edges)


def _sinkhorn(logits: Tensor, temperature: float) -> Tensor:
    q = torch.exp(logits.float() / temperature).t()
    prototypes, samples = q.shape
    q = q / q.sum()
    for _ in range(SINKHORN_ITERATIONS):
        q = q / q.sum(dim=1, keepdim=True) / prototypes
        q = q / q.sum(dim=0, keepdim=True) / samples
    return (q * samples).t()


def _pairwise(student: "list[Tensor] | tuple[Tensor, ...]", teacher: "list[Tensor] | tuple[Tensor, ...]") -> Tensor:
    total = student[0].new_zeros((), dtype=torch.float32)
    for view in student:
        log_probabilities = log_softmax(view.float() / STUDENT_TEMPERATURE, dim=-1)
        for target in teacher:
            total = total - (target * log_probabilities).sum(dim=-1).mean()
    return total


def _patches(logits: Tensor, targets: Tensor, *, masks: Tensor) -> Tensor:
    weight = (1 / masks.sum(-1).clamp(min=1.0)).unsqueeze(-1).expand_as(masks)[masks]
    loss = (targets * log_softmax(logits.float() / STUDENT_TEMPERATURE, dim=-1)).sum(dim=-1)
    return -(loss * weight).sum() / masks.shape[0]
