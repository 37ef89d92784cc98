"""Teacher logits to soft assignments, by centring or by Sinkhorn-Knopp; the one copy of both.

In: teacher logits [M, K] of this process, and how to reduce over all processes. Out: float32 [M, K], rows sum to 1.

Legend: M samples (CLS tokens or masked patches) of this process, which may be none; K prototypes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Reductions:
    """Sum and maximum over all processes, element by element, and the rows of all processes in one tensor.

    None of them changes its argument; gradients flow back through `gather` alone.
    """

    sum: Callable[[Tensor], Tensor]
    max: Callable[[Tensor], Tensor]
    gather: Callable[[Tensor], Tensor]  # [B, D] -> [B * processes, D], the rows of process 0 first
    rank: int


ONE_PROCESS = Reductions(sum=lambda tensor: tensor, max=lambda tensor: tensor, gather=lambda tensor: tensor, rank=0)


def given_or_one_process(reductions: Reductions | None) -> Reductions:
    """`reductions`, or those of a single process where that is what runs.

    Raises:
        ValueError: several processes run, and nothing was given.
    """
    if reductions is not None:
        return reductions
    initialised = torch.distributed.is_available() and torch.distributed.is_initialized()
    if initialised and torch.distributed.get_world_size() > 1:
        raise ValueError(
            f"{torch.distributed.get_world_size()} processes run, but this loss was built without reductions, so each "
            "would balance its own samples only; pass reductions=Reductions(sum=..., max=...)"
        )
    return ONE_PROCESS


@torch.no_grad()
def sinkhorn(logits: Tensor, *, temperature: float | Tensor, reductions: Reductions, iterations: int = 3) -> Tensor:
    """Balanced soft assignment of samples to prototypes (SwAV, arXiv 2006.09882, section 3.1).  [M, K] -> [M, K]

    Each iteration gives every prototype the same total over all processes, then every sample a total of 1. The sample
    and prototype counts of the published form cancel. So does any factor per prototype before the first iteration,
    which therefore runs on logarithms and neither overflows nor loses a sample, whatever the scale of the logits.

    Raises:
        ValueError: fewer than one iteration.
    """
    if iterations < 1:
        raise ValueError(f"sinkhorn: {iterations} iterations; at least 1 is needed")
    q = logits.float() / temperature
    largest = reductions.max(_column_max(q))  # [1, K]
    column_sum = reductions.sum(torch.exp(q - largest).sum(dim=0, keepdim=True))
    q = torch.softmax(q.sub_(largest + column_sum.log()), dim=1)
    tiny = torch.finfo(q.dtype).tiny  # a prototype may run empty in later iterations; it stays empty
    for _ in range(iterations - 1):
        q.div_(reductions.sum(q.sum(dim=0, keepdim=True)).clamp_(min=tiny))
        q.div_(q.sum(dim=1, keepdim=True))
    return q


def _column_max(q: Tensor) -> Tensor:
    """Largest entry of each column; of no rows, the lowest number there is.  [M, K] -> [1, K]"""
    if q.shape[0] == 0:
        return torch.full_like(q.sum(dim=0, keepdim=True), torch.finfo(q.dtype).min)
    return q.amax(dim=0, keepdim=True)


@torch.no_grad()
def centred_softmax(logits: Tensor, *, center: Tensor, temperature: float | Tensor) -> Tensor:
    """softmax((logits - center) / temperature) over prototypes (DINO, arXiv 2104.14294, section 3.1).  [..., K]"""
    return torch.softmax((logits.float() - center) / temperature, dim=-1)


@torch.no_grad()
def updated_center(
    center: Tensor, logits: Tensor, *, momentum: float, reductions: Reductions, processes_alike: bool = False
) -> Tensor:
    """The running mean of teacher logits after one more batch.

    Every sample weighs the same, or with `processes_alike` the mean of every process. A process without samples takes
    part with weight 0 either way; where no process has one, the centre stays.
    [..., K], [M, K] -> shape of `center`
    """
    rows = logits.float()
    weight = 1.0 / max(rows.shape[0], 1) if processes_alike else 1.0
    count = rows.new_full((1,), rows.shape[0] * weight)
    total = reductions.sum(torch.cat([rows.sum(dim=0) * weight, count]))  # one reduction for both
    sums, num_samples = total[:-1], total[-1]
    moved = center * momentum + (sums / num_samples.clamp(min=1.0)) * (1 - momentum)
    return torch.where(num_samples > 0, moved, center)


class AssigningLoss(nn.Module):
    """What the two public loss modules share: the student's temperature, the running centre and both assignments."""

    center: Tensor  # [1, ..., K]

    def __init__(
        self,
        center: Tensor,
        *,
        student_temp: float,
        center_momentum: float,
        reductions: Reductions | None,
        processes_alike: bool = False,
    ) -> None:
        super().__init__()
        self.processes_alike = processes_alike
        self.student_temp = student_temp
        self.center_momentum = center_momentum
        self.reductions = reductions
        self.register_buffer("center", center)

    def softmax_center_teacher(self, teacher_output: Tensor, teacher_temp: float) -> Tensor:
        """Assignments by the centre as it is now.  [..., K] -> [..., K]"""
        center = self.center.view(*[1] * (teacher_output.ndim - 1), -1)
        return centred_softmax(teacher_output, center=center, temperature=teacher_temp)

    def balanced(self, teacher_output: Tensor, teacher_temp: float, *, n_iterations: int) -> Tensor:
        """Sinkhorn assignments over the samples of all processes.  [M, K] -> [M, K]"""
        reductions = given_or_one_process(self.reductions)
        return sinkhorn(teacher_output, temperature=teacher_temp, reductions=reductions, iterations=n_iterations)

    def update_center(self, teacher_output: Tensor) -> None:
        """Move the centre, at once; call it after the assignments of the step.  [..., K]

        Every sample of every process weighs the same, unless `processes_alike`.
        """
        self.center.copy_(
            updated_center(
                self.center,
                teacher_output.flatten(0, -2),
                momentum=self.center_momentum,
                reductions=given_or_one_process(self.reductions),
                processes_alike=self.processes_alike,
            )
        )
