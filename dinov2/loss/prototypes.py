"""Cross-entropy between a student's projection and a teacher's assignment, without a table of logits.

In: unit features [M, b] and prototypes [K, b] of the student's head, an `Assignment` of the teacher, a weight per row.
Out: a scalar with gradients to features and prototypes.

A chunk of rows at a time: its logits, its value, and while they are there also its gradients, so that nothing of
[M, K] is kept and no product is done twice. With x = features @ prototypes.T / temperature of one row, T its target
and s = sum T, which is 1 per target but for rounding:

    value = s log sum exp(x) - sum T x,     d value / d x = s softmax(x) - T

What lasts until the backward pass are two tensors in float32 of the sizes of features and prototypes; there they are
multiplied by the gradient that comes in.

Legend: M rows, b bottleneck, K prototypes, m rows of a chunk, V targets that are added up.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dinov2.loss.assignment import Assignment, as_heat, assigned
from dinov2.loss.chunks import CHUNK_BYTES, longest_chunk, on_rows, row_chunks

LARGEST_LIFT = 128.0


def prototype_cross_entropy(
    features: Tensor,
    prototypes: Tensor,
    assignment: Assignment,
    *,
    weights: Tensor,
    temperature: float,
    targets: Tensor | None = None,
    chunk_bytes: int = CHUNK_BYTES,
    compiled: bool = False,
) -> Tensor:
    """Weighted sum over rows of the cross-entropy against the teacher.  [M, b], [K, b], float32 [M] -> scalar

    Row m of the assignment is the target of row m; or the sum of the rows `targets[m]` is, int64 [M, V]. Products run
    in the format of `features` and `prototypes`, everything else in float32. What is not finite in features, prototypes
    or assignment makes the value and the gradients not finite. No rows: 0, with gradients of 0.

    Raises:
        ValueError: features, weights, targets and assignment do not have the same number of rows; or features and
            prototypes are of two number formats.
    """
    num_targets = len(assignment) if targets is None else len(targets)
    if not len(features) == len(weights) == num_targets:
        raise ValueError(
            f"prototype_cross_entropy: {len(features)} rows of features, {len(weights)} weights and {num_targets} "
            "targets; give as many of each, and where a row has another row's target, say which by targets=[M, V]"
        )
    if features.dtype != prototypes.dtype:
        raise ValueError(
            f"prototype_cross_entropy: features are {features.dtype} and prototypes {prototypes.dtype}; give both in "
            "the format of their product, as DINOHead(..., as_projection=True) does"
        )
    comparison = _Comparison(
        assignment=assignment,
        weights=weights.detach().float(),
        heat=as_heat(temperature, like=features),
        targets=targets,
        chunk_bytes=chunk_bytes,
        compiled=compiled,
    )
    if torch.is_grad_enabled() and (features.requires_grad or prototypes.requires_grad):
        value: Tensor = _WithGradients.apply(features, prototypes, comparison)  # type: ignore[no-untyped-call]
        return value
    return comparison.value(features, prototypes)


class _WithGradients(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, prototypes: Tensor, comparison: "_Comparison") -> Tensor:
        value, *gradients = comparison.value_and_gradients(features, prototypes, needed=ctx.needs_input_grad[:2])
        ctx.save_for_backward(*gradients)
        ctx.dtype = features.dtype
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *incoming: Tensor) -> tuple[Tensor | None, ...]:
        # The product in float32: a loss scale brings what fp16 cannot hold into its range, or out of it, to be seen.
        scaled = (None if own is None else (own * incoming[0]).to(ctx.dtype) for own in ctx.saved_tensors)
        return *scaled, None


@dataclass(frozen=True, kw_only=True)
class _Comparison:
    """Everything but the two tensors that gradients flow to."""

    assignment: Assignment
    weights: Tensor  # float32 [M]
    heat: Tensor  # float32 [1]
    targets: Tensor | None  # int64 [M, V]
    chunk_bytes: int
    compiled: bool

    @torch.no_grad()
    def value(self, features: Tensor, prototypes: Tensor) -> Tensor:
        total = self.weights.new_zeros(())
        with torch.autocast(features.device.type, enabled=False):
            for chunk in self._chunks(features, prototypes):
                rows = [features[chunk] @ prototypes.T, *self._teachers(chunk)]
                values = on_rows(_cross_entropies, rows, *self._shared(), compiled=self.compiled)
                total += torch.dot(values, self.weights[chunk])
        return total

    def value_and_gradients(
        self, features: Tensor, prototypes: Tensor, *, needed: tuple[bool, bool]
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """The value, and where `needed` its gradients with respect to features and prototypes, in float32.

        The difference s softmax(x) - T is rounded to the format of the products. Most of its entries are near 1 / K,
        below what fp16 holds well, so they are lifted by a power of two. All other factors are taken in float32: the
        temperature and the lift after the products, and of the weights the part that is common to all rows.
        """
        lift = self._lift(features, prototypes)
        largest = self.weights.abs().max().clamp(min=torch.finfo(torch.float32).tiny) if len(features) else 1.0
        weighted = (features * (self.weights / largest).unsqueeze(1)).to(features.dtype) if needed[1] else None
        of_features = torch.zeros_like(features, dtype=torch.float32) if needed[0] else None
        of_prototypes = torch.zeros_like(prototypes, dtype=torch.float32) if needed[1] else None
        total = self.weights.new_zeros(())
        with torch.autocast(features.device.type, enabled=False):
            for chunk in self._chunks(features, prototypes):
                rows = [features[chunk] @ prototypes.T, *self._teachers(chunk)]
                values, difference = on_rows(_differences, rows, *self._shared(), lift, compiled=self.compiled)
                total += torch.dot(values, self.weights[chunk])
                if of_features is not None:
                    of_features[chunk] = difference @ prototypes
                if of_prototypes is not None and weighted is not None:
                    _add_product(of_prototypes, difference.T, weighted[chunk])
            if of_features is not None:
                of_features *= (self.weights / (self.heat * lift)).unsqueeze(1)
            if of_prototypes is not None:
                of_prototypes *= largest / (self.heat * lift)
        return total, of_features, of_prototypes

    def _chunks(self, features: Tensor, prototypes: Tensor) -> list[slice]:
        return list(row_chunks(len(features), len(prototypes), chunk_bytes=self.chunk_bytes))

    def _teachers(self, chunk: slice) -> list[Tensor]:
        """The teacher's logits for some rows, one tensor [m, K] per target that is added up."""
        logits = self.assignment.logits
        if self.targets is None:
            return [logits[chunk]]
        return [logits.index_select(0, index) for index in self.targets[chunk].unbind(dim=1)]

    def _shared(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.assignment.center, self.assignment.temperature, self.heat

    def _lift(self, features: Tensor, prototypes: Tensor) -> float:
        """The largest power of two with which no product overflows, though all rows chose the same prototype."""
        if features.dtype != torch.float16:
            return 1.0
        num_targets = 1 if self.targets is None else self.targets.shape[1]
        longest = longest_chunk(len(prototypes), chunk_bytes=self.chunk_bytes)
        room = torch.finfo(torch.float16).max / (longest * num_targets)
        return min(LARGEST_LIFT, 2.0 ** math.floor(math.log2(room)))


def _cross_entropies(student: Tensor, *others: Any) -> Tensor:
    """Of some rows, from the student's logits [m, K] and what `_targets` takes.  -> float32 [m]"""
    *teachers, center, teacher_heat, heat = others
    target = _added(teachers, center=center, temperature=teacher_heat)
    relative, _, total = _exponentials(student, heat)
    return target.sum(dim=1) * total.log() - relative.mul_(target).sum(dim=1)


def _differences(student: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    """The same, and lift * (s softmax(x) - T) in the format of the student's logits.  -> float32 [m], [m, K]"""
    *teachers, center, teacher_heat, heat, lift = others
    target = _added(teachers, center=center, temperature=teacher_heat)
    relative, exponential, total = _exponentials(student, heat)
    mass = target.sum(dim=1)
    values = mass * total.log() - relative.mul_(target).sum(dim=1)
    difference = exponential.mul_((mass / total * lift).unsqueeze(1)).sub_(target, alpha=lift)
    return values, difference.to(student.dtype)


def _exponentials(student: Tensor, heat: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x less the largest of its row, its exponential, and the sum of that.  [m, K] -> [m, K], [m, K], [m]"""
    relative = student / heat  # of one dimension, so that half becomes float32
    relative = relative.sub_(relative.amax(dim=1, keepdim=True))
    exponential = relative.exp()
    return relative, exponential, exponential.sum(dim=1)


def _added(teachers: list[Tensor], *, center: Tensor, temperature: Tensor) -> Tensor:
    """The sum of the assignments of each of the teacher's logits.  V x [m, K] -> float32 [m, K]"""
    target = assigned(teachers[0], center=center, temperature=temperature)
    for logits in teachers[1:]:
        target += assigned(logits, center=center, temperature=temperature)
    return target


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """total += left @ right, where `total` may be float32 and the others half."""
    if total.dtype == right.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right
