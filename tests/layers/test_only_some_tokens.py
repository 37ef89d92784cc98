"""A block that is asked for some of its tokens: as if it had computed all, and these had been taken."""

from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from dinov2.layers import Block
from dinov2.layers.block import Checkpointing, compile_blocks, use_checkpointing
from dinov2.layers.drop_path import add_back, draw_kept, weights_of
from dinov2.layers.kernels import explicit_attention
from dinov2.layers.packing import Groups

GROUPS: Groups = ((4, 5), (6, 3))
TOTAL = 4 * 5 + 6 * 3
ONLY = torch.tensor([0, 5, 10, 15, 20, 23, 26, 29, 32, 35, 2, 3, 19])


def block_of(ffn: str = "mlp", *, drop_path: float = 0.0, layer_scale: float | None = 0.5) -> Block:
    torch.manual_seed(0)
    return Block(16, 2, init_values=layer_scale, qkv_bias=True, ffn_layer=ffn, drop_path=drop_path).train()


def both(block: Block, only: Tensor | None, *, taken: Tensor = ONLY) -> tuple[Tensor, list[Tensor]]:
    """The tokens `taken`, from all or asked for alone, and all gradients of what they lead to."""
    torch.manual_seed(1)
    tokens = torch.randn(TOTAL, 16, requires_grad=True)
    out = block(tokens, GROUPS) if only is None else block(tokens, GROUPS, only=only)
    chosen = out[taken] if only is None else out
    loss = chosen.square().sum() + chosen.sin().sum()
    return chosen, list(torch.autograd.grad(loss, [tokens, *block.parameters()]))


@pytest.mark.parametrize("checkpointing", ["none", "branches", "pointwise", "selective", "full"])
@pytest.mark.parametrize("drop_path", [0.0, 0.4])
@pytest.mark.parametrize("ffn", ["mlp", "swiglu", "identity"])
def test_values_and_gradients_are_those_of_the_whole(ffn: str, drop_path: float, checkpointing: Checkpointing) -> None:
    block = block_of(ffn, drop_path=drop_path)
    use_checkpointing(block, checkpointing)
    assert_close(both(block, ONLY), both(block, None), rtol=1e-5, atol=1e-6)


def test_so_they_are_without_layer_scale_and_in_explicit_attention() -> None:
    block = block_of(layer_scale=None)
    block.attn.kernel = explicit_attention
    assert_close(both(block, ONLY), both(block, None), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_so_they_are_without_gradients(precision: torch.dtype) -> None:
    block, tokens = block_of(), torch.randn(TOTAL, 16)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == torch.bfloat16):
        some, whole = block(tokens, GROUPS, only=ONLY), block(tokens, GROUPS)
    assert_close(some, whole[ONLY])


def test_what_no_one_reads_is_not_kept() -> None:
    block = block_of()
    use_checkpointing(block, "pointwise")
    kept = []
    for only in (torch.arange(TOTAL), ONLY, ONLY[:3].clone()):
        held: dict[int, int] = {}

        def keep(tensor: Tensor, held: dict[int, int] = held) -> Tensor:
            held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            block(torch.randn(TOTAL, 16, requires_grad=True), GROUPS, only=only)
        kept.append(sum(held.values()))
    rows = [TOTAL, len(ONLY), 3]
    of_a_token = 4 * (16 + 16 + 64)  # input, what attention gives, hidden
    for (more, fewer), (many, few) in zip(pairwise(kept), pairwise(rows), strict=True):
        assert more - fewer == (many - few) * (of_a_token + 8)  # and its place


def test_weights_of_dropped_pictures_are_nothing_and_the_others_what_is_added_back() -> None:
    torch.manual_seed(2)
    kept = draw_kept(GROUPS, rate=0.4, device=torch.device("cpu"))
    ones = torch.ones(sum(len(k) * n for k, (_, n) in zip(kept, GROUPS, strict=True)), 1)
    added = add_back(torch.zeros(TOTAL, 1), GROUPS, kept, update=ones)
    assert_close(weights_of(ONLY, GROUPS, kept), added[ONLY])
    assert 0 < int((added == 0).sum()) < TOTAL


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("drop_path", [0.0, 0.4])
def test_compiled_another_number_of_tokens_needs_no_other_form(drop_path: float) -> None:
    block = block_of(drop_path=drop_path)
    expected = [both(block, some, taken=some) for some in (ONLY, ONLY[:7])]
    compile_blocks(block)
    assert_close(both(block, ONLY), expected[0], rtol=1e-5, atol=1e-5)
    with torch.compiler.set_stance("fail_on_recompile"):
        assert_close(both(block, ONLY[:7]), expected[1], rtol=1e-5, atol=1e-5)
