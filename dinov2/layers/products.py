"""Matrix products by the fastest library there is for them here.

In: matrices of one format. Out: their product.

On a CPU torch computes float32 products with MKL, although oneDNN, which it also holds, is faster at the shapes of a
vision transformer (`dinov2 bench kernels`): 10 to 17 % on AMD's processors for all but the gradients of weights. It is
reached through the operator that torch's own compiler emits for linear layers; where a build has none, torch's product
is taken.
"""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, out: Tensor | None = None) -> Tensor:
    """x @ weight.T + bias, into `out` where it is given.  [T, D], [F, D], [F] -> [T, F]"""
    if (onednn := _onednn()) is not None and _suits(x):
        result: Tensor = onednn(x, weight, bias, "none", [], "")
        return result if out is None else out.copy_(result)
    if bias is None:
        return torch.mm(x, weight.T) if out is None else torch.mm(x, weight.T, out=out)
    return torch.addmm(bias, x, weight.T) if out is None else torch.addmm(bias, x, weight.T, out=out)


def _suits(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype == torch.float32 and x.dim() == 2 and x.shape[0] > 0


@lru_cache(maxsize=1)
def _onednn() -> Any:
    """The operator; None where this torch or this processor has none."""
    if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        return None
    return getattr(torch.ops.mkldnn, "_linear_pointwise", None)
