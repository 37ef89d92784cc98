"""Decoders: sizes, signs, and that every part learns."""

import pytest
import torch

from dinov2.eval.probes.decoders import DECODERS, DecoderName, blocks_of, build_decoder


def _tokens(count: int, *, batch: int = 2, grid: tuple[int, int] = (5, 3)) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(batch, 12, *grid, generator=generator) for _ in range(count)]


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("depth", [1, 2, 3, 4, 12])
def test_every_decoder_takes_a_network_of_any_depth_and_a_batch_of_one(name: DecoderName, depth: int) -> None:
    blocks = blocks_of(name, depth=depth)
    assert blocks[-1] == depth - 1
    assert list(blocks) == sorted(set(blocks))
    decoder = build_decoder(name, embed_dim=12, num_blocks=len(blocks), num_classes=3, width=16)
    logits = decoder(_tokens(len(blocks), batch=1))
    assert logits.shape[:2] == (1, 3)
    assert logits.shape[2] % 5 == 0
    assert logits.shape[3] % 3 == 0
    logits.pow(2).sum().backward()
    assert all(parameter.grad is not None for parameter in decoder.parameters())


@pytest.mark.parametrize("name", DECODERS)
def test_logits_take_either_sign(name: DecoderName) -> None:
    count = len(blocks_of(name, depth=4))
    torch.manual_seed(0)
    decoder = build_decoder(name, embed_dim=12, num_blocks=count, num_classes=3, width=16)
    logits = decoder(_tokens(count))
    assert bool((logits < 0).any())
    assert bool((logits > 0).any())


@pytest.mark.parametrize("name", ["unet", "upernet"])
def test_every_block_changes_the_answer(name: DecoderName) -> None:
    decoder = build_decoder(name, embed_dim=12, num_blocks=4, num_classes=3, width=16)
    tokens = _tokens(4)
    expected = decoder(tokens)
    for i in range(4):
        changed = [block + (1.0 if place == i else 0.0) * torch.randn_like(block) for place, block in enumerate(tokens)]
        assert not torch.allclose(decoder(changed), expected, atol=1e-4), i


def test_pictures_of_a_batch_do_not_influence_each_other_in_training() -> None:
    decoder = build_decoder("unet", embed_dim=12, num_blocks=4, num_classes=3, width=16).train()
    tokens = _tokens(4)
    together = decoder(tokens)
    alone = decoder([block[:1] for block in tokens])
    torch.testing.assert_close(together[:1], alone)
