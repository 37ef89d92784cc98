"""Tokens without gradients, by the fastest way there is here.

In: a vision transformer and pixels. Out: normed tokens by name, equal to `forward_features` to rounding.

On a CPU in float32 a block is computed in its two halves (`dinov2.layers.halves`): few tokens at a time, with products
by oneDNN. Hooks on the layers inside, and layers that somebody has put in their place, are not seen by it; so it is
only taken for a network that has neither.
"""

import torch
from torch import Tensor, nn

from dinov2.layers import Block
from dinov2.layers.attention import Attention
from dinov2.layers.halves import normed_linear, second_half
from dinov2.layers.layer_scale import LayerScale
from dinov2.layers.mlp import Mlp
from dinov2.layers.packing import Groups, pack, unpack
from dinov2.layers.swiglu import SwiGLUFFN
from dinov2.models.vision_transformer import DinoVisionTransformer

OURS = (Attention, Block, LayerScale, Mlp, SwiGLUFFN, nn.Linear, nn.LayerNorm, nn.GELU, nn.Identity, nn.ModuleList)


def tokens_of(vit: DinoVisionTransformer, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """CLS [B, D] and patch tokens [B, N, D] after the last norm; gradients flow where they are on."""
    if not goes_by_halves(vit, pixels):
        features = vit.forward_features(pixels)
        return features["x_norm_clstoken"], features["x_norm_patchtokens"]
    tokens, groups = pack([vit.prepare_tokens_with_masks(pixels)])  # [T, D]
    for block in vit.blocks:
        assert isinstance(block, Block)
        tokens = _block(block, tokens, groups)
    (normed,) = unpack(vit.norm(tokens), groups)  # [B, 1 + R + N, D]
    return normed[:, 0], normed[:, 1 + vit.num_register_tokens :]


def goes_by_halves(vit: DinoVisionTransformer, pixels: Tensor) -> bool:
    """Whether the halves of its blocks are faster, and all there is to compute."""
    faster = pixels.device.type == "cpu" and pixels.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    followed = torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    return faster and not followed and all(_is_plain(block) for block in vit.blocks)


def _is_plain(block: nn.Module) -> bool:
    if not isinstance(block, Block) or block.training or block.compute is not None or block.mlp.last is None:
        return False
    return all(type(part) in OURS and not (part._forward_hooks or part._forward_pre_hooks) for part in block.modules())


def _block(block: Block, tokens: Tensor, groups: Groups) -> Tensor:
    """[T, D] -> [T, D]"""
    assert isinstance(block.mlp, Mlp | SwiGLUFFN)
    return second_half(
        tokens,
        block.attn.mix(normed_linear(tokens, block.norm1, block.attn.qkv), groups),
        proj=block.attn.proj,
        proj_scale=block.ls1.gamma if isinstance(block.ls1, LayerScale) else None,
        norm=block.norm2,
        branch=block.mlp,
        last_scale=block.ls2.gamma if isinstance(block.ls2, LayerScale) else None,
        keep_hidden=False,
    )
