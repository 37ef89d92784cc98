"""A learnt factor per channel at the end of a residual branch (LayerScale, arXiv 2103.17239).

In: tokens [B, N, D]. Out: tokens [B, N, D].
"""

import torch
from torch import Tensor, nn


class LayerScale(nn.Module):
    """Multiplies channel j by `gamma[j]`, which starts at `init_values`."""

    def __init__(self, dim: int, init_values: float = 1e-5) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), float(init_values)))

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, D] -> [B, N, D]"""
        return x * self.gamma
