"""A learnt factor per channel at the end of a residual branch (LayerScale, arXiv 2103.17239).

In: tokens [..., D]. Out: tokens [..., D].
"""

import torch
from torch import Tensor, nn


class LayerScale(nn.Module):
    """Multiplies channel j by `gamma[j]`, which starts at `init_values`."""

    def __init__(self, dim: int, init_values: float = 1e-5) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), float(init_values)))

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D]"""
        return x * self.gamma
