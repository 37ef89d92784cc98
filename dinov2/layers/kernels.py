"""The ways to compute attention, each by its name, and the one place where one is chosen. Home of xformers.

In: queries, keys and values of all tokens, [T, 3, H, d], and the `Groups` of their pictures. Out: [T, H, d]; scale
1 / sqrt(d), no dropout, no bias. A token attends to those of its own picture.

Legend: T tokens of all pictures; of one size of pictures: B pictures, N tokens each; H heads, d width of a head.
"""

import importlib
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import scaled_dot_product_attention

from dinov2.errors import ConfigError
from dinov2.layers.packing import Groups, pack, unpack

AttentionKernel = Callable[[Tensor, Groups], Tensor]
OneSizeKernel = Callable[[Tensor, Tensor, Tensor], Tensor]
"""queries, keys, values of pictures of one size, each [B, N, H, d] -> [B, N, H, d]"""

ATTENTION_NAMES = ("auto", "sdpa", "explicit", "xformers", "varlen")
ON_GPU_ONLY = ("xformers", "varlen")
WEIGHTS_AT_ONCE = 4 * 2**20  # bytes, on a CPU
EXPLICIT_UP_TO_TOKENS = 640  # on a CPU in half precision; longer sequences are faster in torch's fused kernel
EXPLICIT_FORWARD_UP_TO_TOKENS = 2048  # the same without a backward pass, in bfloat16


def size_by_size(kernel: OneSizeKernel) -> AttentionKernel:
    """A kernel for pictures of one size, called once for each size."""

    def attend(qkv: Tensor, groups: Groups) -> Tensor:
        return pack([kernel(*part.unbind(dim=2)) for part in unpack(qkv, groups)])[0]

    return attend


def _fused(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    attended = scaled_dot_product_attention(queries.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2))
    return attended.transpose(1, 2)


def sdpa_attention(qkv: Tensor, groups: Groups) -> Tensor:
    """Torch's own fused attention (the flash kernel on a GPU in half precision), size by size; on every device."""
    return size_by_size(_fused)(qkv, groups)


def explicit_attention(qkv: Tensor, groups: Groups) -> Tensor:
    """Two products around a softmax, with the [B, H, N, N] matrix of weights in memory, one size at a time."""
    attended: Tensor = _Explicit.apply(qkv, groups)  # type: ignore[no-untyped-call]
    return attended


class _Explicit(torch.autograd.Function):
    """Attention as products of whole matrices, laid out so that each way copies its operands once.

    The forward pass keeps queries, keys and values, each picture and head a matrix of its own. The weights are kept
    with them where they are no larger than the queries, else computed again for the backward pass: one product of the
    six, and by far the most memory; on a CPU some at a time. The gradient of [T, 3, H, d] is written in place.
    """

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, groups: Groups) -> Tensor:
        attended = qkv.new_empty((qkv.shape[0], *qkv.shape[2:]))
        kept: list[Tensor | None] = []
        with torch.autocast(qkv.device.type, enabled=False):
            for part, out in zip(unpack(qkv, groups), unpack(attended, groups), strict=True):
                batch, length, _, heads, width = part.shape
                matrices = part.new_empty((3, batch * heads, length, width))
                matrices.view(3, batch, heads, length, width).copy_(part.permute(2, 0, 3, 1, 4))
                queries, keys, values = matrices.unbind()
                mixed = torch.empty_like(values)  # [B*H, N, d]
                weights = part.new_empty((batch * heads, length, length)) if keeps_weights(length, width) else None
                for few in _parts(queries):
                    used = _weights(queries[few], keys[few], out=None if weights is None else weights[few])
                    torch.bmm(used, values[few], out=mixed[few])
                out.copy_(mixed.view(batch, heads, length, width).transpose(1, 2))
                kept += [matrices, weights]
        ctx.groups = groups
        ctx.save_for_backward(*kept)
        return attended

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients  # [T, H, d]
        total, heads, width = gradient.shape
        of_qkv = gradient.new_empty((total, 3, heads, width))
        parts, outs = unpack(gradient, ctx.groups), unpack(of_qkv, ctx.groups)
        with torch.autocast(gradient.device.type, enabled=False):
            saved = ctx.saved_tensors
            for part, out, matrices, kept in zip(parts, outs, saved[::2], saved[1::2], strict=True):
                queries, keys, values = matrices.unbind()
                of_mixed = part.transpose(1, 2).flatten(0, 1)  # [B*H, N, d]
                of_matrices = torch.empty_like(matrices)
                for few in _parts(queries):
                    weights = _weights(queries[few], keys[few]) if kept is None else kept[few]
                    of_weights = torch.bmm(of_mixed[few], values[few].transpose(1, 2))
                    of_scores = torch.ops.aten._softmax_backward_data(of_weights, weights, -1, weights.dtype)
                    _times(of_scores, keys[few], width**-0.5, out=of_matrices[0, few])
                    _times(of_scores.transpose(1, 2), queries[few], width**-0.5, out=of_matrices[1, few])
                    torch.bmm(weights.transpose(1, 2), of_mixed[few], out=of_matrices[2, few])
                out.copy_(of_matrices.view(3, -1, heads, part.shape[1], width).permute(1, 3, 0, 2, 4))
        return of_qkv, None


