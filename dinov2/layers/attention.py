"""Multi-head self-attention over pictures of several sizes in one row of tokens.

In: tokens [T, D] and their `Groups`. Out: tokens [T, D]. The kernels between them are in `dinov2.layers.kernels`.

Legend: T tokens of all pictures, D width, H heads, d = D / H width of a head.
"""

from torch import Tensor, nn

from dinov2.layers.kernels import AttentionKernel, choose_attention, sdpa_attention
from dinov2.layers.packing import Groups, pack


class Attention(nn.Module):
    """Self-attention with one matrix for queries, keys and values (rows in that order) and one for the output."""

    def __init__(
        self,
        dim: int,
        num_heads: int = 8,
        *,
        qkv_bias: bool = False,
        proj_bias: bool = True,
        kernel: AttentionKernel = sdpa_attention,
    ) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"Attention: width {dim} is not a multiple of num_heads {num_heads}")
        self.num_heads = num_heads
        self.kernel = kernel
        self.qkv = nn.Linear(dim, dim * 3, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim, bias=proj_bias)

    def mix(self, qkv: Tensor, groups: Groups) -> Tensor:
        """Every token from those of its picture; `proj` is what follows.  [T, 3 D] -> [T, D]"""
        return self.kernel(qkv.view(len(qkv), 3, self.num_heads, -1), groups).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, D] -> [B, N, D]"""
        tokens, groups = pack([x])
        projected: Tensor = self.proj(self.mix(self.qkv(tokens), groups))
        return projected.view_as(x)


def use_attention(module: nn.Module, name: str) -> None:
    """Give every attention layer below `module` the kernel called `name`."""
    kernel = choose_attention(name)
    for layer in module.modules():
        if isinstance(layer, Attention):
            layer.kernel = kernel
