"""The faster way without gradients says the same, and steps aside for whatever somebody put into the network."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from dinov2.encoder.inference import goes_by_halves, tokens_of
from dinov2.layers.block import compile_blocks
from dinov2.models.vision_transformer import DinoVisionTransformer
from tests.encoder.made import network

PIXELS = torch.randn(2, 3, 42, 70, generator=torch.Generator().manual_seed(0))

KINDS: list[dict[str, Any]] = [
    {},
    {"num_register_tokens": 3},
    {"ffn_layer": "swiglufused"},
    {"init_values": None},
    {"qkv_bias": False, "proj_bias": False, "ffn_bias": False},
    {"ffn_layer": "identity"},
]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_it_says_what_the_network_says(kind: dict) -> None:
    vit = network(**kind)
    plain = vit.forward_features(PIXELS)
    with torch.no_grad():
        assert goes_by_halves(vit, PIXELS) == (kind != {"ffn_layer": "identity"})
        cls, patches = tokens_of(vit, PIXELS)
    assert_close(cls, plain["x_norm_clstoken"].detach(), atol=1e-5, rtol=1e-5)
    assert_close(patches, plain["x_norm_patchtokens"].detach(), atol=1e-5, rtol=1e-5)


def hooked(vit: DinoVisionTransformer) -> None:
    vit.blocks[1].attn.qkv.register_forward_hook(lambda _module, _inputs, output: output * 2)


def replaced(vit: DinoVisionTransformer) -> None:
    matrix = vit.blocks[0].mlp.fc1
    vit.blocks[0].mlp.fc1 = nn.Sequential(matrix, nn.Hardtanh(-0.1, 0.1))


def training(vit: DinoVisionTransformer) -> None:
    vit.train()


@pytest.mark.parametrize("change", [hooked, replaced, training])
def test_a_network_that_somebody_changed_is_computed_as_it_is(change: Any) -> None:
    untouched, vit = network(), network()
    change(vit)
    with torch.no_grad():
        assert not goes_by_halves(vit, PIXELS)
        cls, _ = tokens_of(vit, PIXELS)
        assert torch.equal(cls, vit.forward_features(PIXELS)["x_norm_clstoken"])
        if change is not training:
            assert float((cls - tokens_of(untouched, PIXELS)[0]).abs().max()) > 1e-3


def test_it_is_not_taken_where_gradients_or_another_format_are_asked_for() -> None:
    vit = network()
    assert not goes_by_halves(vit, PIXELS)
    with torch.no_grad():
        assert not goes_by_halves(vit, PIXELS.bfloat16())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert not goes_by_halves(vit, PIXELS)
        compile_blocks(vit)
        assert not goes_by_halves(vit, PIXELS)


def test_an_encoder_can_be_exported_by_torch_without_gradients(tmp_path: Path) -> None:
    vit = network()

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.vit = vit

        def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return tokens_of(self.vit, pixels)

    with torch.no_grad():
        exported = torch.export.export(Tokens().eval(), (PIXELS,))
        assert_close(exported.module()(PIXELS), tokens_of(vit, PIXELS), atol=1e-5, rtol=1e-5)
