"""The two halves of a block as single operations that keep little and work on few tokens at a time.

In: tokens [T, D] and the weights of a half. Out: queries, keys and values; or the block's output. Their backward
passes are written out: what norms, casts and activation functions give is made again there, and so are the tokens
between the two branches, for a product of D x D. Nothing that is only passed through is ever as long as all tokens: on
a CPU it stays in the cache, and the allocator has no large holes to leave behind.

Legend: T tokens, D width, F hidden width; e the format of the products (autocast's, or that of the tokens).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dinov2.layers.mlp import Mlp
from dinov2.layers.products import Weight, sum_of_rows
from dinov2.layers.swiglu import SwiGLUFFN

ROWS_ON_CPU = 2560
"""Tokens at a time on a CPU; elsewhere all of them."""


def normed_linear(x: Tensor, norm: nn.LayerNorm, matrix: nn.Linear) -> Tensor:
    """`matrix(norm(x))`, keeping `x` alone.  [T, D] -> [T, F] in e"""
    out: Tensor = _NormedLinear.apply(  # type: ignore[no-untyped-call]
        x, norm.weight, norm.bias, matrix.weight, matrix.bias, norm.eps, product_dtype(x)
    )
    return out


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
    factors [D]. Keeps `x`, `attended` and, if `keep_hidden`, what its first matrix gives: [T, F] in e.
    """
    weights = (proj.weight, proj.bias, proj_scale, norm.weight, norm.bias, branch.first.weight, branch.first.bias)
    ending = (branch.last.weight, branch.last.bias, last_scale)
    rest = _Rest(eps=norm.eps, dtype=product_dtype(x), branch=branch, keep_hidden=keep_hidden)
    out: Tensor = _SecondHalf.apply(x, attended, *weights, *ending, rest)  # type: ignore[no-untyped-call]
    return out


def product_dtype(x: Tensor) -> torch.dtype:
    """The format in which a matrix product of `x` is made here and now."""
    return torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else x.dtype


