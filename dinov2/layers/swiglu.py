"""The gated feed-forward branch of the giant model (SwiGLU, arXiv 2002.05202).

In: tokens [..., D]. Out: tokens [..., D].
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import silu


def swiglu_width(hidden_features: int) -> int:
    """Two thirds of `hidden_features`, rounded up to a multiple of 8: the parameter count stays that of a plain MLP."""
    return (int(hidden_features * 2 / 3) + 7) // 8 * 8


class SwiGLUFFN(nn.Module):
    """w3(silu(a) * b), where a and b are the first and the second half of w12(x)."""

    def __init__(self, in_features: int, hidden_features: int, *, bias: bool = True) -> None:
        super().__init__()
        width = swiglu_width(hidden_features)
        self.w12 = nn.Linear(in_features, 2 * width, bias=bias)
        self.w3 = nn.Linear(width, in_features, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D]"""
        y: Tensor = self.w3(self.activate(self.expand(x)))
        return y

    @property
    def first(self) -> nn.Linear:
        """The matrix at the beginning."""
        return self.w12

    @property
    def last(self) -> nn.Linear:
        """The matrix at the end."""
        return self.w3

    def expand(self, x: Tensor) -> Tensor:
        """The first matrix: what the rest is computed from.  [..., D] -> [..., 2 width]"""
        both: Tensor = self.w12(x)
        return both

    def activate(self, hidden: Tensor) -> Tensor:
        """What the last matrix sees.  [..., 2 width] -> [..., width]"""
        gate, value = hidden.chunk(2, dim=-1)
        return silu(gate) * value

    knows_its_backward = True

    def activate_backward(self, gradient: Tensor, hidden: Tensor) -> Tensor:
        """The gradient of `hidden` from that of `activate(hidden)`.  [..., width], [..., 2 width] -> [..., 2 width]"""
        gate, value = hidden.chunk(2, dim=-1)
        of_gate = torch.ops.aten.silu_backward(gradient * value, gate)
        return torch.cat([of_gate, gradient * silu(gate)], dim=-1)
