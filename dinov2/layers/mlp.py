"""The feed-forward branch of a block: two matrices with a GELU between them.

In: tokens [..., D]. Out: tokens [..., D].
"""

from collections.abc import Callable

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
        return self.contract(self.expand(x))

    def expand(self, x: Tensor) -> Tensor:
        """The first matrix: what the rest is computed from.  [..., D] -> [..., hidden]"""
        hidden: Tensor = self.fc1(x)
        return hidden

    def contract(self, hidden: Tensor) -> Tensor:
        """All behind it.  [..., hidden] -> [..., D]"""
        y: Tensor = self.fc2(self.act(hidden))
        return y


class NoFfn(nn.Identity):
    """No feed-forward: the branch gives the normed tokens themselves."""

    def expand(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D]"""
        return x

    def contract(self, hidden: Tensor) -> Tensor:
        """[..., D] -> [..., D]"""
        return hidden