def row_attention(qkv: Tensor, groups: Groups) -> Tensor:
    """Torch's fused kernel of the CPU, whose results and gradients go straight to their places in the row.

    Around `sdpa_attention` torch keeps the result of each size and the row that they are put into, and puts the
    gradient of [T, 3, H, d] together in two steps.
    """
    attended: Tensor = _InRow.apply(qkv, groups)  # type: ignore[no-untyped-call]
    return attended


class _InRow(torch.autograd.Function):
    """The operators are those that torch's `scaled_dot_product_attention` and its backward pass call on a CPU."""

    @staticmethod
    def forward(ctx: Any, qkv: Tensor, groups: Groups) -> Tensor:
        attended, sums = qkv.new_empty((qkv.shape[0], *qkv.shape[2:])), []
        for part, out in zip(unpack(qkv, groups), unpack(attended, groups), strict=True):
            mixed, of_rows = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(*_heads_first(part))
            out.copy_(mixed.transpose(1, 2))
            sums.append(of_rows)  # one number for every row of scores
        ctx.groups = groups
        ctx.save_for_backward(qkv, attended, *sums)
        return attended

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        qkv, attended, *sums = ctx.saved_tensors
        of_qkv = torch.empty_like(qkv)
        sizes = (unpack(row, ctx.groups) for row in (gradients[0], qkv, attended, of_qkv))
        for of_mixed, part, mixed, out, of_rows in zip(*sizes, sums, strict=True):
            of_parts = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
                of_mixed.transpose(1, 2), *_heads_first(part), mixed.transpose(1, 2), of_rows, 0.0, False
            )
            for i, one in enumerate(of_parts):
                out[:, :, i].copy_(one.transpose(1, 2))
        return of_qkv, None


def _heads_first(part: Tensor) -> tuple[Tensor, ...]:
    """Queries, keys and values.  [B, N, 3, H, d] -> 3 x [B, H, N, d], views"""
    return part.permute(2, 0, 3, 1, 4).unbind()


