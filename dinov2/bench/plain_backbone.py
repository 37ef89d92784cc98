"""The backbone as a plain script would run it: pictures of one size at a time, one operation after the other.

In: a `DinoVisionTransformer`, of which only the weights are used, and pictures. Out: normed tokens by name. Nothing
here is packed, compiled, computed again or skipped, whatever the blocks would do by themselves.
"""

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from dinov2.layers import Block
from dinov2.models.vision_transformer import DinoVisionTransformer


def plain_features(backbone: DinoVisionTransformer, pictures: Tensor, masks: Tensor | None = None) -> dict[str, Tensor]:
    """[B, C, S, S] -> x_norm_clstoken [B, D], x_norm_patchtokens [B, N, D]"""
    tokens = backbone.prepare_tokens_with_masks(pictures, masks)
    for block in backbone.blocks:
        assert isinstance(block, Block)
        tokens = _plain_block(block, tokens)
    normed = backbone.norm(tokens)
    return {
        "x_norm_clstoken": normed[:, 0],
        "x_norm_patchtokens": normed[:, 1 + backbone.num_register_tokens :],
    }


def _plain_block(block: Block, tokens: Tensor) -> Tensor:
    """Both branches; with drop path each of a random subset of the pictures, as the public code does."""
    tokens = _add(tokens, block, attention=True)
    return _add(tokens, block, attention=False)


def _add(tokens: Tensor, block: Block, *, attention: bool) -> Tensor:
    if not block.training or block.drop_path_rate == 0:
        return tokens + _branch(tokens, block, attention=attention)
    count = len(tokens)
    kept = torch.randperm(count, device=tokens.device)[: max(int(count * (1 - block.drop_path_rate)), 1)]
    update = _branch(tokens[kept], block, attention=attention)
    return tokens.index_add(0, kept, update.to(tokens.dtype), alpha=count / len(kept))


def _branch(tokens: Tensor, block: Block, *, attention: bool) -> Tensor:
    """[B, N, D] -> [B, N, D]"""
    update: Tensor
    if not attention:
        update = block.ls2(block.mlp(block.norm2(tokens)))
        return update
    batch, length, width = tokens.shape
    heads = block.attn.num_heads
    qkv = block.attn.qkv(block.norm1(tokens)).reshape(batch, length, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
    attended = scaled_dot_product_attention(*qkv.unbind(0)).transpose(1, 2).reshape(batch, length, width)
    update = block.ls1(block.attn.proj(attended))
    return update
