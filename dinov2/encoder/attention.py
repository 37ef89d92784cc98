"""Where the CLS token of the last block looks.

In: a vision transformer and pixels. Out: its attention over the patches. Only the row of the CLS token is computed:
no matrix of all tokens by all tokens is built.

Legend: B pictures, H heads, d width of a head, T = 1 + R + N tokens, R registers, h x w = N patches.
"""

import torch
from torch import Tensor
from torch.nn.functional import linear

from dinov2.layers import Block
from dinov2.models.vision_transformer import DinoVisionTransformer


def cls_attention(vit: DinoVisionTransformer, pixels: Tensor) -> Tensor:
    """softmax(q k / sqrt d) of the CLS query over all tokens, of which those of the patches are given.

    CLS and registers take their share: the sum over the patches is below 1. [B, C, rows, columns] -> [B, H, h, w]
    """
    tokens = vit.prepare_tokens_with_masks(pixels)  # [B, T, D]
    *before, last = vit.blocks
    for block in before:
        tokens = block(tokens)
    assert isinstance(last, Block)
    matrix, heads = last.attn.qkv, last.attn.num_heads
    biases = (None, None, None) if matrix.bias is None else matrix.bias.chunk(3)
    of_queries, of_keys, _ = matrix.weight.chunk(3)
    normed: Tensor = last.norm1(tokens)
    query = linear(normed[:, 0], of_queries, biases[0]).view(len(tokens), heads, -1).float()  # [B, H, d]
    keys = linear(normed, of_keys, biases[1]).view(*tokens.shape[:2], heads, -1).float()  # [B, T, H, d]
    scores = torch.einsum("bhd,bthd->bht", query, keys) * query.shape[-1] ** -0.5
    of_patches = scores.softmax(dim=-1)[..., 1 + vit.num_register_tokens :]
    grid = vit.patch_embed.grid(pixels.shape[-2], pixels.shape[-1])
    maps: Tensor = of_patches.reshape(*of_patches.shape[:2], *grid).to(tokens.dtype)
    return maps
