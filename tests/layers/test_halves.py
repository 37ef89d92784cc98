"""The halves of a block with their backward passes written out: the same numbers as the layers one by one."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from dinov2.layers import Block, halves
from dinov2.layers.block import Checkpointing, use_checkpointing
from dinov2.layers.kernels import choose_attention

GROUPS = ((3, 7), (5, 4))
TOKENS = sum(pictures * length for pictures, length in GROUPS)


@pytest.fixture(autouse=True)
def parts_of_nine_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several parts, the last one shorter."""
    monkeypatch.setattr(halves, "ROWS_ON_CPU", 9)


def block_of(
    *, dtype: torch.dtype = torch.float32, init_values: float | None = 0.3, ffn: str = "mlp", bias: bool = True
) -> Block:
    torch.manual_seed(0)
    block = Block(
        16,
        2,
        init_values=init_values,
        qkv_bias=bias,
        proj_bias=bias,
        ffn_bias=bias,
        ffn_layer=ffn,
        kernel=choose_attention("explicit"),
    )
    with torch.no_grad():  # of norms too, whose factors and shifts are taken into the matrices
        for norm in (block.norm1, block.norm2):
            norm.weight.add_(torch.randn(16) * 0.3)
            norm.bias.add_(torch.randn(16) * 0.3)
    return block.to(dtype).train()


def run(
    block: Block, how: Checkpointing, *, dtype: torch.dtype = torch.float32, autocast: torch.dtype | None = None
) -> list[Tensor]:
    """The output, and the gradients of the input and of every weight."""
    use_checkpointing(block, how)
    generator = torch.Generator().manual_seed(1)
    x, gradient = (torch.randn(TOKENS, 16, generator=generator, dtype=torch.float64).to(dtype) for _ in range(2))
    x.requires_grad_()
    with torch.autocast("cpu", dtype=autocast or torch.bfloat16, enabled=autocast is not None):
        out = block(x, GROUPS)
    return [out, *torch.autograd.grad(out, [x, *block.parameters()], gradient.to(out.dtype))]


@pytest.mark.parametrize("how", ["pointwise", "selective"])
@pytest.mark.parametrize("ffn", ["mlp", "swiglu"])
@pytest.mark.parametrize("init_values", [None, 0.3])
@pytest.mark.parametrize("bias", [True, False])
def test_in_float64_they_are_the_layers_one_by_one(
    how: Checkpointing, ffn: str, init_values: float | None, bias: bool
) -> None:
    block = block_of(dtype=torch.float64, ffn=ffn, init_values=init_values, bias=bias)
    plain, short = (run(block, kind, dtype=torch.float64) for kind in ("none", how))
    assert_close(short, plain, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("autocast", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("init_values", [None, 1e-5, 0.3])
def test_under_autocast_they_come_as_near_to_float64_as_the_layers_do(
    autocast: torch.dtype, init_values: float | None
) -> None:
    block = block_of(init_values=init_values)
    plain, short = (run(block, how, autocast=autocast) for how in ("none", "pointwise"))
    exact = run(block_of(dtype=torch.float64, init_values=init_values), "none", dtype=torch.float64)
    assert [one.dtype for one in short] == [one.dtype for one in plain]
    for ours, theirs, truth in zip(short, plain, exact, strict=True):
        unit = float(truth.abs().max())
        assert error(ours, truth) <= 2.5 * error(theirs, truth) + 2e-3 * unit


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_in_half_precision_get_gradients_in_their_own_format(dtype: torch.dtype) -> None:
    plain, short = (run(block_of(dtype=dtype), how, dtype=dtype) for how in ("none", "pointwise"))
    exact = run(block_of(dtype=torch.float64), "none", dtype=torch.float64)
    for ours, theirs, truth in zip(short, plain, exact, strict=True):
        assert ours.dtype == dtype
        assert error(ours, truth) <= 1.5 * error(theirs, truth) + 1e-2 * float(truth.abs().max())


def test_under_autocast_of_a_norm_is_kept_what_it_gives_and_not_what_it_was_given() -> None:
    block = block_of()
    use_checkpointing(block, "pointwise")
    x = torch.randn(TOKENS, 16, requires_grad=True)
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autocast("cpu", dtype=torch.bfloat16), torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        block(x, GROUPS)
    assert x.untyped_storage().data_ptr() not in kept
    of_tokens = [one for one in kept.values() if not any(one is weight for weight in block.parameters())]
    wide = [one for one in of_tokens if one.dtype == torch.float32]
    assert [one.shape[1:] for one in wide] == [(1,)] * len(wide)  # inverse deviations
    assert sum(len(one) for one in wide) == 2 * TOKENS


def test_what_is_passed_through_brings_its_gradient_and_alone_is_enough() -> None:
    norm, matrix = torch.nn.LayerNorm(16), torch.nn.Linear(16, 24)
    x, gradient = torch.randn(TOKENS, 16, requires_grad=True), torch.randn(TOKENS, 16)
    out, same = halves.normed_linear(x, norm, matrix)
    both = torch.autograd.grad(out.sin().sum() + (same * gradient).sum(), x)[0]
    out, _ = halves.normed_linear(x, norm, matrix)
    assert_close(both, torch.autograd.grad(out.sin().sum(), x)[0] + gradient)
    _, same = halves.normed_linear(x, norm, matrix)
    assert_close(torch.autograd.grad((same * gradient).sum(), x)[0], gradient)


def test_without_gradients_nothing_is_kept() -> None:
    block = block_of()
    use_checkpointing(block, "pointwise")
    kept: list[Tensor] = []
    with torch.no_grad(), torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        out = block(torch.randn(TOKENS, 16), GROUPS)
    assert not kept
    assert not out.requires_grad


def error(one: Tensor, truth: Tensor) -> float:
    return float((one.double() - truth).abs().max())
