"""Matrix products by the fastest library there is for them here.

In: matrices of one format. Out: their products.

On a CPU torch computes float32 products with MKL and those in bfloat16 with oneDNN, which first brings the weight into
blocks that suit the processor, at every call. oneDNN is the faster one at the shapes of a vision transformer
(`dinov2 bench kernels`), and faster still where it finds the weight in blocks already: so a weight that several
products share is brought into them once (`Weight`). Both are reached through the operators that torch's own compiler
emits for linear layers; where a build or a processor has none, torch's products are taken.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

ONES_ROWS = 8  # of ones, before a matrix whose rows are summed: with fewer, oneDNN takes a slower way


class Weight:
    """A matrix [F, D] that multiplies several rows of tokens, a part of them at a time, and may have a bias [F].

    For a pass over one layer: it does not notice when `matrix` changes.
    """

    def __init__(self, matrix: Tensor, bias: Tensor | None = None) -> None:
        self.matrix, self.bias = matrix, bias
        self._in_blocks: dict[bool, Tensor] = {}  # whether of the transposed matrix

    def __call__(self, x: Tensor) -> Tensor:
        """x @ matrix.T + bias.  [T, D] -> [T, F]"""
        return self._multiply(x, transposed=False)

    def backward(self, gradient: Tensor) -> Tensor:
        """gradient @ matrix, the gradient of what was multiplied.  [T, F] -> [T, D]"""
        return self._multiply(gradient, transposed=True)

    def _multiply(self, x: Tensor, *, transposed: bool) -> Tensor:
        matrix, bias = (self.matrix.T, None) if transposed else (self.matrix, self.bias)
        onednn = _onednn()
        if onednn is None or not _suits(x) or type(x) is not Tensor:  # one without memory has no blocks
            return torch.nn.functional.linear(x, matrix, bias)
        if transposed not in self._in_blocks:
            self._in_blocks[transposed] = onednn.reorder(matrix)
        result: Tensor = onednn.linear(x, self._in_blocks[transposed], bias, "none", [], "")
        return result


def sum_of_rows(x: Tensor) -> Tensor:
    """The sum over all rows, added up in float32 inside.  [T, D] -> [D]"""
    if x.dtype != torch.bfloat16 or not _suits(x):
        return x.sum(dim=0)
    return (x.new_ones(ONES_ROWS, len(x)) @ x)[0]  # reads them about twice as fast


def goes_by_blocks(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the products of a `Weight` are faster than torch's own there."""
    return device.type == "cpu" and dtype in _formats() and _onednn() is not None


class _OneDnn(NamedTuple):
    linear: Any
    reorder: Any


def _suits(x: Tensor) -> bool:
    return goes_by_blocks(x.device, x.dtype) and x.dim() == 2 and x.shape[0] > 0


@lru_cache(maxsize=1)
def _formats() -> tuple[torch.dtype, ...]:
    has_bfloat16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return (torch.float32, torch.bfloat16) if has_bfloat16 else (torch.float32,)


@lru_cache(maxsize=1)
def _onednn() -> _OneDnn | None:
    """The operators; None where this torch or this processor has none."""
    if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        return None
    linear, reorder = (
        getattr(torch.ops.mkldnn, name, None) for name in ("_linear_pointwise", "_reorder_linear_weight")
    )
    return None if linear is None or reorder is None else _OneDnn(linear=linear, reorder=reorder)
