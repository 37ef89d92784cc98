"""The two halves of a block as single operations that keep little and work on few tokens at a time.

In: tokens [T, D] and the weights of a half. Out: queries, keys and values; or the block's output. Their backward
passes are written out. Where the products have a narrower format than the tokens (autocast in bf16), what is kept of a
norm is what it gave, in that format; elsewhere its input is kept, and what it gave is made again, and so are the
tokens between the two branches, for a product of D x D. What casts and activation functions give is always made again.
Nothing that is only passed through is ever as long as all tokens: on a CPU it stays in the cache, and the allocator
has no large holes to leave behind.

Legend: T tokens, D width, F hidden width; e the format of the products (autocast's, or that of the tokens).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dinov2.layers.matrices import Normed, NormedMatrix, ScaledMatrix, takes_factors_in
from dinov2.layers.mlp import Mlp
from dinov2.layers.swiglu import SwiGLUFFN

ROWS_ON_CPU = 2560
"""Tokens at a time on a CPU; elsewhere all of them."""


def normed_linear(x: Tensor, norm: nn.LayerNorm, matrix: nn.Linear) -> tuple[Tensor, Tensor]:
    """`matrix(norm(x))` in e, [T, D] -> [T, F]; and `x` itself.

    What goes on with that `x` gives its gradient to this operation, which adds its own to it while it is in the cache.
    """
    how = _Form(eps=norm.eps, dtype=product_dtype(x), keep_normed=_keeps_normed(x))
    out: Tensor
    out, x = _NormedLinear.apply(x, norm.weight, norm.bias, matrix.weight, matrix.bias, how)  # type: ignore[no-untyped-call]
    return out, x


def second_half(
    x: Tensor,
    attended: Tensor | None,
    *,
    proj: nn.Linear,
    proj_scale: Tensor | None,
    norm: nn.LayerNorm,
    branch: Mlp | SwiGLUFFN,
    last_scale: Tensor | None,
    keep_hidden: bool,
) -> Tensor:
    """y = x + scaled proj(attended); y + scaled branch(norm(y)).  [T, D], [T, D] -> [T, D]

    Without `attended` y is `x`, and what the feed-forward adds to it is returned alone, in e. Scales are LayerScale's
    factors [D]. Keeps `attended`, `x` or what the norm gives, and, if `keep_hidden`, what the feed-forward's first
    matrix gives: [T, F] in e.
    """
    weights = (proj.weight, proj.bias, proj_scale, norm.weight, norm.bias, branch.first.weight, branch.first.bias)
    ending = (branch.last.weight, branch.last.bias, last_scale)
    how = _Form(eps=norm.eps, dtype=product_dtype(x), keep_normed=_keeps_normed(x))
    rest = _Rest(form=how, branch=branch, keep_hidden=keep_hidden)
    out: Tensor = _SecondHalf.apply(x, attended, *weights, *ending, rest)  # type: ignore[no-untyped-call]
    return out


def product_dtype(x: Tensor) -> torch.dtype:
    """The format in which a matrix product of `x` is made here and now."""
    return torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else x.dtype


def keeps_normed(tokens: torch.dtype, products: torch.dtype) -> bool:
    """Whether a norm's result is kept for the backward pass instead of its input, in these formats."""
    return takes_factors_in(products) and products.itemsize < tokens.itemsize


def _keeps_normed(x: Tensor) -> bool:
    return torch.is_grad_enabled() and keeps_normed(x.dtype, product_dtype(x))


