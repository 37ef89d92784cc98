"""The vision transformer as one graph of operators that every ONNX runtime has.

In: pictures [B, C, H, W], sides multiples of the patch. Out: CLS [B, D], patch tokens [B, N, D]. The numbers are those
of `DinoVisionTransformer`; what differs is that nothing here depends on the sizes of the picture it is traced with.

ONNX's Resize has neither torch's scale of (size + 0.1) / grid nor its antialiasing in all runtimes, so the position
table is resampled by two small matrices, one for its rows and one for its columns, that the graph makes from the sizes:
bicubic interpolation is separable, and that is exact.

Legend: B pictures, C channels, N = h x w patches, D width; a table of r x c places.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize

from dinov2.layers import DINOHead
from dinov2.layers.attention import Attention
from dinov2.layers.block import Block
from dinov2.layers.dino_head import EPS
from dinov2.layers.layer_scale import LayerScale
from dinov2.models.vision_transformer import DinoVisionTransformer

KEYS_A = -0.75  # torch's bicubic kernel (Keys, 1981)
KEYS_A_ANTIALIASED = -0.5  # and the one that it takes, as Pillow does, where it is antialiased


class OnnxBackbone(nn.Module):
    """A copy of a backbone, in `dtype`; what comes in and goes out is float32 whatever it computes in."""

    def __init__(self, vit: DinoVisionTransformer, *, dtype: torch.dtype) -> None:
        super().__init__()
        self.vit = copy.deepcopy(vit).eval().requires_grad_(False)
        if dtype == torch.float32:  # in fp16 a weight times a factor of 1e-5 would be zero
            fold_layer_scale(self.vit)
        self.vit.to(dtype)
        self.vit.pos_embed.data = vit.pos_embed.detach().clone()  # resampled in float32
        self.dtype = dtype

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """[B, C, H, W] -> [B, D], [B, N, D]"""
        vit = self.vit
        maps = vit.patch_embed.proj(pixel_values.to(self.dtype))  # [B, D, h, w]
        positions = self._positions(maps).to(self.dtype)
        cls = (vit.cls_token + positions[:, :1]).expand(maps.shape[0], -1, -1)
        patches = maps.flatten(2).transpose(1, 2) + positions[:, 1:]
        between = []
        if vit.register_tokens is not None:
            between = [vit.register_tokens.expand(maps.shape[0], -1, -1)]
        tokens = torch.cat([cls, *between, patches], dim=1)
        for block in blocks_of(vit):
            tokens = _through(block, tokens)
        tokens = vit.norm(tokens).float()
        return tokens[:, 0], tokens[:, 1 + vit.num_register_tokens :]

    def _positions(self, maps: Tensor) -> Tensor:
        """The table for the grid of `maps` [B, D, h, w]; itself where the grids are equal.  -> [1, 1 + N, D]"""
        rows, columns = self.vit.patch_embed.patches_resolution
        down, across = (torch.arange(maps.shape[dim], dtype=torch.float32) for dim in (2, 3))
        same_rows, same_columns = down[-1:] == rows - 1, across[-1:] == columns - 1  # [1] each
        if not self.vit.interpolate_antialias:  # with it, torch leaves alone a side that keeps its length
            same_rows = same_columns = same_rows & same_columns
        offset, antialias = self.vit.interpolate_offset, self.vit.interpolate_antialias
        by_row = _resampling(down, length=rows, offset=offset, antialias=antialias)
        by_column = _resampling(across, length=columns, offset=offset, antialias=antialias)
        by_row = torch.where(same_rows, (down[:, None] == torch.arange(rows)).float(), by_row)  # [h, r]
        by_column = torch.where(same_columns, (across[:, None] == torch.arange(columns)).float(), by_column)  # [w, c]
        table = self.vit.pos_embed[:, 1:].reshape(1, rows, columns, -1).permute(0, 3, 1, 2)  # [1, D, r, c]
        resampled = by_row @ table @ by_column.T  # [1, D, h, w]
        return torch.cat([self.vit.pos_embed[:, :1], resampled.flatten(2).transpose(1, 2)], dim=1)


def _through(block: Block, tokens: Tensor) -> Tensor:
    """What a block gives in evaluation; its own way packs pictures by sizes that a graph would keep.  [B, T, D]"""
    tokens = tokens + block.ls1(_attend(block.attn, block.norm1(tokens)))
    updated: Tensor = tokens + block.ls2(block.mlp(block.norm2(tokens)))
    return updated


def _attend(layer: Attention, tokens: Tensor) -> Tensor:
    """Two products around a softmax: operators of every opset, that runtimes fuse by themselves.  [B, T, D]"""
    qkv = layer.qkv(tokens).unflatten(-1, (3, layer.num_heads, -1)).permute(2, 0, 3, 1, 4)
    queries, keys, values = qkv.unbind()  # [B, heads, T, d] each
    weights = torch.softmax((queries * queries.shape[-1] ** -0.5) @ keys.transpose(-2, -1), dim=-1)
    mixed: Tensor = layer.proj((weights @ values).transpose(1, 2).flatten(2))
    return mixed


def _resampling(targets: Tensor, *, length: int, offset: float, antialias: bool) -> Tensor:
    """How much every new place takes of every old one, as torch's bicubic interpolation does.  [h] -> [h, length]

    `targets` are 0 .. h - 1. See `resample_position_table` for `offset` and `antialias`.
    """
    places = torch.arange(length, dtype=torch.float32)
    scale = length / (targets[-1:] + 1 + offset)  # old places a new one
    centers = (targets + 0.5)[:, None] * scale  # [h, 1]
    if antialias:
        weights = _keys((places + 0.5 - centers) / scale.clamp(min=1.0), a=KEYS_A_ANTIALIASED)
        return weights / weights.sum(dim=1, keepdim=True)
    first = (centers - 0.5).floor()
    taps = torch.arange(-1, 3, dtype=torch.float32)
    weights = _keys(first + taps - (centers - 0.5), a=KEYS_A)  # [h, 4]
    old = (first + taps).clamp(0, length - 1)  # beyond the border its last row is repeated
    return ((old[:, :, None] == places) * weights[:, :, None]).sum(dim=1)


def _keys(distance: Tensor, *, a: float) -> Tensor:
    """The cubic convolution kernel at a distance in places (Keys, 1981, with `a` free)."""
    x = distance.abs()
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return torch.where(x <= 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def blocks_of(vit: DinoVisionTransformer) -> list[Block]:
    """The blocks, by their type."""
    return [block for block in vit.blocks if isinstance(block, Block)]


@torch.no_grad()
def fold_layer_scale(vit: DinoVisionTransformer) -> None:
    """Multiplies the matrix before every LayerScale by its factors, in place, as the network does in each pass."""
    for block in blocks_of(vit):
        block.ls1 = _folded(block.ls1, block.attn.proj)
        block.ls2 = _folded(block.ls2, block.mlp.last)


def _folded(scale: LayerScale | nn.Identity, last: nn.Linear | None) -> LayerScale | nn.Identity:
    if not isinstance(scale, LayerScale) or last is None:
        return scale
    last.weight.mul_(scale.gamma[:, None])
    if last.bias is not None:
        last.bias.mul_(scale.gamma)
    return nn.Identity()


class OnnxHead(nn.Module):
    """A copy of a head, in `dtype`, from float32 tokens to float32 logits; its prototypes are normalised here, once."""

    prototypes: Tensor

    def __init__(self, head: DINOHead, *, dtype: torch.dtype) -> None:
        super().__init__()
        self.mlp = copy.deepcopy(head.mlp).eval().requires_grad_(False).to(dtype)
        self.register_buffer("prototypes", head.last_layer.weight().detach().clone().to(dtype))  # [K, b]
        self.dtype = dtype

    def forward(self, tokens: Tensor) -> Tensor:
        """[M, D] -> [M, K]"""
        unit = normalize(self.mlp(tokens.to(self.dtype)).float(), dim=-1, eps=EPS)
        return linear(unit.to(self.dtype), self.prototypes).float()
