"""The attention of the CLS token is that of the last block, row for row."""

from pathlib import Path

import pytest
import torch
from torch.testing import assert_close
from transformers import Dinov2Model

from dinov2.encoder import Encoder
from tests.encoder.made import noise, small_encoder, write_transformers


def explicit(encoder: Encoder, pixels: torch.Tensor) -> torch.Tensor:
    """The whole matrix of the last block.  -> [B, H, T, T]"""
    tokens = encoder.vit.prepare_tokens_with_masks(pixels)
    for block in encoder.vit.blocks[:-1]:
        tokens = block(tokens)
    last = encoder.vit.blocks[-1]
    batch, length, width = tokens.shape
    heads = last.attn.num_heads
    qkv = last.attn.qkv(last.norm1(tokens)).reshape(batch, length, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
    return torch.softmax(qkv[0] @ qkv[1].transpose(-2, -1) / (width // heads) ** 0.5, dim=-1)


@pytest.mark.parametrize("registers", [0, 3])
@pytest.mark.parametrize("depth", [1, 2])
def test_maps_are_the_row_of_the_cls_token_over_the_patches(tmp_path: Path, registers: int, depth: int) -> None:
    encoder = small_encoder(tmp_path, num_register_tokens=registers, depth=depth)
    pictures = [noise(90, 81), noise(70, 99, 3)]
    maps = encoder.attention_maps(pictures)
    assert maps.shape == (2, 2, 5, 5)
    with torch.no_grad():
        whole = explicit(encoder, encoder.preprocess(pictures))
    assert_close(maps.flatten(2), whole[:, :, 0, 1 + registers :], atol=1e-6, rtol=1e-5)
    shares = maps.flatten(2).sum(dim=-1)
    assert (shares < 1).all()
    assert_close(shares + whole[:, :, 0, : 1 + registers].sum(dim=-1), torch.ones(2, 2))


def test_they_are_those_of_transformers(tmp_path: Path) -> None:
    folder = write_transformers(tmp_path / "folder")
    encoder = Encoder.from_pretrained(folder)
    model = Dinov2Model.from_pretrained(folder, attn_implementation="eager").eval()
    picture = noise(90, 81)
    with torch.no_grad():
        theirs = model(pixel_values=encoder.preprocess(picture), output_attentions=True).attentions[-1]
    assert_close(encoder.attention_maps(picture).flatten(2), theirs[:, :, 0, 1:], atol=1e-6, rtol=1e-5)


def test_no_matrix_of_all_tokens_by_all_tokens_is_made(tmp_path: Path) -> None:
    encoder = small_encoder(tmp_path, depth=1)
    tokens = 1 + (280 // 14) ** 2
    sizes: list[int] = []

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            out = func(*args, **(kwargs or {}))
            sizes.extend(part.numel() for part in (out if isinstance(out, tuple) else (out,)) if torch.is_tensor(part))
            return out

    encoder.size = 280
    with Watch():
        encoder.attention_maps(noise(300, 280))
    assert max(sizes) < 2 * tokens**2
    assert max(sizes) >= tokens * 64  # the keys
