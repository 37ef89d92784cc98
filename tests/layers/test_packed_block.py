"""A block over pictures of several sizes at once: packed, computed again, compiled."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from dinov2.layers import Block
from dinov2.layers.block import Checkpointing, compile_blocks, use_checkpointing
from dinov2.layers.drop_path import Kept, draw_kept
from dinov2.layers.packing import Groups, pack, unpack

GROUPS: Groups = ((4, 5), (6, 3))
CPU = torch.device("cpu")


def block_of(ffn: str = "mlp", *, drop_path: float = 0.0) -> Block:
    torch.manual_seed(0)
    return Block(16, 2, init_values=0.5, qkv_bias=True, ffn_layer=ffn, drop_path=drop_path).train()


def sizes() -> list[Tensor]:
    torch.manual_seed(1)
    return [torch.randn(pictures, length, 16, requires_grad=True) for pictures, length in GROUPS]


def gradients_of(block: Block, inputs: list[Tensor], outputs: list[Tensor]) -> list[Tensor]:
    loss = torch.stack([out.square().sum() + out.sin().sum() for out in outputs]).sum()
    return list(torch.autograd.grad(loss, [*inputs, *block.parameters()]))


def both_ways(block: Block, *, seed: int = 3) -> tuple[list[Tensor], list[Tensor]]:
    inputs = sizes()
    torch.manual_seed(seed)
    outputs = block(inputs)
    return outputs, gradients_of(block, inputs, outputs)


def draws(*, rate: float) -> tuple[Kept, Kept]:
    torch.manual_seed(2)
    return draw_kept(GROUPS, rate=rate, device=CPU), draw_kept(GROUPS, rate=rate, device=CPU)


@pytest.mark.parametrize("ffn", ["mlp", "swiglu", "identity"])
@pytest.mark.parametrize("rate", [None, 0.4])
def test_one_pass_over_two_sizes_has_the_values_and_gradients_of_two_passes(ffn: str, rate: float | None) -> None:
    block, inputs = block_of(ffn), sizes()
    kept = None if rate is None else draws(rate=rate)
    tokens, groups = pack(inputs)
    together = unpack(block.deterministic(tokens, groups, kept), groups)
    alone = []
    for i, (size, group) in enumerate(zip(inputs, GROUPS, strict=True)):
        its = None if kept is None else ((kept[0][i],), (kept[1][i],))
        alone.append(block.deterministic(size.flatten(0, 1), (group,), its).view_as(size))
    for one, other in zip(together, alone, strict=True):
        assert_close(one, other, rtol=1e-6, atol=1e-6)
    assert_close(gradients_of(block, inputs, together), gradients_of(block, inputs, alone), rtol=1e-5, atol=1e-5)


def test_packing_and_unpacking_is_no_change_and_one_size_is_not_copied() -> None:
    inputs = sizes()
    tokens, groups = pack(inputs)
    assert groups == GROUPS
    assert all(torch.equal(one, other) for one, other in zip(unpack(tokens, groups), inputs, strict=True))
    assert pack(inputs[:1])[0].data_ptr() == inputs[0].data_ptr()


@pytest.mark.parametrize("how", ["pointwise", "selective", "full"])
@pytest.mark.parametrize("ffn", ["mlp", "swiglu", "identity"])
@pytest.mark.parametrize("drop_path", [0.0, 0.4])
def test_computing_again_changes_nothing_but_the_order_of_sums(how: Checkpointing, ffn: str, drop_path: float) -> None:
    block = block_of(ffn, drop_path=drop_path)
    outputs, gradients = both_ways(block)
    use_checkpointing(block, how)
    again_outputs, again_gradients = both_ways(block)
    if how == "full":
        assert all(
            torch.equal(one, other)
            for one, other in zip([*outputs, *gradients], [*again_outputs, *again_gradients], strict=True)
        )
    assert_close(again_outputs, outputs, rtol=1e-6, atol=1e-6)
    assert_close(again_gradients, gradients, rtol=1e-5, atol=1e-6)


def test_the_more_is_computed_again_the_less_is_kept_for_the_backward_pass() -> None:
    kept = []
    for how in ("none", "pointwise", "selective", "full"):
        block = block_of()
        use_checkpointing(block, how)
        held: dict[int, Tensor] = {parameter.data_ptr(): parameter for parameter in block.parameters()}
        of_weights = len(held)

        def keep(tensor: Tensor, held: dict[int, Tensor] = held) -> Tensor:
            held.setdefault(tensor.untyped_storage().data_ptr(), tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            block(sizes())
        kept.append(sum(tensor.untyped_storage().nbytes() for tensor in list(held.values())[of_weights:]))
    none, pointwise, selective, full = kept
    assert full < 0.2 * none
    assert full < selective < 0.7 * pointwise
    assert pointwise < 0.8 * none


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("drop_path", [0.0, 0.4])
def test_a_compiled_block_has_the_values_and_gradients_and_is_compiled_once(drop_path: float) -> None:
    block = block_of(drop_path=drop_path)
    outputs, gradients = both_ways(block)
    use_checkpointing(block, "selective")
    compile_blocks(block)
    compiled_outputs, compiled_gradients = both_ways(block)
    assert_close(compiled_outputs, outputs, rtol=1e-6, atol=1e-6)
    assert_close(compiled_gradients, gradients, rtol=1e-5, atol=1e-5)
    with torch.compiler.set_stance("fail_on_recompile"):  # other draws, other values, and another block of this shape
        both_ways(block, seed=4)
        other = block_of(drop_path=drop_path)
        compile_blocks(other)
        both_ways(other)


@pytest.mark.usefixtures("fresh_compiler")
def test_a_compiled_block_can_be_computed_again_as_a_whole() -> None:
    block = block_of()
    outputs, gradients = both_ways(block)
    use_checkpointing(block, "full")
    compile_blocks(block)
    assert_close(both_ways(block), (outputs, gradients), rtol=1e-5, atol=1e-5)
