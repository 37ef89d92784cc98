"""The two towers of CLIP (arXiv 2103.00020), as ViT checkpoints of open_clip hold them.

In: normalised pictures [B, 3, H, W]; token ids [K, L]. Out: tokens of the picture tower; embeddings.

Legend: B pictures, K texts, L places of the context, N patches on a grid h x w, D width of a tower, E common width.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from dinov2.models.position_table import Grid, resample_position_table


def quick_gelu(x: Tensor) -> Tensor:
    """x * sigmoid(1.702 x): the approximation of GELU that OpenAI's models were trained with."""
    return x * torch.sigmoid(1.702 * x)


@dataclass(frozen=True, kw_only=True)
class TowerShape:
    """What fixes a tower's blocks."""

    width: int
    depth: int
    heads: int
    hidden: int  # of the feed-forward branch
    quick_gelu: bool


class ClipAttention(nn.Module):
    """Multi-head attention with one matrix for queries, keys and values."""

    def __init__(self, width: int, *, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, *, causal: bool) -> Tensor:
        """[B, T, D] -> [B, T, D]; causal: a place sees itself and those before it."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each [B, heads, T, D / heads]
        mixed = scaled_dot_product_attention(q, k, v, is_causal=causal)
        out: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return out


class ClipMlp(nn.Module):
    """fc2(activation(fc1(x)))."""

    def __init__(self, shape: TowerShape) -> None:
        super().__init__()
        self.fc1 = nn.Linear(shape.width, shape.hidden)
        self.fc2 = nn.Linear(shape.hidden, shape.width)
        self.activation: Callable[[Tensor], Tensor] = quick_gelu if shape.quick_gelu else gelu

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] -> [..., D]"""
        out: Tensor = self.fc2(self.activation(self.fc1(x)))
        return out


class ClipBlock(nn.Module):
    """Attention and feed-forward, each after a norm and added to what came in."""

    def __init__(self, shape: TowerShape, *, causal: bool) -> None:
        super().__init__()
        self.causal = causal
        self.norm1 = nn.LayerNorm(shape.width)
        self.attn = ClipAttention(shape.width, heads=shape.heads)
        self.norm2 = nn.LayerNorm(shape.width)
        self.mlp = ClipMlp(shape)

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, D] -> [B, T, D]"""
        x = x + self.attn(self.norm1(x), causal=self.causal)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class PictureTower(nn.Module):
    """A vision transformer with a norm before its blocks; the projection takes its CLS token to the common space."""

    def __init__(self, shape: TowerShape, *, patch_size: int, grid: Grid, embed_dim: int) -> None:
        super().__init__()
        self.shape, self.patch_size, self.grid = shape, patch_size, grid
        self.patch_embed = nn.Conv2d(3, shape.width, kernel_size=patch_size, stride=patch_size, bias=False)
        self.cls_token = nn.Parameter(torch.zeros(shape.width))
        self.pos_embed = nn.Parameter(torch.zeros(1 + grid[0] * grid[1], shape.width))
        self.norm_pre = nn.LayerNorm(shape.width)
        self.blocks = nn.ModuleList(ClipBlock(shape, causal=False) for _ in range(shape.depth))
        self.norm = nn.LayerNorm(shape.width)
        self.proj = nn.Parameter(torch.zeros(shape.width, embed_dim))

    def layers(self, pictures: Tensor, n: int) -> list[Tensor]:
        """Tokens [B, 1 + N, D] after each of the last `n` blocks, each through the final norm.

        Another size than the trained one resamples the positions (bicubic, antialiased, as open_clip does on loading).
        """
        target = pictures.shape[-2] // self.patch_size, pictures.shape[-1] // self.patch_size
        tokens = self.patch_embed(pictures).flatten(2).transpose(1, 2)  # [B, N, D]
        cls = self.cls_token.expand(len(tokens), 1, -1).to(tokens.dtype)
        positions = resample_position_table(
            self.pos_embed.unsqueeze(0), grid=self.grid, target=target, offset=0.0, antialias=True
        )
        tokens = self.norm_pre(torch.cat([cls, tokens], dim=1) + positions.to(tokens.dtype))
        found: list[Tensor] = []
        for place, block in enumerate(self.blocks):
            tokens = block(tokens)
            if place >= len(self.blocks) - n:
                found.append(self.norm(tokens))
        return found

    def forward(self, pictures: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, E], not of length 1 yet."""
        return self.layers(pictures, 1)[-1][:, 0] @ self.proj


class TextTower(nn.Module):
    """A causal transformer; the token at a text's end speaks for the text."""

    def __init__(self, shape: TowerShape, *, vocabulary: int, context: int, embed_dim: int) -> None:
        super().__init__()
        self.context, self.vocabulary = context, vocabulary
        self.token_embedding = nn.Embedding(vocabulary, shape.width)
        self.pos_embed = nn.Parameter(torch.zeros(context, shape.width))
        self.blocks = nn.ModuleList(ClipBlock(shape, causal=True) for _ in range(shape.depth))
        self.norm = nn.LayerNorm(shape.width)
        self.proj = nn.Parameter(torch.zeros(shape.width, embed_dim))

    def forward(self, ids: Tensor, *, ends: Tensor) -> Tensor:
        """[K, L] token ids with `ends` [K], the place of each text's last token -> [K, E], not of length 1 yet."""
        tokens = self.token_embedding(ids) + self.pos_embed[: ids.shape[1]]
        for block in self.blocks:
            tokens = block(tokens)
        last = self.norm(tokens)[torch.arange(len(ids), device=ids.device), ends]  # [K, D]
        out: Tensor = last @ self.proj
        return out


class ClipTowers(nn.Module):
    """Both towers and the scale of their similarities, which is stored as a logarithm."""

    def __init__(self, visual: PictureTower, text: TextTower) -> None:
        super().__init__()
        self.visual, self.text = visual, text
        self.logit_scale = nn.Parameter(torch.zeros(()))
