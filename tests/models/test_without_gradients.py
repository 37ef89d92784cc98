"""The faster way without gradients says the same, and steps aside for whatever somebody put into the network."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from dinov2.layers.block import Block, compile_blocks
from dinov2.layers.products import goes_by_blocks
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


def tokens_of(vit: DinoVisionTransformer) -> torch.Tensor:
    tokens: torch.Tensor = vit.forward_features(PIXELS)["x_prenorm"]
    return tokens


def by_halves(vit: DinoVisionTransformer) -> list[bool]:
    """Of each block, in a forward pass."""
    said: list[bool] = []

    def ask(block: nn.Module, inputs: tuple[Any, ...]) -> None:
        assert isinstance(block, Block)
        said.append(block.goes_by_halves(inputs[0]))

    hooks = [block.register_forward_pre_hook(ask) for block in vit.blocks]
    vit.forward_features(PIXELS)
    for hook in hooks:
        hook.remove()
    return said


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_without_gradients_it_says_the_same(kind: dict) -> None:
    vit = network(**kind)
    plain = tokens_of(vit).detach()
    with torch.no_grad():
        assert by_halves(vit) == 2 * [kind != {"ffn_layer": "identity"}]
        assert_close(tokens_of(vit), plain, atol=1e-5, rtol=1e-5)


def hooked(vit: DinoVisionTransformer) -> None:
    vit.blocks[1].attn.qkv.register_forward_hook(lambda _module, _inputs, output: output * 2)


def replaced(vit: DinoVisionTransformer) -> None:
    matrix = vit.blocks[1].mlp.fc1
    vit.blocks[1].mlp.fc1 = nn.Sequential(matrix, nn.Hardtanh(-0.1, 0.1))


@pytest.mark.parametrize("change", [hooked, replaced])
def test_a_block_that_somebody_changed_is_computed_as_it_is(change: Any) -> None:
    untouched, vit = network(), network()
    change(vit)
    plain, tokens = tokens_of(vit).detach(), torch.randn(2, 5, vit.embed_dim)
    layer_by_layer = vit.blocks[1](tokens).detach()
    with torch.no_grad():
        assert by_halves(vit) == [True, False]
        assert torch.equal(vit.blocks[1](tokens), layer_by_layer)
        assert_close(tokens_of(vit), plain, atol=1e-5, rtol=1e-5)
        assert float((tokens_of(vit) - tokens_of(untouched)).abs().max()) > 1e-3


def test_in_training_pictures_are_still_dropped() -> None:
    vit = network(drop_path_rate=0.9).train()
    with torch.no_grad():
        dropped = [tokens_of(vit) for _ in range(8)]
        assert any(not torch.equal(tokens, tokens_of(vit.eval())) for tokens in dropped)


def test_it_is_taken_without_gradients_alone_and_in_formats_whose_products_are_faster_so() -> None:
    vit = network()
    assert not any(by_halves(vit))
    with torch.no_grad():
        for dtype in (torch.float64, torch.float16):
            assert not vit.blocks[0].goes_by_halves(torch.zeros(3, 64, dtype=dtype))
        with torch.autocast("cpu", dtype=torch.float16):
            assert not any(by_halves(vit))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert by_halves(vit) == 2 * [goes_by_blocks(torch.device("cpu"), torch.bfloat16)]


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_under_autocast_it_comes_as_near_to_float64_as_the_layers_do(kind: dict) -> None:
    vit = network(**kind)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        layers = tokens_of(vit).detach()
        with torch.no_grad():
            halves = tokens_of(vit)
    truth = vit.double().forward_features(PIXELS.double())["x_prenorm"].detach()
    assert halves.dtype == layers.dtype
    ours, theirs = (float((tokens.double() - truth).square().mean().sqrt()) for tokens in (halves, layers))
    assert 0 < ours <= 1.2 * theirs


def test_a_compiled_block_is_compiled_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    vit = network()
    compile_blocks(vit)
    called = []
    monkeypatch.setattr("dinov2.layers.block.second_half", lambda *_, **__: called.append(1))
    with torch.no_grad():
        tokens_of(vit)
    assert not called


def test_a_network_can_be_exported_by_torch_without_gradients(tmp_path: Path) -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.vit = network()

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            tokens: torch.Tensor = self.vit.forward_features(pixels)["x_prenorm"]
            return tokens

    module = Tokens().eval()
    with torch.no_grad():
        exported = torch.export.export(module, (PIXELS,))
        assert_close(exported.module()(PIXELS), module(PIXELS), atol=1e-5, rtol=1e-5)
