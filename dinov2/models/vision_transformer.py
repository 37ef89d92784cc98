"""The vision transformer of DINOv2, with the public names of arguments, outputs and parameters.

In: pictures [B, C, rows, columns], and masks [B, N] for the student. Out: normed tokens, by name.

Legend: B pictures, C channels, N patches, R registers, D width, h x w grid of patches.
"""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, overload

import torch
from torch import Tensor, nn

from dinov2.layers import Block, PatchEmbed, choose_attention
from dinov2.layers.block import LAYER_NORM_EPS
from dinov2.layers.packing import Groups, pack, unpack
from dinov2.models.position_table import resample_position_table

log = logging.getLogger(__name__)

Features = dict[str, Any]
"""x_norm_clstoken [B, D], x_norm_regtokens [B, R, D], x_norm_patchtokens [B, N, D], x_prenorm [B, 1+R+N, D], masks."""


def drop_path_rates(rate: float, *, depth: int, uniform: bool) -> list[float]:
    """One rate per block: `rate` for all, or a straight line from 0 to `rate`."""
    if uniform:
        return [rate] * depth
    return [rate * i / max(depth - 1, 1) for i in range(depth)]


SIZES: dict[str, dict[str, Any]] = {
    "vit_small": {"embed_dim": 384, "depth": 12, "num_heads": 6, "mlp_ratio": 4.0},
    "vit_base": {"embed_dim": 768, "depth": 12, "num_heads": 12, "mlp_ratio": 4.0},
    "vit_large": {"embed_dim": 1024, "depth": 24, "num_heads": 16, "mlp_ratio": 4.0},
    "vit_giant2": {"embed_dim": 1536, "depth": 40, "num_heads": 24, "mlp_ratio": 4.0},
}


