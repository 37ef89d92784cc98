"""A learnt factor per channel at the end of a residual branch (LayerScale, arXiv 2103.17239).

In: tokens [..., D]. Out: tokens [..., D].
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

NOTHING = nn.Identity()


class LayerScale(nn.Module):
    """Multiplies channel j by `gamma[j]`, which starts at `init_values`."""

    def __init__(self, dim: int, init_values: float = 1e-5) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), float(init_values)))

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D]"""
        return x * self.gamma


def ending(last: nn.Linear, scale: LayerScale | nn.Identity, x: Tensor) -> tuple[Callable[[Tensor], Tensor], nn.Module]:
    """The end of a branch as a matrix and what comes after it; together `scale(last(x))`.

    The factors are taken into the matrix, so that no tokens are multiplied, and none are kept for the gradient of the
    factors: it follows from that of the matrix. Not in fp16, whose smallest numbers are larger than a weight times a
    factor of 1e-5: there they stay behind it. `x` tells the format.
    """
    computed_in = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else x.dtype
    if not isinstance(scale, LayerScale) or computed_in == torch.float16:
        return last, scale
    weight = last.weight * scale.gamma.unsqueeze(1)
    bias = None if last.bias is None else last.bias * scale.gamma
    return (lambda x: linear(x, weight, bias)), NOTHING
