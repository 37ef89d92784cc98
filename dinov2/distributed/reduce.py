"""What processes tell each other: sums, maxima, averaged gradients, agreed decisions.

In: tensors of this process. Out: the same on every process. With one process every function is the identity and
nothing is sent.
"""

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn

from dinov2.distributed.world import World

BUCKET_BYTES = 32 * 2**20


def sum_over_ranks(tensor: Tensor, *, world: World) -> Tensor:
    """Element-wise sum over all ranks; `tensor` itself is not changed."""
    return _all_reduced(tensor, world=world, operation=dist.ReduceOp.SUM)


def max_over_ranks(tensor: Tensor, *, world: World) -> Tensor:
    """Element-wise maximum over all ranks; `tensor` itself is not changed."""
    return _all_reduced(tensor, world=world, operation=dist.ReduceOp.MAX)


def agree(flag: bool, *, world: World) -> bool:
    """True on every rank as soon as it is true on one."""
    if world.size == 1:
        return flag
    return bool(max_over_ranks(torch.tensor(int(flag)), world=world).item())


def broadcast_module(module: nn.Module, *, world: World) -> None:
    """Parameters and buffers of rank 0 on every rank, in place."""
    if world.size == 1:
        return
    for tensor in module.state_dict().values():
        dist.broadcast(tensor, src=0)


def average_gradients(parameters: Iterable[nn.Parameter], *, world: World) -> None:
    """Mean over ranks of every gradient, in place, sent in buckets.

    A parameter that got a gradient on some ranks only counts as zero on the others; one that got none anywhere keeps
    none, so that the optimiser leaves it alone as in a run of one process.
    """
    if world.size == 1:
        return
    listed = [p for p in parameters if p.requires_grad]
    has_gradient = torch.tensor([p.grad is not None for p in listed], dtype=torch.int32)
    somewhere = max_over_ranks(has_gradient, world=world).tolist()
    used = [p for p, flag in zip(listed, somewhere, strict=True) if flag]
    for parameter in used:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    for bucket in _buckets([p.grad for p in used if p.grad is not None]):
        flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
        dist.all_reduce(flat)
        flat /= world.size
        for gradient, mean in zip(bucket, torch.split(flat, [g.numel() for g in bucket]), strict=True):
            gradient.copy_(mean.view_as(gradient))


def _all_reduced(tensor: Tensor, *, world: World, operation: dist.ReduceOp.RedOpType) -> Tensor:
    if world.size == 1:
        return tensor
    result = tensor.clone()
    dist.all_reduce(result, op=operation)
    return result


def _buckets(gradients: list[Tensor]) -> Iterable[list[Tensor]]:
    bucket: list[Tensor] = []
    size = 0
    for gradient in gradients:
        bytes_ = gradient.numel() * gradient.element_size()
        if bucket and (size + bytes_ > BUCKET_BYTES or gradient.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(gradient)
        size += bytes_
    if bucket:
        yield bucket
