"""The feed-forward branch of a block: two matrices with a GELU between them.

In: tokens [B, N, D]. Out: tokens [B, N, D].
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
        """[B, N, D] -> [B, N, D]"""
        y: Tensor = self.fc2(self.act(self.fc1(x)))
        return y
