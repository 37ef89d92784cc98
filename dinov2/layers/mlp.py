"""The feed-forward branch of a block: two matrices with a GELU between them.

In: tokens [..., D]. Out: tokens [..., D].
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Mlp(nn.Module):
    """fc1, activation, fc2."""

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        *,
        act_layer: Callable[[], nn.Module] = nn.GELU,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(in_features, hidden_features, bias=bias)
        self.act = act_layer()
        self.fc2 = nn.Linear(hidden_features, in_features, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D]"""
        y: Tensor = self.fc2(self.activate(self.expand(x)))
        return y

    @property
    def first(self) -> nn.Linear:
        """The matrix at the beginning."""
        return self.fc1

    @property
    def last(self) -> nn.Linear:
        """The matrix at the end."""
        return self.fc2

    def expand(self, x: Tensor) -> Tensor:
        """The first matrix: what the rest is computed from.  [..., D] -> [..., hidden]"""
        hidden: Tensor = self.fc1(x)
        return hidden

    def activate(self, hidden: Tensor) -> Tensor:
        """What the last matrix sees.  [..., hidden] -> [..., hidden]"""
        active: Tensor = self.act(hidden)
        return active

    @property
    def knows_its_backward(self) -> bool:
        """Whether `activate_backward` is there: for GELU, whatever form of it."""
        return isinstance(self.act, nn.GELU)

    def activate_backward(self, gradient: Tensor, hidden: Tensor) -> Tensor:
        """In the place of the gradient of `activate(hidden)`, that of `hidden`.  2 x [..., hidden] -> [..., hidden]"""
        assert isinstance(self.act, nn.GELU)
        gelu_backward = torch.ops.aten.gelu_backward.grad_input
        of_hidden: Tensor = gelu_backward(gradient, hidden, approximate=self.act.approximate, grad_input=gradient)
        return of_hidden


class NoFfn(nn.Identity):
    """No feed-forward: the branch gives the normed tokens themselves."""

    last = None
    knows_its_backward = False

    def expand(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D]"""
        return x

    def activate(self, hidden: Tensor) -> Tensor:
        """[..., D] -> [..., D]"""
        return hidden
