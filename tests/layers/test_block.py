import pytest
import torch
from torch import nn
from torch.testing import assert_close

from dinov2.layers import Block, LayerScale, Mlp, SwiGLUFFN, residual_on_a_subset
from dinov2.layers.drop_path import num_kept
from dinov2.layers.swiglu import swiglu_width


@pytest.mark.parametrize(("pictures", "kept"), [(1, 1), (2, 1), (4, 2), (8, 5), (16, 11)])
def test_the_rate_of_drop_path_is_quantised_by_the_batch(pictures: int, kept: int) -> None:
    assert num_kept(pictures, rate=0.3) == kept


def test_dropped_pictures_are_unchanged_and_kept_ones_get_the_scaled_branch() -> None:
    torch.manual_seed(0)
    x = torch.randn(8, 3, 4)
    out = residual_on_a_subset(x, torch.ones_like, rate=0.5)
    moved = ((out - x).abs() > 0).flatten(1).all(dim=1)
    assert int(moved.sum()) == 4
    assert_close(out[moved], x[moved] + 2.0)
    assert torch.equal(out[~moved], x[~moved])


def test_the_branch_sees_only_the_pictures_that_are_kept() -> None:
    seen = []
    residual_on_a_subset(torch.randn(8, 3, 4), lambda part: seen.append(len(part)) or part, rate=0.25)
    assert seen == [6]


def test_drop_path_gives_the_full_residual_on_average() -> None:
    torch.manual_seed(0)
    x = torch.randn(5, 2, 3)
    draws = torch.stack([residual_on_a_subset(x, lambda part: part * 3, rate=0.4) for _ in range(4000)])
    assert_close(draws.mean(dim=0), x + 3 * x, atol=0.25, rtol=0.0)


def test_one_permutation_is_drawn_per_branch_and_input_attention_first() -> None:
    block = Block(8, 2, drop_path=0.5, init_values=1.0).train()
    with torch.no_grad():
        block.ls1.gamma.fill_(0.0)  # attention adds nothing, so that its draws show only in the random stream
    inputs = [torch.randn(4, 3, 8), torch.randn(6, 2, 8)]
    torch.manual_seed(5)
    outputs = block(inputs)
    torch.manual_seed(5)
    torch.randperm(4), torch.randperm(6)  # attention of both inputs
    for before, after in zip(inputs, outputs, strict=True):
        chosen = torch.randperm(len(before))[: len(before) // 2]
        moved = ((after - before).abs() > 0).flatten(1).any(dim=1)
        assert set(moved.nonzero().flatten().tolist()) == set(chosen.tolist())


def test_in_evaluation_nothing_is_dropped() -> None:
    torch.manual_seed(0)
    dropping = Block(8, 2, drop_path=0.9, init_values=1.0).eval()
    plain = Block(8, 2, init_values=1.0).train()
    plain.load_state_dict(dropping.state_dict())
    x = torch.randn(4, 3, 8)
    assert torch.equal(dropping(x), plain(x))


def test_a_list_passes_a_block_as_its_tensors_do() -> None:
    torch.manual_seed(0)
    block = Block(8, 2, init_values=0.5)
    first, second = torch.randn(2, 5, 8), torch.randn(3, 2, 8)
    together = block([first, second])
    assert torch.equal(together[0], block(first))
    assert torch.equal(together[1], block(second))


def test_without_initial_values_a_block_has_no_layer_scale() -> None:
    assert not any(isinstance(module, LayerScale) for module in Block(8, 2).modules())


@pytest.mark.parametrize(("dim", "width"), [(768, 2048), (1024, 2736), (1536, 4096)])
def test_swiglu_has_the_public_width(dim: int, width: int) -> None:
    assert swiglu_width(4 * dim) == width


def test_swiglu_gates_with_the_first_half() -> None:
    torch.manual_seed(0)
    layer = SwiGLUFFN(6, 12)
    x = torch.randn(2, 3, 6)
    gate, value = (x @ layer.w12.weight.T + layer.w12.bias).chunk(2, dim=-1)
    assert_close(layer(x), layer.w3(gate * gate.sigmoid() * value))


def test_the_mlp_uses_the_exact_gelu() -> None:
    torch.manual_seed(0)
    layer = Mlp(4, 8)
    x = torch.randn(2, 3, 4)
    h = layer.fc1(x)
    assert_close(layer(x), layer.fc2(h * 0.5 * (1 + torch.erf(h / 2**0.5))))


def test_an_identity_ffn_has_no_weights_and_an_unknown_one_is_refused() -> None:
    assert isinstance(Block(8, 2, ffn_layer="identity").mlp, nn.Identity)
    with pytest.raises(ValueError, match="ffn_layer is 'moe'; expected one of mlp, swiglu, swiglufused, identity"):
        Block(8, 2, ffn_layer="moe")