def _parts(x: Tensor) -> Iterator[slice]:
    """Parts alike in length."""
    number = max(-(-len(x) // ROWS_ON_CPU), 1) if x.device.type == "cpu" else 1
    ends = [len(x) * i // number for i in range(number + 1)]
    return (slice(start, end) for start, end in pairwise(ends))


def _normed(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Normed tokens in the format of the norm's weights, mean, inverse deviation."""
    return torch.native_layer_norm(x.to(weight.dtype), [x.shape[-1]], weight, bias, eps)


def _in(dtype: torch.dtype, *tensors: Tensor | None) -> list[Any]:
    return [None if tensor is None else tensor.to(dtype) for tensor in tensors]


class _Sum:
    """A gradient, summed over parts of the tokens in float32 (float64 stays)."""

    def __init__(self, like: Tensor) -> None:
        self._like, self._dtype = like, torch.promote_types(like.dtype, torch.float32)
        self._total: Tensor | None = None

    def add(self, part: Tensor) -> None:
        """What no one else will use."""
        wide = part.to(self._dtype)  # faster than adding in place across formats
        self._total = wide if self._total is None else self._total.add_(wide)

    @property
    def total(self) -> Tensor:
        """Of all parts so far."""
        return torch.zeros_like(self._like, dtype=self._dtype) if self._total is None else self._total


class _Sums:
    """Gradients of weights, those that there are."""

    def __init__(self, *like: Tensor | None) -> None:
        self._like = like
        self._sums = [None if one is None else _Sum(one) for one in like]

    def matrix(self, place: int, gradient: Tensor, inputs: Tensor) -> None:
        """Of a matrix at `place` and of its bias behind it."""
        self.add(place, gradient.T @ inputs)
        if self._sums[place + 1] is not None:
            self.add(place + 1, sum_of_rows(gradient))

    def add(self, place: int, *gradients: Tensor) -> None:
        """Gradients as they are."""
        for i, gradient in enumerate(gradients, start=place):
            one = self._sums[i]
            assert one is not None
            one.add(gradient)

    def done(self) -> list[Tensor | None]:
        """In the formats of the weights."""
        pairs = zip(self._sums, self._like, strict=True)
        return [None if one is None or like is None else one.total.to(like.dtype) for one, like in pairs]


class _NormedLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        scale: Tensor,
        shift: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        eps: float,
        dtype: torch.dtype,
    ) -> Tensor:
        ctx.save_for_backward(x, scale, shift, weight, bias)
        ctx.eps, ctx.dtype = eps, dtype
        matrix = Weight(*_in(dtype, weight, bias))
        parts = list(_parts(x))
        out = x.new_empty((len(x), len(weight)), dtype=dtype) if len(parts) > 1 else None
        with torch.autocast(x.device.type, enabled=False):
            for part in parts:
                normed, _, _ = _normed(x[part], scale, shift, eps)
                whole = matrix(normed.to(dtype))
                if out is not None:
                    out[part] = whole
        return whole if out is None else out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        x, scale, shift, weight, bias = ctx.saved_tensors
        sums = _Sums(scale, shift, weight, bias)
        matrix = Weight(*_in(ctx.dtype, weight))
        of_x = torch.empty_like(x)
        with torch.autocast(x.device.type, enabled=False):
            for part in _parts(x):
                normed, *statistics = _normed(x[part], scale, shift, ctx.eps)
                sums.matrix(2, gradient[part], normed.to(ctx.dtype))
                of_normed = matrix.backward(gradient[part])
                of_x[part] = _norm_backward(sums, of_normed, x[part], scale, shift, *statistics, place=0)
        return of_x, *sums.done(), None, None


def _norm_backward(
    sums: _Sums,
    gradient: Tensor,
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    mean: Tensor,
    deviation: Tensor,
    *,
    place: int,
) -> Tensor:
    """The gradient of a norm's input; those of its weights are added to `sums`."""
    of_x: Tensor
    of_x, of_scale, of_shift = torch.ops.aten.native_layer_norm_backward(
        gradient.to(scale.dtype), x.to(scale.dtype), [x.shape[-1]], mean, deviation, scale, shift, [True, True, True]
    )
    sums.add(place, of_scale, of_shift)
    return of_x


@dataclass(frozen=True, kw_only=True)
class _Rest:
    """What is no tensor."""

    eps: float
    dtype: torch.dtype  # of the products
    branch: Mlp | SwiGLUFFN  # of whom the activation function is asked
    keep_hidden: bool


class _Scaled:
    """A matrix with LayerScale behind it: y = s (x W + b).

    The factors are taken into the matrix, except in fp16, whose smallest numbers are larger than a weight times a
    factor of 1e-5. Gradients of all three follow from the one product that the matrix alone would need.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, scale: Tensor | None, *, dtype: torch.dtype) -> None:
        self._given = weight, bias, scale
        inside = scale is not None and dtype != torch.float16
        self._behind = None if scale is None or inside else scale.to(dtype)
        if inside and scale is not None:
            weight, bias = weight * scale.unsqueeze(1), None if bias is None else bias * scale
        self._matrix = Weight(*_in(dtype, weight, bias))
        self._of_matrix, self._of_bias = _Sum(weight), _Sum(weight[:, 0])

    def forward(self, x: Tensor) -> Tensor:
        """[T, F] -> [T, D]"""
        multiplied = self._matrix(x)
        return multiplied if self._behind is None else multiplied * self._behind

    def backward(self, gradient: Tensor, inputs: Tensor) -> Tensor:
        """The gradient of the inputs; those of the weights are summed up."""
        self._of_matrix.add(gradient.T @ inputs)
        self._of_bias.add(sum_of_rows(gradient))
        return self._matrix.backward(gradient if self._behind is None else gradient * self._behind)

    def done(self) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Of the matrix, the bias and the factors."""
        weight, bias, scale = self._given
        of_matrix, of_bias, of_scale = self._of_matrix.total, self._of_bias.total, None
        if scale is not None:
            of_scale = (of_matrix * weight).sum(dim=1)
            if bias is not None:
                of_scale += of_bias * bias
            of_scale = of_scale.to(scale.dtype)
            of_matrix, of_bias = of_matrix * scale.unsqueeze(1), of_bias * scale
        return of_matrix.to(weight.dtype), None if bias is None else of_bias.to(bias.dtype), of_scale


_NUM_WEIGHTS = 10  # of a second half


class _SecondHalf(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, attended: Tensor | None, *weights_and_rest: Any) -> Tensor:
        *weights, rest = weights_and_rest
        proj, proj_bias, proj_scale, scale, shift, first, first_bias, *ending = weights
        hidden: list[Tensor] = []
        out = torch.empty_like(x, dtype=x.dtype if attended is not None else rest.dtype)
        projected = _Scaled(proj, proj_bias, proj_scale, dtype=rest.dtype)
        expanded, contracted = Weight(*_in(rest.dtype, first, first_bias)), _Scaled(*ending, dtype=rest.dtype)
        with torch.autocast(x.device.type, enabled=False):
            for part in _parts(x):
                between = x[part] if attended is None else x[part] + projected.forward(attended[part])
                normed, _, _ = _normed(between, scale, shift, rest.eps)
                wide = expanded(normed.to(rest.dtype))
                if rest.keep_hidden:
                    hidden.append(wide)
                added = contracted.forward(rest.branch.activate(wide))
                if attended is None:
                    out[part] = added
                else:
                    torch.add(between, added, out=out[part])
        ctx.save_for_backward(x, attended, *weights, *hidden)
        ctx.rest = rest
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        x, attended, *weights = ctx.saved_tensors
        hidden, rest = weights[_NUM_WEIGHTS:], ctx.rest
        proj, proj_bias, proj_scale, scale, shift, first, first_bias, *ending = weights[:_NUM_WEIGHTS]
        projected = _Scaled(proj, proj_bias, proj_scale, dtype=rest.dtype)
        expanded, contracted = Weight(*_in(rest.dtype, first, first_bias)), _Scaled(*ending, dtype=rest.dtype)
        sums = _Sums(scale, shift, first, first_bias)
        of_x, of_attended = torch.empty_like(x), None if attended is None else torch.empty_like(attended)
        with torch.autocast(x.device.type, enabled=False):
            for i, part in enumerate(_parts(x)):
                between = x[part] if attended is None else x[part] + projected.forward(attended[part])
                normed, *statistics = _normed(between, scale, shift, rest.eps)
                normed = normed.to(rest.dtype)
                wide = hidden[i] if rest.keep_hidden else expanded(normed)
                of_active = contracted.backward(gradient[part].to(rest.dtype), rest.branch.activate(wide))
                of_wide = rest.branch.activate_backward(of_active, wide)
                sums.matrix(2, of_wide, normed)
                of_normed = expanded.backward(of_wide)
                of_between = _norm_backward(sums, of_normed, between, scale, shift, *statistics, place=0)
                if attended is None or of_attended is None:
                    of_x[part] = of_between
                    continue
                torch.add(of_between, gradient[part], out=of_x[part])
                of_attended[part] = projected.backward(of_x[part].to(rest.dtype), attended[part])
        of_proj = projected.done() if attended is not None else (None, None, None)
        return of_x, of_attended, *of_proj, *sums.done(), *contracted.done(), None
