"""Teacher logits to soft assignments, by centring or by Sinkhorn-Knopp; the one copy of both.

In: teacher logits [M, K] of this process, and how to reduce over all processes. Out: an `Assignment`, rows sum to 1.

Both are a softmax of logits from which a centre, one number per prototype, was taken. Centring has a running mean for
it; Sinkhorn-Knopp looks for the centre with which every prototype gets the same share. So an assignment is the logits
as they came, in half precision where the head computes in it, and a vector: never a table [M, K] in float32.

Legend: M samples (CLS tokens or masked patches) of this process, which may be none; K prototypes; m samples of a chunk.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed
from torch import Tensor, nn

from dinov2.loss.chunks import CHUNK_BYTES, on_rows, row_chunks


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


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """softmax((logits - center) / temperature) over prototypes, computed where and when rows of it are needed."""

    logits: Tensor  # [M, K] of the teacher, in any floating format; held, not copied
    center: Tensor  # float32 [K]
    temperature: Tensor  # float32 [1]
    chunk_bytes: int = CHUNK_BYTES

    def __len__(self) -> int:
        return self.logits.shape[0]

    def rows(self, index: slice) -> Tensor:
        """Some rows, written out.  -> float32 [m, K]"""
        return assigned(self.logits[index], center=self.center, temperature=self.temperature)

    def dense(self) -> Tensor:
        """All rows, written out.  -> float32 [M, K]"""
        return self.rows(slice(None))

    def mean(self) -> Tensor:
        """The mean over samples, a chunk of them at a time.  -> float32 [K]"""
        total = torch.zeros_like(self.center)
        for chunk in self._chunks():
            total += self.rows(chunk).sum(dim=0)
        return total / len(self)

    def mean_entropy(self) -> Tensor:
        """The mean over samples of the entropy of an assignment in nats, a chunk of them at a time.  -> scalar"""
        total = self.center.new_zeros(())
        for chunk in self._chunks():
            total += torch.special.entr(self.rows(chunk)).sum()
        return total / len(self)

    def _chunks(self) -> list[slice]:
        return list(row_chunks(*self.logits.shape, chunk_bytes=self.chunk_bytes))


def assigned(logits: Tensor, *, center: Tensor, temperature: Tensor) -> Tensor:
    """softmax((logits - center) / temperature) in float32.  [m, K], [K], [1] -> [m, K]"""
    return torch.softmax(torch.sub(logits, center).div_(temperature), dim=1)  # half minus float32 is float32


@torch.no_grad()
def sinkhorn_assignment(
    logits: Tensor,
    *,
    temperature: float | Tensor,
    reductions: Reductions,
    iterations: int = 3,
    chunk_bytes: int = CHUNK_BYTES,
    compiled: bool = False,
) -> Assignment:
    """Balanced soft assignment of samples to prototypes (SwAV, arXiv 2006.09882, section 3.1), of logits [M, K].

    Each iteration gives every prototype the same total over all processes, then every sample a total of 1. The sample
    and prototype counts of the published form cancel. What is left of each iteration is a factor per prototype and one
    per sample. The latter is what a softmax divides by; the logarithm of the former, times the temperature, is the
    centre. It is summed up as a logarithm: no overflow and no lost sample, whatever the scale of the logits.

    The logits are read once per iteration, a chunk of rows at a time; processes exchange vectors [K].

    Raises:
        ValueError: fewer than one iteration.
    """
    if iterations < 1:
        raise ValueError(f"sinkhorn: {iterations} iterations; at least 1 is needed")
    logits = logits.detach()
    heat = as_heat(temperature, like=logits)
    chunks = list(row_chunks(*logits.shape, chunk_bytes=chunk_bytes))
    with torch.autocast(logits.device.type, enabled=False):
        center = _first_center(logits, chunks, heat, reductions=reductions, compiled=compiled)
        for _ in range(iterations - 1):
            mass = torch.zeros_like(center)
            for chunk in chunks:
                mass += on_rows(_mass, [logits[chunk]], center, heat, compiled=compiled)
            mass = reductions.sum(mass)
            # a prototype that ran empty stays empty
            center = torch.where(mass == 0, center, center + heat * mass.log())
    return Assignment(logits=logits, center=center, temperature=heat, chunk_bytes=chunk_bytes)


def _first_center(
    logits: Tensor, chunks: list[slice], heat: Tensor, *, reductions: Reductions, compiled: bool
) -> Tensor:
    """heat * log sum exp(logits / heat) over the samples of all processes; of none, the lowest there is.  -> [K]"""
    largest = torch.full_like(heat, torch.finfo(torch.float32).min).repeat(logits.shape[1])
    total = torch.zeros_like(largest)
    for chunk in chunks:
        largest, total = on_rows(_summed, [logits[chunk]], heat, largest, total, compiled=compiled)
    everywhere = reductions.max(largest)
    total = reductions.sum(total * torch.exp(largest - everywhere))
    return heat * (everywhere + total.log())


def _summed(rows: Tensor, heat: Tensor, largest: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
    """Largest entry of each column, and the sum of exponentials relative to it, after some more rows."""
    rows = rows / heat  # of one dimension, so that half becomes float32
    here = torch.maximum(largest, rows.amax(dim=0))
    return here, total * torch.exp(largest - here) + torch.exp(rows.sub_(here)).sum(dim=0)


def _mass(rows: Tensor, center: Tensor, heat: Tensor) -> Tensor:
    """What each prototype gets of some samples.  [m, K] -> [K]"""
    return assigned(rows, center=center, temperature=heat).sum(dim=0)


def sinkhorn(logits: Tensor, *, temperature: float | Tensor, reductions: Reductions, iterations: int = 3) -> Tensor:
    """`sinkhorn_assignment`, written out.  [M, K] -> float32 [M, K]"""
    return sinkhorn_assignment(logits, temperature=temperature, reductions=reductions, iterations=iterations).dense()


@torch.no_grad()
def centred_assignment(
    logits: Tensor, *, center: Tensor, temperature: float | Tensor, chunk_bytes: int = CHUNK_BYTES
) -> Assignment:
    """By the centre as it is now: a later update of it changes nothing here (DINO, arXiv 2104.14294, section 3.1).

    [M, K], any shape of K numbers.
    """
    logits = logits.detach()
    return Assignment(
        logits=logits,
        center=center.float().flatten().clone(),
        temperature=as_heat(temperature, like=logits),
        chunk_bytes=chunk_bytes,
    )


def centred_softmax(logits: Tensor, *, center: Tensor, temperature: float | Tensor) -> Tensor:
    """`centred_assignment`, written out.  [..., K] -> float32 [..., K]"""
    rows = logits.flatten(0, -2)
    return centred_assignment(rows, center=center, temperature=temperature).dense().view(logits.shape)


@torch.no_grad()
def updated_center(
    center: Tensor,
    logits: Tensor,
    *,
    momentum: float,
    reductions: Reductions,
    processes_alike: bool = False,
    chunk_bytes: int = CHUNK_BYTES,
) -> Tensor:
    """The running mean of teacher logits after one more batch.

    Every sample weighs the same, or with `processes_alike` the mean of every process. A process without samples takes
    part with weight 0 either way; where no process has one, the centre stays.
    [..., K], [M, K] -> shape of `center`
    """
    num_rows = logits.shape[0]
    weight = 1.0 / max(num_rows, 1) if processes_alike else 1.0
    total = logits.new_zeros(logits.shape[1] + 1, dtype=torch.float32)  # one reduction for the sums and their count
    for chunk in row_chunks(*logits.shape, chunk_bytes=chunk_bytes):
        total[:-1] += logits[chunk].sum(dim=0, dtype=torch.float32)
    total[-1:] += num_rows
    total = reductions.sum(total * weight)
    sums, num_samples = total[:-1], total[-1]
    moved = center * momentum + (sums / num_samples.clamp(min=1.0)) * (1 - momentum)
    return torch.where(num_samples > 0, moved, center)


def as_heat(temperature: float | Tensor, *, like: Tensor) -> Tensor:
    """A temperature as a tensor: it changes with every step, and nothing is to be compiled anew for it.  -> [1]"""
    if isinstance(temperature, Tensor):
        return temperature.to(device=like.device, dtype=torch.float32).view(1)
    return torch.full((1,), temperature, dtype=torch.float32, device=like.device)


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
        return centred_softmax(teacher_output, center=self.center, temperature=teacher_temp)

    def centred(self, teacher_output: Tensor, teacher_temp: float) -> Assignment:
        """The same, not written out, of logits [M, K]."""
        return centred_assignment(teacher_output, center=self.center, temperature=teacher_temp)

    def balanced(
        self, teacher_output: Tensor, teacher_temp: float, *, n_iterations: int = 3, compiled: bool = False
    ) -> Assignment:
        """Sinkhorn assignments over the samples of all processes, of logits [M, K]."""
        return sinkhorn_assignment(
            teacher_output,
            temperature=teacher_temp,
            reductions=given_or_one_process(self.reductions),
            iterations=n_iterations,
            compiled=compiled,
        )

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
