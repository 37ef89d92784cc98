"""A transformer block: attention, then feed-forward, each as a scaled residual branch.

In: tokens [T, D] of pictures of several sizes and their `Groups`; or tokens [B, N, D], or a list of such. Out: the
same shapes. First what is random is drawn (`drop_path`), then everything is computed without any chance: so that part
can be compiled, and computed again for the backward pass.
"""

from collections.abc import Callable
from typing import Literal, overload

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dinov2.layers.attention import Attention
from dinov2.layers.drop_path import Kept, add_back, draw_kept, take, weights_of
from dinov2.layers.halves import normed_linear, product_dtype, second_half
from dinov2.layers.kernels import AttentionKernel, sdpa_attention
from dinov2.layers.layer_scale import LayerScale, ending
from dinov2.layers.mlp import Mlp, NoFfn
from dinov2.layers.packing import Groups, pack, unpack
from dinov2.layers.products import goes_by_blocks
from dinov2.layers.swiglu import SwiGLUFFN

Checkpointing = Literal["none", "branches", "pointwise", "selective", "full"]
Compute = Callable[[Tensor, Groups, tuple[Kept, Kept] | None, Tensor | None], Tensor]

LAYER_NORM_EPS = 1e-6
FEW_SHAPES = 16  # of pictures, besides those of the training
PLAIN_LAYERS = (Attention, LayerScale, Mlp, SwiGLUFFN, nn.Linear, nn.LayerNorm, nn.GELU, nn.Identity)  # inside a block
FFN_NAMES = ("mlp", "swiglu", "swiglufused", "identity")


def build_ffn(
    name: str, dim: int, *, hidden_dim: int, act_layer: Callable[[], nn.Module], bias: bool
) -> Mlp | SwiGLUFFN | NoFfn:
    """The feed-forward branch called `name`; "swiglu" and "swiglufused" are one thing.

    Raises:
        ValueError: the name is unknown.
    """
    if name == "mlp":
        return Mlp(dim, hidden_dim, act_layer=act_layer, bias=bias)
    if name in ("swiglu", "swiglufused"):
        return SwiGLUFFN(dim, hidden_dim, bias=bias)
    if name == "identity":
        return NoFfn()
    raise ValueError(f"ffn_layer is {name!r}; expected one of {', '.join(FFN_NAMES)}")


