"""What a GPU does differently from a CPU with the same code, as far as memory is concerned.

In: operations on tensors that have no memory. Out: the same operations with the number formats and the saved tensors
that they have on a GPU.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional
from torch.overrides import TorchFunctionMode

# Of the operations that autocast computes in float32 on a GPU (torch.amp, "CUDA ops that autocast to float32") those
# that a network of this package may use. On a CPU they keep the format of their input.
FLOAT32_ON_GPU: frozenset[Callable[..., Any]] = frozenset(
    {
        functional.layer_norm,
        torch.layer_norm,
        functional.softmax,
        torch.softmax,
        Tensor.softmax,
        functional.log_softmax,
        torch.log_softmax,
        Tensor.log_softmax,
        torch.norm,
        functional.normalize,
    }
)


class GpuAutocast(TorchFunctionMode):
    """Inside `torch.autocast`: the operations above take and give float32, as on a GPU."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in FLOAT32_ON_GPU and torch.is_autocast_enabled("cpu"):
            args = tuple(_as_float32(value) for value in args)
        return func(*args, **(kwargs or {}))


def _as_float32(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value


class _FusedAttention(torch.autograd.Function):
    """A fused kernel: keeps queries, keys, values, its result and one float a row; never the matrix of weights."""

    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        batch, num_tokens, heads, _ = queries.shape
        out = torch.empty_like(queries, memory_format=torch.contiguous_format)
        log_sums = queries.new_empty((batch, heads, num_tokens), dtype=torch.float32)
        ctx.save_for_backward(queries, keys, values, out, log_sums)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        del gradients  # their values make no difference
        queries, keys, values, _, log_sums = ctx.saved_tensors
        row_sums = torch.empty_like(log_sums)
        # The kernels add up the gradient of the queries in float32.
        summed = torch.empty_like(queries, dtype=torch.float32, memory_format=torch.contiguous_format)
        results = tuple(torch.empty_like(t, memory_format=torch.contiguous_format) for t in (queries, keys, values))
        del row_sums, summed
        return results


def fused_attention(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """An attention kernel as `layers.AttentionKernel`, for shapes alone.  3 x [B, N, H, d] -> [B, N, H, d]"""
    out: Tensor = _FusedAttention.apply(queries, keys, values)  # type: ignore[no-untyped-call]
    return out
