"""Projection of a token to prototype logits.

In: tokens [M, D]. Out: logits [M, K], the scaled cosine of each token's bottleneck with every prototype; or what they
are the product of, for losses that never have all logits at once.

Legend: M tokens, D width, b bottleneck, K prototypes.
"""

import math
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

FP16_EPS = 1e-6  # 1e-12 is zero in fp16
EPS = 1e-12


class Projection(NamedTuple):
    """A head's output before its last product: logits are `features @ prototypes.T`, in the format of both."""

    features: Tensor  # [M, b], rows of length 1
    prototypes: Tensor  # [K, b], rows of length `weight_g`


class WeightNormLinear(nn.Module):
    """A linear map without bias, rows `weight_g * weight_v / |weight_v|` (weight normalisation, arXiv 1602.07868).

    The parameters carry the names of torch's first `weight_norm`, which the public checkpoints have.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight_g = nn.Parameter(torch.ones(out_features, 1))
        self.weight_v = nn.Parameter(torch.empty(out_features, in_features))
        nn.init.kaiming_uniform_(self.weight_v, a=math.sqrt(5))  # U(-1/sqrt(b), 1/sqrt(b)), as nn.Linear

    def weight(self) -> Tensor:
        """The normalised rows, computed in float32.  -> [K, b]"""
        v = self.weight_v.float()
        # one factor per row: no copy of [K, b] besides the result
        factor = self.weight_g.float() / torch.linalg.vector_norm(v, dim=1, keepdim=True)
        rows: Tensor = (v * factor).to(self.weight_v.dtype)
        return rows

    def forward(self, x: Tensor) -> Tensor:
        """[M, b] -> [M, K]"""
        weight = self.weight()
        return linear(x.to(weight.dtype), weight)


class DINOHead(nn.Module):
    """MLP, L2 normalisation, prototypes."""

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        *,
        use_bn: bool = False,
        nlayers: int = 3,
        hidden_dim: int = 2048,
        bottleneck_dim: int = 256,
        mlp_bias: bool = True,
    ) -> None:
        super().__init__()
        widths = [in_dim, *[hidden_dim] * (max(nlayers, 1) - 1), bottleneck_dim]
        self.mlp = _build_mlp(widths, use_bn=use_bn, bias=mlp_bias)
        for module in self.mlp.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self.last_layer = WeightNormLinear(bottleneck_dim, out_dim)

    def forward(self, x: Tensor, *, as_projection: bool = False) -> Tensor | Projection:
        """[M, D] -> [M, K], each logit within plus or minus its `weight_g`; or its factors [M, b] and [K, b]

        The factors come from here and from no other method, for whatever gathers or casts parameters does so around a
        module's forward pass.
        """
        bottleneck = self.mlp(x)  # [M, b]
        eps = FP16_EPS if bottleneck.dtype == torch.float16 else EPS
        unit = normalize(bottleneck.float(), dim=-1, eps=eps)
        if not as_projection:
            logits: Tensor = self.last_layer(unit)
            return logits
        prototypes = self.last_layer.weight()
        dtype = _product_format(prototypes)
        return Projection(unit.to(dtype), prototypes.to(dtype))


def _product_format(weight: Tensor) -> torch.dtype:
    """The number format in which a linear map with this weight computes here."""
    kind = weight.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype


def _build_mlp(widths: list[int], *, use_bn: bool, bias: bool) -> nn.Module:
    """Linear, [batch norm], GELU, ..., Linear; a single Linear is not wrapped, so that it is called `mlp.weight`."""
    *inner, last = pairwise(widths)
    if not inner:
        return nn.Linear(*last, bias=bias)
    layers: list[nn.Module] = []
    for wide_in, wide_out in inner:
        layers.append(nn.Linear(wide_in, wide_out, bias=bias))
        if use_bn:
            layers.append(nn.BatchNorm1d(wide_out))
        layers.append(nn.GELU())
    return nn.Sequential(*layers, nn.Linear(*last, bias=bias))
