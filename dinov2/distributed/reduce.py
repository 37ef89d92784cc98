"""What processes tell each other: sums, maxima, rows, values, agreed decisions.

In: tensors or plain values of this process. Out: the same on every process. With one process every function is the
identity and nothing is sent.
"""

from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from dinov2.distributed.world import World

T = TypeVar("T")


def sum_over_ranks(tensor: Tensor, *, world: World) -> Tensor:
    """Element-wise sum over all ranks; `tensor` itself is not changed."""
    return _all_reduced(tensor, world=world, operation=dist.ReduceOp.SUM)


def max_over_ranks(tensor: Tensor, *, world: World) -> Tensor:
    """Element-wise maximum over all ranks; `tensor` itself is not changed."""
    return _all_reduced(tensor, world=world, operation=dist.ReduceOp.MAX)


def gather_rows(tensor: Tensor, *, world: World) -> Tensor:
    """The rows of all ranks, those of rank 0 first; gradients flow back to where each row came from.

    Every rank gives equally many.  [B, D] -> [B * ranks, D]
    """
    if world.size == 1:
        return tensor
    rows: Tensor = _GatherRows.apply(tensor, world)  # type: ignore[no-untyped-call]
    return rows


def agree_on(numbers: list[int], *, world: World) -> list[int]:
    """The largest of each number over all ranks."""
    if world.size == 1:
        return numbers
    return [int(value) for value in max_over_ranks(torch.tensor(numbers), world=world).tolist()]


def gather_values(value: T, *, world: World) -> list[T]:
    """A plain value of every rank, by rank."""
    if world.size == 1:
        return [value]
    values: list[Any] = [None] * world.size
    dist.all_gather_object(values, value)
    return values


def from_main(value: T, *, world: World) -> T:
    """Rank 0's plain value on every rank."""
    if world.size == 1:
        return value
    holder = [value]
    dist.broadcast_object_list(holder, src=0)
    return holder[0]


def _all_reduced(tensor: Tensor, *, world: World, operation: dist.ReduceOp.RedOpType) -> Tensor:
    if world.size == 1:
        return tensor
    result = tensor.clone()
    dist.all_reduce(result, op=operation)
    return result


class _GatherRows(torch.autograd.Function):
    """All-gather forward; backward each rank gets the sum over ranks of the gradients of its rows."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, world: World) -> Tensor:
        ctx.world = world
        rows = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for _ in range(world.size)]
        dist.all_gather(rows, tensor.contiguous())
        return torch.cat(rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        total = gradient.clone()
        dist.all_reduce(total)
        return total.chunk(ctx.world.size)[ctx.world.rank], None