class DinoVisionTransformer(nn.Module):
    """A plain vision transformer with CLS, optional registers, a mask token and LayerScale.

    `block_chunks` is accepted because public code and configs pass it; it changes nothing here: blocks are called
    `blocks.N.*` whatever it is, and weights with chunked names load through `dinov2.models.weights`.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch_size: int | tuple[int, int] = 16,
        *,
        in_chans: int = 3,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        ffn_bias: bool = True,
        proj_bias: bool = True,
        drop_path_rate: float = 0.0,
        drop_path_uniform: bool = False,
        init_values: float | None = None,
        embed_layer: Callable[..., PatchEmbed] = PatchEmbed,
        act_layer: Callable[[], nn.Module] = nn.GELU,
        block_fn: Callable[..., Block] = Block,
        ffn_layer: str = "mlp",
        block_chunks: int = 0,
        num_register_tokens: int = 0,
        interpolate_antialias: bool = False,
        interpolate_offset: float = 0.1,
        attention: str = "sdpa",
    ) -> None:
        super().__init__()
        if block_chunks > 0:
            log.debug("block_chunks=%d is accepted and changes nothing: names stay blocks.N.*", block_chunks)
        self.num_features = self.embed_dim = embed_dim
        self.num_tokens = 1  # besides patches and registers: CLS
        self.n_blocks = depth
        self.num_heads = num_heads
        self.patch_size = patch_size
        self.num_register_tokens = num_register_tokens
        self.interpolate_antialias = interpolate_antialias
        self.interpolate_offset = interpolate_offset

        self.patch_embed = embed_layer(img_size, patch_size, in_chans=in_chans, embed_dim=embed_dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.patch_embed.num_patches, embed_dim))
        self.register_parameter("register_tokens", None)
        if num_register_tokens:
            self.register_tokens = nn.Parameter(torch.zeros(1, num_register_tokens, embed_dim))
        build_block = partial(
            block_fn,
            dim=embed_dim,
            num_heads=num_heads,
            mlp_ratio=mlp_ratio,
            qkv_bias=qkv_bias,
            proj_bias=proj_bias,
            ffn_bias=ffn_bias,
            init_values=init_values,
            act_layer=act_layer,
            ffn_layer=ffn_layer,
            kernel=choose_attention(attention),
        )
        rates = drop_path_rates(drop_path_rate, depth=depth, uniform=drop_path_uniform)
        self.blocks = nn.ModuleList(build_block(drop_path=rate) for rate in rates)
        self.norm = nn.LayerNorm(embed_dim, eps=LAYER_NORM_EPS)
        self.head = nn.Identity()
        self.mask_token = nn.Parameter(torch.zeros(1, embed_dim))
        self.init_weights()

    def init_weights(self) -> None:
        """Draw the initial weights, in the order of the public code, so that a seed gives the same network."""
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.normal_(self.cls_token, std=1e-6)
        if self.register_tokens is not None:
            nn.init.normal_(self.register_tokens, std=1e-6)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    @property
    def first_patch(self) -> int:
        """Tokens of a picture before its patches: CLS and registers."""
        return self.num_tokens + self.num_register_tokens

    def num_tokens_of(self, pictures: Tensor) -> int:
        """1 + R + N of one of them.  [B, C, rows, columns]"""
        down, across = self.patch_embed.grid(pictures.shape[-2], pictures.shape[-1])
        return self.first_patch + down * across

    def prepare_tokens_with_masks(self, x: Tensor, masks: Tensor | None = None) -> Tensor:
        """Patch tokens, hidden ones replaced; CLS, positions, registers.  [B, C, rows, columns] -> [B, 1+R+N, D]"""
        grid = self.patch_embed.grid(x.shape[-2], x.shape[-1])
        tokens = self.patch_embed(x)  # [B, N, D]
        if masks is not None:
            tokens = torch.where(masks.unsqueeze(-1), self.mask_token.to(tokens.dtype).unsqueeze(0), tokens)
        positions = resample_position_table(
            self.pos_embed,
            grid=self.patch_embed.patches_resolution,
            target=grid,
            offset=self.interpolate_offset,
            antialias=self.interpolate_antialias,
        )
        cls = self.cls_token.expand(len(tokens), -1, -1)
        tokens = torch.cat([cls, tokens], dim=1)  # [B, 1 + N, D]
        tokens = tokens + positions.to(tokens.dtype)
        if self.register_tokens is not None:  # registers have no position
            registers = self.register_tokens.expand(len(tokens), -1, -1).to(tokens.dtype)
            tokens = torch.cat([tokens[:, :1], registers, tokens[:, 1:]], dim=1)
        return tokens

    @overload
    def forward_features(self, x: Tensor, masks: Tensor | None = None) -> Features: ...

    @overload
    def forward_features(self, x: list[Tensor], masks: list[Tensor | None] | None = None) -> list[Features]: ...

    def forward_features(
        self, x: Tensor | list[Tensor], masks: Tensor | list[Tensor | None] | None = None
    ) -> Features | list[Features]:
        """Tokens by name for pictures of one size, or a list of them for a list of sizes (global and local crops)."""
        if isinstance(x, Tensor) and not isinstance(masks, list):
            return self._features([x], [masks])[0]
        if isinstance(x, Tensor) or isinstance(masks, Tensor):
            raise TypeError("forward_features: pictures and masks must both be tensors or both be lists")
        return self._features(x, masks if masks is not None else [None] * len(x))

    def _features(self, pictures: list[Tensor], masks: Sequence[Tensor | None]) -> list[Features]:
        """Crops of all sizes in one pass."""
        tokens, groups = self._packed(pictures, masks)
        for block in self.blocks:
            tokens = block(tokens, groups)
        sizes = zip(unpack(tokens, groups), unpack(self.norm(tokens), groups), masks, strict=True)
        return [self._named(prenorm, normed, mask) for prenorm, normed, mask in sizes]

    def _packed(self, pictures: Sequence[Tensor], masks: Sequence[Tensor | None]) -> tuple[Tensor, Groups]:
        """Tokens of all sizes in one row, [T, D] (`dinov2.layers.packing`)."""
        return pack([self.prepare_tokens_with_masks(x, mask) for x, mask in zip(pictures, masks, strict=True)])

    def forward_tokens(self, pictures: Sequence[Tensor], masks: Sequence[Tensor | None], *, only: Tensor) -> Tensor:
        """Normed tokens at the places `only` of the row of all pictures' tokens.  int64 [R] -> [R, D]

        The row has one picture after the other, size by size, each with CLS, registers, patches. What the last block
        does behind its attention is not done for the others: nobody would read it.
        """
        tokens, groups = self._packed(pictures, masks)
        *others, last = self.blocks
        for block in others:
            tokens = block(tokens, groups)
        normed: Tensor = self.norm(last(tokens, groups, only=only))
        return normed

    def _named(self, prenorm: Tensor, normed: Tensor, masks: Tensor | None) -> Features:
        return {
            "x_norm_clstoken": normed[:, 0],
            "x_norm_regtokens": normed[:, 1 : self.first_patch],
            "x_norm_patchtokens": normed[:, self.first_patch :],
            "x_prenorm": prenorm,
            "masks": masks,
        }

    def get_intermediate_layers(
        self,
        x: Tensor,
        n: int | Sequence[int] = 1,
        *,
        reshape: bool = False,
        return_class_token: bool = False,
        return_register_tokens: bool = False,
        norm: bool = True,
    ) -> tuple[Any, ...]:
        """Tokens after the last `n` blocks, or after blocks number `n`; each through the final norm if `norm`.

        One entry per block: patch tokens [B, N, D] ([B, D, h, w] if `reshape`), or a tuple of them with the CLS token
        [B, D] and the registers [B, R, D], in that order, where those are asked for.

        Raises:
            ValueError: a block that does not exist.
        """
        wanted = range(self.n_blocks - n, self.n_blocks) if isinstance(n, int) else n
        if any(not 0 <= i < self.n_blocks for i in wanted):
            raise ValueError(f"get_intermediate_layers: n={n!r}, but this model has blocks 0 to {self.n_blocks - 1}")
        found = self._tokens_after(x, wanted)
        grid = self.patch_embed.grid(x.shape[-2], x.shape[-1])
        layers: list[Any] = []
        for i in wanted:
            tokens = self.norm(found[i]) if norm else found[i]
            patches = tokens[:, self.first_patch :]
            if reshape:
                patches = patches.unflatten(1, grid).permute(0, 3, 1, 2).contiguous()
            extras = [tokens[:, 0]] if return_class_token else []
            extras += [tokens[:, 1 : self.first_patch]] if return_register_tokens else []
            layers.append((patches, *extras) if extras else patches)
        return tuple(layers)

    def _tokens_after(self, x: Tensor, wanted: Sequence[int]) -> dict[int, Tensor]:
        """Tokens [B, 1+R+N, D] after each wanted block, before the final norm; no block is run that nobody wants."""
        found: dict[int, Tensor] = {}
        tokens = self.prepare_tokens_with_masks(x)
        for i, block in enumerate(self.blocks[: max(wanted, default=-1) + 1]):
            tokens = block(tokens)
            if i in wanted:
                found[i] = tokens
        return found

    def forward(self, *args: Any, is_training: bool = False, only: Tensor | None = None, **kwargs: Any) -> Any:
        """`forward_features` of the same arguments if `is_training`, else the normed CLS token [B, D].

        With `only` it is `forward_tokens`: what wraps a module hears of calls that go through here.
        """
        if only is not None:
            return self.forward_tokens(*args, only=only, **kwargs)
        features = self.forward_features(*args, **kwargs)
        return features if is_training else self.head(features["x_norm_clstoken"])


def vit_small(patch_size: int = 16, num_register_tokens: int = 0, **kwargs: Any) -> DinoVisionTransformer:
    """ViT-S: width 384, 12 blocks, 6 heads."""
    return _sized("vit_small", patch_size=patch_size, num_register_tokens=num_register_tokens, **kwargs)


def vit_base(patch_size: int = 16, num_register_tokens: int = 0, **kwargs: Any) -> DinoVisionTransformer:
    """ViT-B: width 768, 12 blocks, 12 heads."""
    return _sized("vit_base", patch_size=patch_size, num_register_tokens=num_register_tokens, **kwargs)


def vit_large(patch_size: int = 16, num_register_tokens: int = 0, **kwargs: Any) -> DinoVisionTransformer:
    """ViT-L: width 1024, 24 blocks, 16 heads."""
    return _sized("vit_large", patch_size=patch_size, num_register_tokens=num_register_tokens, **kwargs)


def vit_giant2(patch_size: int = 16, num_register_tokens: int = 0, **kwargs: Any) -> DinoVisionTransformer:
    """ViT-g: width 1536, 40 blocks, 24 heads. The published one has `ffn_layer="swiglufused"`, which is not implied."""
    return _sized("vit_giant2", patch_size=patch_size, num_register_tokens=num_register_tokens, **kwargs)


def _sized(name: str, **kwargs: Any) -> DinoVisionTransformer:
    return DinoVisionTransformer(**(SIZES[name] | kwargs))