def _parts(x: Tensor) -> Iterator[slice]:
    """Parts alike in length."""
    number = max(-(-len(x) // ROWS_ON_CPU), 1) if x.device.type == "cpu" else 1
    ends = [len(x) * i // number for i in range(number + 1)]
    return (slice(start, end) for start, end in pairwise(ends))


@dataclass(frozen=True, kw_only=True)
class _Form:
    eps: float
    dtype: torch.dtype  # of the products
    keep_normed: bool


def _kept_of(seen: Normed) -> tuple[Tensor, Tensor]:
    return seen.tokens, seen.deviation


def _kept_parts(kept: Sequence[Tensor]) -> list[Normed]:
    """What `_kept_of` kept of every part."""
    pairs = zip(kept[::2], kept[1::2], strict=True)
    return [Normed(tokens=tokens, deviation=deviation, mean=None, inputs=None) for tokens, deviation in pairs]


class _NormedLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *weights_and_form: Any) -> tuple[Tensor, Tensor]:
        *weights, form = weights_and_form
        kept: list[Tensor] = []
        matrix = NormedMatrix(*weights, eps=form.eps, dtype=form.dtype)
        parts = list(_parts(x))
        out = x.new_empty((len(x), len(weights[2])), dtype=form.dtype) if len(parts) > 1 else None
        with torch.autocast(x.device.type, enabled=False):
            for part in parts:
                seen = matrix.normed(x[part])
                whole = matrix.forward(seen)
                kept += _kept_of(seen) if form.keep_normed else ()
                if out is not None:
                    out[part] = whole
        ctx.save_for_backward(*weights, *(kept if form.keep_normed else [x]))
        ctx.set_materialize_grads(False)
        ctx.form, ctx.tokens = form, x.dtype
        return whole if out is None else out, x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        gradient, of_same = gradients
        if gradient is None:
            return of_same, *[None] * (_NUM_NORMED + 1)
        weights, kept = ctx.saved_tensors[:_NUM_NORMED], ctx.saved_tensors[_NUM_NORMED:]
        seen = _kept_parts(kept) if ctx.form.keep_normed else None
        with torch.autocast(gradient.device.type, enabled=False):
            matrix = NormedMatrix(*weights, eps=ctx.form.eps, dtype=ctx.form.dtype)
            of_x = gradient.new_empty((len(gradient), weights[2].shape[1]), dtype=ctx.tokens)
            for i, part in enumerate(_parts(gradient)):
                this = matrix.normed(kept[0][part]) if seen is None else seen[i]
                onto = None if of_same is None else of_same[part]
                matrix.backward(gradient[part], this, onto=onto, out=of_x[part])
            return of_x, *matrix.done(), None


_NUM_NORMED = 4  # weights of a norm and a matrix


@dataclass(frozen=True, kw_only=True)
class _Rest:
    """What is no tensor."""

    form: _Form
    branch: Mlp | SwiGLUFFN  # of whom the activation function is asked
    keep_hidden: bool


_NUM_WEIGHTS = 10  # of a second half


class _Matrices:
    """Those of a second half."""

    def __init__(self, weights: Sequence[Any], form: _Form) -> None:
        self.projected = ScaledMatrix(*weights[:3], dtype=form.dtype)
        self.expanded = NormedMatrix(*weights[3:7], eps=form.eps, dtype=form.dtype)
        self.contracted = ScaledMatrix(*weights[7:], dtype=form.dtype)


class _SecondHalf(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, attended: Tensor | None, *weights_and_rest: Any) -> Tensor:
        *weights, rest = weights_and_rest
        form, hidden, kept = rest.form, list[Tensor](), list[Tensor]()
        out = torch.empty_like(x, dtype=x.dtype if attended is not None else form.dtype)
        with torch.autocast(x.device.type, enabled=False):
            of = _Matrices(weights, form)
            for part in _parts(x):
                between = _between(x, attended, of, part)
                seen = of.expanded.normed(between)
                wide = of.expanded.forward(seen)
                hidden += [wide] if rest.keep_hidden else []
                kept += _kept_of(seen) if form.keep_normed else ()
                added = of.contracted.forward(rest.branch.activate(wide))
                if attended is None:
                    out[part] = added
                else:
                    torch.add(between, added, out=out[part])
        ctx.save_for_backward(attended, *weights, *(kept if form.keep_normed else [x]), *hidden)
        ctx.rest, ctx.tokens, ctx.num_hidden = rest, x.dtype, len(hidden)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        rest, form = ctx.rest, ctx.rest.form
        attended, *saved = ctx.saved_tensors
        weights, kept = saved[:_NUM_WEIGHTS], saved[_NUM_WEIGHTS : len(saved) - ctx.num_hidden]
        hidden = saved[len(saved) - ctx.num_hidden :]
        seen = _kept_parts(kept) if form.keep_normed else None
        of_x = torch.empty_like(gradient, dtype=ctx.tokens)
        of_attended = None if attended is None else torch.empty_like(attended)
        with torch.autocast(gradient.device.type, enabled=False):
            of = _Matrices(weights, form)
            for i, part in enumerate(_parts(gradient)):
                this = of.expanded.normed(_between(kept[0], attended, of, part)) if seen is None else seen[i]
                wide = hidden[i] if rest.keep_hidden else of.expanded.forward(this)
                of_active = of.contracted.backward(gradient[part].to(form.dtype), rest.branch.activate(wide))
                of_wide = rest.branch.activate_backward(of_active, wide)
                onto = None if attended is None else gradient[part]
                of.expanded.backward(of_wide, this, onto=onto, out=of_x[part])
                if of_attended is not None:
                    of_attended[part] = of.projected.backward(of_x[part].to(form.dtype), attended[part])
            of_proj = (None, None, None) if attended is None else of.projected.done()
            return of_x, of_attended, *of_proj, *of.expanded.done(), *of.contracted.done(), None


def _between(x: Tensor, attended: Tensor | None, of: _Matrices, part: slice) -> Tensor:
    """The tokens between the two branches."""
    return x[part] if attended is None else x[part] + of.projected.forward(attended[part])