class Block(nn.Module):
    """x + ls1(attn(norm1 x)), then x + ls2(mlp(norm2 x)).

    `compute`: another form of `deterministic` to run in its place, such as a compiled one. `checkpointing` says what
    the backward pass computes again: nothing; "branches" norms, casts and activation functions, as a compiled block
    does by itself; "pointwise" besides them the tokens between the branches, for one product of D x D; "selective" also
    the first matrix of the feed-forward, whose result is the largest of all; "full" all from the block's input. The
    three in the middle go through `dinov2.layers.halves`, where the activation function is one that it knows. So does,
    whatever is chosen, a block without gradients on a CPU in the formats in which that is faster (`goes_by_halves`).
    """

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
        self.checkpointing: Checkpointing = "none"
        self.compute: Compute | None = None
        self.norm1 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.attn = Attention(dim, num_heads, qkv_bias=qkv_bias, proj_bias=proj_bias, kernel=kernel)
        self.ls1 = LayerScale(dim, init_values) if init_values else nn.Identity()
        self.norm2 = nn.LayerNorm(dim, eps=LAYER_NORM_EPS)
        self.mlp = build_ffn(ffn_layer, dim, hidden_dim=int(dim * mlp_ratio), act_layer=act_layer, bias=ffn_bias)
        self.ls2 = LayerScale(dim, init_values) if init_values else nn.Identity()

    @overload
    def forward(self, x: Tensor, groups: Groups | None = None, *, only: Tensor | None = None) -> Tensor: ...

    @overload
    def forward(self, x: list[Tensor]) -> list[Tensor]: ...

    def forward(
        self, x: Tensor | list[Tensor], groups: Groups | None = None, *, only: Tensor | None = None
    ) -> Tensor | list[Tensor]:
        """[T, D] with its groups -> [T, D]; [B, N, D] -> [B, N, D]; a list of such keeps its order.

        Pictures of all sizes pass every matrix and norm together; each size drops pictures of its own. With `only`,
        int64 [R], the tokens at these places of the row are returned, [R, D], and what follows attention is computed
        for them alone.
        """
        if groups is not None and isinstance(x, Tensor):
            return self._packed(x, groups, only)
        tokens, groups = pack([x] if isinstance(x, Tensor) else x)
        outputs = unpack(self._packed(tokens, groups), groups)
        return outputs[0] if isinstance(x, Tensor) else outputs

    def _packed(self, tokens: Tensor, groups: Groups, only: Tensor | None = None) -> Tensor:
        kept = None
        if self.training and self.drop_path_rate > 0:
            first, second = (draw_kept(groups, rate=self.drop_path_rate, device=tokens.device) for _ in range(2))
            kept = first, second
        compute = self.compute or self.deterministic
        if self.compute is not None and only is not None:
            torch._dynamo.maybe_mark_dynamic(only, 0)  # how many there are differs from step to step
        if self.checkpointing == "full":
            again: Tensor = checkpoint(
                compute, tokens, groups, kept, only, use_reentrant=False, preserve_rng_state=False
            )
            return again
        return compute(tokens, groups, kept, only)

    def deterministic(
        self, x: Tensor, groups: Groups, kept: tuple[Kept, Kept] | None, only: Tensor | None = None
    ) -> Tensor:
        """Both branches; of the pictures in `kept` alone, where it is given.  [T, D] -> [T, D], or [R, D] of `only`"""
        if kept is None:
            if (self._keeps_little() and self.checkpointing != "branches") or self.goes_by_halves(x):
                x, attended = self._attended_in_one(x, groups)
                return self._second_half(_chosen(x, only), attended=_chosen(attended, only))
            x = _chosen(x, only) + self.attention_branch(x, groups, only=only)
            return x + self.ffn_branch(x)
        part, part_groups = take(x, groups, kept[0])
        x = add_back(x, groups, kept[0], update=self.attention_branch(part, part_groups))
        if only is not None:  # few, so that leaving out the dropped ones among them would save little
            x, weights = _chosen(x, only), weights_of(only, groups, kept[1])
            return x + (self.ffn_branch(x) * weights).to(x.dtype)
        part, _ = take(x, groups, kept[1])
        return add_back(x, groups, kept[1], update=self.ffn_branch(part))

    def goes_by_halves(self, x: Tensor) -> bool:
        """Whether there are no gradients, the halves of a block are faster then, and they are all there is to compute.

        They see no hooks on the layers inside, and no layer that somebody has put in the place of another.
        """
        followed = torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        if followed or not self.mlp.knows_its_backward:  # a compiler sees nothing else
            return False
        return goes_by_blocks(x.device, product_dtype(x)) and self._is_plain()

    def attention_branch(self, x: Tensor, groups: Groups, *, only: Tensor | None = None) -> Tensor:
        """What attention adds.  [T, D] -> [T, D], or [R, D] of `only`"""
        if self._keeps_little():
            _, attended = self._attended_in_one(x, groups)
        else:
            attended = self.attn.mix(self.attn.qkv(self.norm1(x)), groups)
        attended = _chosen(attended, only)
        matrix, after = ending(self.attn.proj, self.ls1, attended)
        update: Tensor = after(matrix(attended))
        return update

    def ffn_branch(self, x: Tensor) -> Tensor:
        """What the feed-forward adds.  [T, D] -> [T, D]"""
        if self._keeps_little():
            return self._second_half(x, attended=None)
        if self.mlp.last is None:
            update: Tensor = self.ls2(self.norm2(x))
            return update
        hidden = self.mlp.activate(self.mlp.expand(self.norm2(x)))
        matrix, after = ending(self.mlp.last, self.ls2, hidden)
        added: Tensor = after(matrix(hidden))
        return added

    def _keeps_little(self) -> bool:
        return self.checkpointing in ("branches", "pointwise", "selective") and self.mlp.knows_its_backward

    def _is_plain(self) -> bool:
        inside = (layer for layer in self.modules() if layer is not self)
        return all(type(one) in PLAIN_LAYERS and not (one._forward_hooks or one._forward_pre_hooks) for one in inside)

    def _attended_in_one(self, x: Tensor, groups: Groups) -> tuple[Tensor, Tensor]:
        """Norm and matrix as one operation, attention behind them; and `x`, see `normed_linear`."""
        qkv, x = normed_linear(x, self.norm1, self.attn.qkv)
        return x, self.attn.mix(qkv, groups)

    def _second_half(self, x: Tensor, *, attended: Tensor | None) -> Tensor:
        assert not isinstance(self.mlp, NoFfn)
        return second_half(
            x,
            attended,
            proj=self.attn.proj,
            proj_scale=self.ls1.gamma if isinstance(self.ls1, LayerScale) else None,
            norm=self.norm2,
            branch=self.mlp,
            last_scale=self.ls2.gamma if isinstance(self.ls2, LayerScale) else None,
            keep_hidden=self.checkpointing != "selective" and torch.is_grad_enabled(),
        )


def _chosen(tokens: Tensor, only: Tensor | None) -> Tensor:
    return tokens if only is None else tokens.index_select(0, only)


def use_checkpointing(module: nn.Module, how: Checkpointing) -> None:
    """Tell every block below `module` what its backward pass computes again."""
    for block in module.modules():
        if isinstance(block, Block):
            block.checkpointing = how


def compile_blocks(module: nn.Module) -> None:
    """Every block below `module` computes in a form that torch compiles when it first runs, for the shapes it then has.

    One form serves all blocks of equal shape and drop-path rate. A compiled block chooses by itself what its backward
    pass computes again, about what "branches" does, so of the kinds of checkpointing only "full" changes it.
    """
    blocks = [block for block in module.modules() if isinstance(block, Block)]
    # A form per drop-path rate, with and without gradients; beyond the limit torch would go on without compiling.
    torch.compiler.config.recompile_limit = max(torch.compiler.config.recompile_limit, 2 * len(blocks) + FEW_SHAPES)
    for block in blocks:
        if block.checkpointing != "full":
            block.checkpointing = "none"
        block.compute = torch.compile(block.deterministic, fullgraph=True, dynamic=False)
