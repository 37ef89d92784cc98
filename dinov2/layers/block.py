"""A transformer block: attention, then feed-forward, each as a scaled residual branch.

In: tokens [B, N, D], or a list of such. Out: the same shapes.
"""

from collections.abc import Callable
from typing import overload

from torch import Tensor, nn

from dinov2.layers.attention import Attention, AttentionKernel, sdpa_attention
from dinov2.layers.drop_path import residual_on_a_subset
from dinov2.layers.layer_scale import LayerScale
from dinov2.layers.mlp import Mlp
from dinov2.layers.swiglu import SwiGLUFFN

LAYER_NORM_EPS = 1e-6
FFN_NAMES = ("mlp", "swiglu", "swiglufused", "identity")


def build_ffn(name: str, dim: int, *, hidden_dim: int, act_layer: Callable[[], nn.Module], bias: bool) -> nn.Module:
    """The feed-forward branch called `name`; "swiglu" and "swiglufused" are one thing.

    Raises:
        ValueError: the name is unknown.
    """
    if name == "mlp":
        return Mlp(dim, hidden_dim, act_layer=act_layer, bias=bias)
    if name in ("swiglu", "swiglufused"):
        return SwiGLUFFN(dim, hidden_dim, bias=bias)
    if name == "identity":
        return nn.Identity()
    raise ValueError(f"ffn_layer is {name!r}; expected one of {', '.join(FFN_NAMES)}")


class Block(nn.Module):
    """x + ls1(attn(norm1 x)), then x + ls2(mlp(norm2 x))."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = False,
        proj_bias: bool = True,
        ffn_bias: bool = True,
        drop_path: float = 0.0,
        init_values: float | None = None,
        act_layer: Callable[[], nn.Module] = nn.GELU,
        ffn_layer: str = "mlp",
        kernel: AttentionKernel = sdpa_attention,
    ) -> None:
        super().__init__()
        self.drop_path_rate = drop_path
        self.norm1 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.attn = Attention(dim, num_heads, qkv_bias=qkv_bias, proj_bias=proj_bias, kernel=kernel)
        self.ls1 = LayerScale(dim, init_values) if init_values else nn.Identity()
        self.norm2 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.mlp = build_ffn(ffn_layer, dim, hidden_dim=int(dim * mlp_ratio), act_layer=act_layer, bias=ffn_bias)
        self.ls2 = LayerScale(dim, init_values) if init_values else nn.Identity()

    def attention_branch(self, x: Tensor) -> Tensor:
        """What attention adds.  [B, N, D] -> [B, N, D]"""
        update: Tensor = self.ls1(self.attn(self.norm1(x)))
        return update

    def ffn_branch(self, x: Tensor) -> Tensor:
        """What the feed-forward adds.  [B, N, D] -> [B, N, D]"""
        update: Tensor = self.ls2(self.mlp(self.norm2(x)))
        return update

    def _add(self, x: Tensor, branch: Callable[[Tensor], Tensor]) -> Tensor:
        if self.training and self.drop_path_rate > 0:
            return residual_on_a_subset(x, branch, rate=self.drop_path_rate)
        return x + branch(x)

    @overload
    def forward(self, x: Tensor) -> Tensor: ...

    @overload
    def forward(self, x: list[Tensor]) -> list[Tensor]: ...

    def forward(self, x: Tensor | list[Tensor]) -> Tensor | list[Tensor]:
        """[B, N, D] -> [B, N, D]; a list keeps its order, and every tensor of it drops pictures of its own.

        A list goes through attention as a whole and then through the feed-forward: a block is entered once a step.
        """
        inputs = [x] if isinstance(x, Tensor) else x
        attended = [self._add(tokens, self.attention_branch) for tokens in inputs]
        outputs = [self._add(tokens, self.ffn_branch) for tokens in attended]
        return outputs[0] if isinstance(x, Tensor) else outputs
