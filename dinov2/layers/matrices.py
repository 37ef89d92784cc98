"""A matrix and what stands before or behind it, with gradients that are summed over parts of the tokens.

In: the weights of a norm, a matrix, LayerScale. Out: products of parts of the tokens, and once all parts have been
seen, the gradients of the weights.

What only multiplies or shifts is taken into the matrix, except in fp16, whose smallest numbers are larger than a weight
times a factor of 1e-5. Gradients of all of it follow from the one product that the matrix alone would need.

Legend: T tokens of a part, D width, F what a matrix gives; e the format of the products.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dinov2.layers.products import Weight, sum_of_rows


def takes_factors_in(dtype: torch.dtype) -> bool:
    """Whether a matrix in this format has the factors of what stands beside it inside."""
    return dtype != torch.float16


class Sum:
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


@dataclass(frozen=True, kw_only=True)
class Normed:
    """A part of the tokens behind a norm, and what the backward pass needs of it."""

    tokens: Tensor  # [T, D] in e, what the matrix sees
    deviation: Tensor  # [T, 1], inverse
    mean: Tensor | None  # [T, 1]; None where the norm's input is no longer there
    inputs: Tensor | None  # [T, D], what was normed


class NormedMatrix:
    """A norm with a matrix behind it: y = (n(x) s + t) W + b.

    With s and t inside, W and b become s W and b + t W, and the matrix sees n(x) alone: that and the inverse deviations
    are then all that its backward pass needs.
    """

    def __init__(
        self, scale: Tensor, shift: Tensor, weight: Tensor, bias: Tensor | None, *, eps: float, dtype: torch.dtype
    ) -> None:
        self._given = scale, shift, weight, bias
        self._inside, self._eps, self._dtype = takes_factors_in(dtype), eps, dtype
        self._scale, self._shift = scale, shift
        if self._inside:
            shifted = weight @ shift.to(weight.dtype)
            weight, bias = weight * scale, shifted if bias is None else bias + shifted
            self._scale, self._shift = torch.ones_like(scale), torch.zeros_like(shift)  # as fast as a kernel has it
        self._matrix = Weight(*in_format(dtype, weight, bias))
        self._of_matrix, self._of_bias = Sum(weight), Sum(weight[:, 0])
        self._of_scale, self._of_shift = Sum(scale), Sum(shift)

    def normed(self, x: Tensor) -> Normed:
        """[T, D]"""
        x = x.to(self._scale.dtype)
        tokens, mean, deviation = torch.native_layer_norm(x, [x.shape[-1]], self._scale, self._shift, self._eps)
        return Normed(tokens=tokens.to(self._dtype), deviation=deviation, mean=mean, inputs=x)

    def forward(self, seen: Normed) -> Tensor:
        """[T, D] -> [T, F]"""
        return self._matrix(seen.tokens)

    def backward(self, gradient: Tensor, seen: Normed, *, onto: Tensor | None, out: Tensor) -> None:
        """`out` becomes the gradient of what was normed, plus `onto`; those of the weights are summed up.

        [T, F]; [T, D]
        """
        self._of_matrix.add(gradient.T @ seen.tokens)
        if self._inside or self._given[-1] is not None:
            self._of_bias.add(sum_of_rows(gradient))
        of_normed = self._matrix.backward(gradient).to(self._scale.dtype)
        if seen.inputs is None or seen.mean is None:
            tokens, ones = seen.tokens.to(of_normed.dtype), torch.ones_like(seen.deviation)
            change, _, _ = _norm_backward(of_normed, tokens, torch.zeros_like(ones), ones)
            if onto is None:
                torch.mul(change, seen.deviation, out=out)
            else:
                torch.addcmul(onto, change, seen.deviation, out=out)
            return
        scale = None if self._inside else self._scale
        change, *of_weights = _norm_backward(of_normed, seen.inputs, seen.mean, seen.deviation, scale=scale)
        if scale is not None:
            self._of_scale.add(of_weights[0])
            self._of_shift.add(of_weights[1])
        if onto is None:
            out.copy_(change)
        else:
            torch.add(change, onto, out=out)

    def done(self) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Of the norm's factors and shifts, of the matrix and its bias, in their formats."""
        scale, shift, weight, bias = self._given
        of_matrix, of_bias = self._of_matrix.total, self._of_bias.total
        if self._inside:
            of_scale, of_shift = (of_matrix * weight).sum(dim=0), weight.to(of_bias.dtype).T @ of_bias
            of_matrix = torch.addr(of_matrix * scale, of_bias, shift.to(of_bias.dtype))
        else:
            of_scale, of_shift = self._of_scale.total, self._of_shift.total
        of_its_bias = None if bias is None else of_bias.to(bias.dtype)
        return of_scale.to(scale.dtype), of_shift.to(shift.dtype), of_matrix.to(weight.dtype), of_its_bias


class ScaledMatrix:
    """A matrix with LayerScale behind it: y = s (x W + b)."""

    def __init__(self, weight: Tensor, bias: Tensor | None, scale: Tensor | None, *, dtype: torch.dtype) -> None:
        self._given = weight, bias, scale
        inside = scale is not None and takes_factors_in(dtype)
        self._behind = None if scale is None or inside else scale.to(dtype)
        if inside and scale is not None:
            weight, bias = weight * scale.unsqueeze(1), None if bias is None else bias * scale
        self._matrix = Weight(*in_format(dtype, weight, bias))
        self._of_matrix, self._of_bias = Sum(weight), Sum(weight[:, 0])

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
        """Of the matrix, the bias and the factors, in their formats."""
        weight, bias, scale = self._given
        of_matrix, of_bias, of_scale = self._of_matrix.total, self._of_bias.total, None
        if scale is not None:
            of_scale = (of_matrix * weight).sum(dim=1)
            if bias is not None:
                of_scale += of_bias * bias
            of_scale = of_scale.to(scale.dtype)
            of_matrix, of_bias = of_matrix * scale.unsqueeze(1), of_bias * scale
        return of_matrix.to(weight.dtype), None if bias is None else of_bias.to(bias.dtype), of_scale


def in_format(dtype: torch.dtype, *tensors: Tensor | None) -> list[Any]:
    """Those that there are, in one format."""
    return [None if tensor is None else tensor.to(dtype) for tensor in tensors]


def _norm_backward(
    gradient: Tensor, inputs: Tensor, mean: Tensor, deviation: Tensor, *, scale: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Of the input; with `scale` also of the factors and shifts."""
    found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.native_layer_norm_backward(
        gradient,
        inputs,
        [inputs.shape[-1]],
        mean,
        deviation,
        scale,
        scale,
        [True, scale is not None, scale is not None],
    )
    return found