def _parts(matrices: Tensor) -> Iterator[slice]:
    """So many pictures and heads at a time that their weights stay in a CPU's cache; elsewhere all.  [B*H, N, d]

    Parts alike in length, so that no core waits for the last.
    """
    count, length, _ = matrices.shape
    at_once = max(WEIGHTS_AT_ONCE // (length**2 * matrices.element_size()), 1)
    number = -(-count // at_once) if matrices.device.type == "cpu" else 1
    ends = [count * i // number for i in range(number + 1)] if count else [0]
    return (slice(start, end) for start, end in pairwise(ends))


def keeps_weights(length: int, width: int) -> bool:
    """Whether `explicit_attention` keeps the weights of pictures of `length` tokens, `width` a head."""
    return length <= width


def _weights(queries: Tensor, keys: Tensor, *, out: Tensor | None = None) -> Tensor:
    """How much each token takes of each other; sums in float32 inside.  2 x [B*H, N, d] -> [B*H, N, N]"""
    scores = queries.new_empty((*queries.shape[:2], keys.shape[1]))
    _times(queries, keys.transpose(1, 2), queries.shape[-1] ** -0.5, out=scores)
    return torch.softmax(scores, dim=-1, out=out)


def _times(a: Tensor, b: Tensor, factor: float, *, out: Tensor) -> Tensor:
    """factor * a @ b, without a pass for the factor."""
    return torch.baddbmm(out, a, b, beta=0, alpha=factor, out=out)


def auto_attention(qkv: Tensor, groups: Groups) -> Tensor:
    """`explicit_attention` where it was measured to be faster (`dinov2 bench kernels`), else `sdpa_attention`.

    On a CPU in half precision the fused kernel's backward pass is 2 to 7 times slower than two matrix products for
    sequences of a few hundred tokens; its forward pass in bfloat16 takes a quarter longer at 1,370. In float32 with
    gradients it is the fused kernel in the form that keeps and copies less, `row_attention`.
    """
    if qkv.device.type == "cpu" and max(length for _, length in groups) <= _longest_explicit(qkv):
        return explicit_attention(qkv, groups)
    return row_attention(qkv, groups) if _suits_row(qkv) else sdpa_attention(qkv, groups)


def _suits_row(qkv: Tensor) -> bool:
    kernel_is_wanted = not _is_recorded() and _fused_is_enabled()  # a compiler sees the first alone
    followed = qkv.requires_grad and torch.is_grad_enabled()
    return kernel_is_wanted and followed and qkv.device.type == "cpu" and qkv.dtype == torch.float32


def _is_recorded() -> bool:
    """Whether something follows that asks for torch's own operations: compiling, tracing, torch.func."""
    tracing = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    return bool(tracing or torch._C._are_functorch_transforms_active())


def _fused_is_enabled() -> bool:
    return bool(torch.backends.cuda.flash_sdp_enabled())  # type: ignore[no-untyped-call]  # it speaks for CPUs too


def _longest_explicit(qkv: Tensor) -> int:
    if qkv.dtype == torch.bfloat16 and not torch.is_grad_enabled():
        return EXPLICIT_FORWARD_UP_TO_TOKENS
    return EXPLICIT_UP_TO_TOKENS if qkv.dtype in (torch.bfloat16, torch.float16) else 0


def choose_attention(name: str, device: torch.device | None = None) -> AttentionKernel:
    """The attention kernel called `name`, one of `ATTENTION_NAMES`; "auto" is "explicit" or "sdpa".

    xformers and torch's kernel for sequences of several lengths are imported here, when they are asked for by name, and
    nowhere else. `device` is where the kernel will run; None leaves the question to the first call.

    Raises:
        ConfigError: the name is unknown, its library is not there, or it is asked to run on a CPU.
    """
    own = {"auto": auto_attention, "sdpa": sdpa_attention, "explicit": explicit_attention}
    if name in own:
        return own[name]
    if name not in ATTENTION_NAMES:
        raise ConfigError(f"runtime.attention is {name!r}; expected one of {', '.join(ATTENTION_NAMES)}.")
    if device is not None:
        _refuse_cpu(device, name=name)
    return _xformers_attention() if name == "xformers" else _varlen_attention()


def _refuse_cpu(device: torch.device, *, name: str) -> None:
    if device.type == "cpu":
        raise ConfigError(f"runtime.attention={name} has no kernel for the CPU; set runtime.attention=sdpa.")


def _xformers_attention() -> AttentionKernel:
    """Pictures of all sizes in one call, as blocks on the diagonal of one long sequence."""
    try:
        ops = importlib.import_module("xformers.ops")
    except ImportError as error:
        raise ConfigError(
            f"runtime.attention=xformers, but xformers cannot be imported ({error}). "
            "Install it with `pip install 'dinov2[gpu]'`, or set runtime.attention=sdpa."
        ) from error

    @lru_cache(maxsize=8)  # sizes of a run are few, and each bias lies on the device
    def diagonal(groups: Groups, device: torch.device) -> Any:
        lengths = [length for pictures, length in groups for _ in range(pictures)]
        return ops.fmha.BlockDiagonalMask.from_seqlens(lengths, device=device)

    def attend(qkv: Tensor, groups: Groups) -> Tensor:
        _refuse_cpu(qkv.device, name="xformers")
        queries, keys, values = qkv.unsqueeze(0).unbind(dim=2)  # 3 x [1, T, H, d]
        attended: Tensor = ops.memory_efficient_attention(queries, keys, values, attn_bias=diagonal(groups, qkv.device))
        return attended.squeeze(0)

    return attend


def _varlen_attention() -> AttentionKernel:
    """Pictures of all sizes in one call of torch's flash kernel for sequences of several lengths; half precision."""
    try:
        varlen = importlib.import_module("torch.nn.attention.varlen").varlen_attn
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"runtime.attention=varlen, but torch {torch.__version__} has no torch.nn.attention.varlen ({error}); "
            "set runtime.attention=sdpa."
        ) from error

    def attend(qkv: Tensor, groups: Groups) -> Tensor:
        _refuse_cpu(qkv.device, name="varlen")
        queries, keys, values = qkv.unbind(dim=1)  # 3 x [T, H, d]
        first, longest = first_tokens(groups, device=qkv.device), max(length for _, length in groups)
        attended: Tensor = varlen(queries, keys, values, first, first, longest, longest)
        return attended

    return attend


def first_tokens(groups: Groups, *, device: torch.device) -> Tensor:
    """Where each picture begins in the row, and where the last one ends.  -> int32 [pictures + 1]

    Counted on the device, so that nothing is copied to it.
    """
    starts, total = [], 0
    for pictures, length in groups:
        end = total + pictures * length
        starts.append(torch.arange(total, end, length, dtype=torch.int32, device=device))
        total = end
    return torch.cat([*starts, torch.full((1,), total, dtype=torch.int32, device=device)])
