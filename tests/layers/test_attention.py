import importlib.util
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from dinov2.errors import ConfigError
from dinov2.layers import Attention, choose_attention
from dinov2.layers.attention import use_attention
from dinov2.layers.kernels import AttentionKernel, first_tokens
from dinov2.layers.packing import Groups, pack, unpack

CPU = torch.device("cpu")


def plain_attention(layer: Attention, x: torch.Tensor) -> torch.Tensor:
    """The formula, one head after the other."""
    dim = x.shape[-1]
    queries, keys, values = layer.qkv(x).split(dim, dim=-1)
    width = dim // layer.num_heads
    heads = []
    for i in range(layer.num_heads):
        part = slice(i * width, (i + 1) * width)
        scores = queries[..., part] @ keys[..., part].transpose(-1, -2) * width**-0.5
        heads.append(scores.softmax(dim=-1) @ values[..., part])
    return layer.proj(torch.cat(heads, dim=-1))


class _Named(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        self.names.add(func._schema.name)
        return func(*args, **(kwargs or {}))


def _kept_bytes(
    kernel: AttentionKernel, *, length: int, width: int, heads: int = 2, groups: Groups | None = None
) -> int:
    """Of all memory that the forward pass leaves to the backward pass, each once."""
    groups = groups or ((1, length),)
    qkv = torch.randn(sum(n * tokens for n, tokens in groups), 3, heads, width, requires_grad=True)
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        attended = kernel(qkv, groups)
    assert attended.requires_grad
    return sum(kept.values())


def test_attention_is_softmax_of_scaled_products_with_rows_of_qkv_in_that_order() -> None:
    torch.manual_seed(0)
    layer = Attention(24, 3, qkv_bias=True)
    x = torch.randn(2, 7, 24)
    assert_close(layer(x), plain_attention(layer, x))


@pytest.mark.parametrize("groups", [((2, 37),), ((1, 9), (3, 1), (2, 5))])
@pytest.mark.parametrize("name", ["auto", "explicit"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 2e-2)])
def test_every_kernel_gives_the_values_and_gradients_of_sdpa(
    name: str, dtype: torch.dtype, tolerance: float, groups: Groups
) -> None:
    torch.manual_seed(0)
    given = torch.randn(sum(pictures * length for pictures, length in groups), 3, 4, 8, dtype=dtype)
    results = []
    for kernel in (choose_attention(name, CPU), choose_attention("sdpa", CPU)):
        qkv = given.clone().requires_grad_()
        attended = kernel(qkv, groups)
        (gradient,) = torch.autograd.grad(attended.float().square().sum(), qkv)
        results.append((attended.float(), gradient.float()))
        assert torch.equal(qkv, given)
    (ours, our_gradient), (theirs, their_gradient) = results
    assert_close(ours, theirs, atol=tolerance, rtol=tolerance)
    assert_close(our_gradient, their_gradient, atol=5 * tolerance, rtol=5 * tolerance)


@pytest.mark.parametrize("name", ["sdpa", "explicit"])
def test_a_token_attends_to_its_own_picture_alone(name: str) -> None:
    torch.manual_seed(0)
    sizes = [torch.randn(2, 5, 3, 2, 4), torch.randn(3, 7, 3, 2, 4)]
    kernel = choose_attention(name)
    packed, groups = pack(sizes)
    together = unpack(kernel(packed, groups), groups)
    for size, attended in zip(sizes, together, strict=True):
        for picture, its in zip(size, attended, strict=True):
            assert_close(its, kernel(picture, ((1, len(picture)),)))


@pytest.mark.parametrize("groups", [((2, 4), (1, 3)), ((1, 9), (1, 2))])  # weights kept, and computed again
def test_the_explicit_kernel_has_the_gradient_of_its_formula(groups: Groups) -> None:
    torch.manual_seed(0)
    qkv = torch.randn(11, 3, 2, 4, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: choose_attention("explicit")(x, groups), qkv)


def test_the_explicit_kernel_keeps_weights_no_larger_than_queries() -> None:
    kept = {length: _kept_bytes(choose_attention("explicit"), length=length, width=8) for length in (8, 9)}
    assert kept[8] == (3 * 8 * 8 + 8 * 8) * 2 * 4  # queries, keys, values, weights: two heads, four bytes
    assert kept[9] == 3 * 9 * 8 * 2 * 4


def test_results_of_the_fused_kernel_are_kept_once_and_are_those_of_torch_to_the_bit() -> None:
    torch.manual_seed(0)
    groups = ((2, 37), (5, 9))
    given = torch.randn(2 * 37 + 5 * 9, 3, 4, 16)
    results = []
    for name in ("auto", "sdpa"):
        qkv = given.clone().requires_grad_()
        attended = choose_attention(name)(qkv, groups)
        (gradient,) = torch.autograd.grad(attended.square().sum(), qkv)
        results.append((attended, gradient))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    row, numbers = given.nbytes // 3, len(given) * 4 * 4  # a number for every row of scores of every head
    kept = _kept_bytes(choose_attention("auto"), length=37, width=16, heads=4, groups=groups)
    assert kept == given.nbytes + row + numbers


def test_with_gradients_auto_can_be_traced_exported_and_transformed() -> None:
    torch.manual_seed(0)
    layer, x = Attention(24, 3, kernel=choose_attention("auto")), torch.randn(2, 7, 24)
    expected = layer(x)
    assert expected.requires_grad
    assert_close(torch.jit.trace(layer, x)(x), expected)
    assert_close(torch.export.export(layer, (x,)).module()(x), expected)
    assert_close(torch.func.vmap(lambda one: layer(one.unsqueeze(0)).squeeze(0))(x), expected)


def test_without_torchs_fused_kernel_auto_asks_torch_for_another() -> None:
    qkv = torch.randn(12, 3, 2, 8, requires_grad=True)
    with sdpa_kernel(SDPBackend.MATH), _Named() as called:
        choose_attention("auto")(qkv, ((2, 6),))
    assert not any("flash" in name for name in called.names)
    with _Named() as called:
        choose_attention("auto")(qkv, ((2, 6),))
    assert any("flash" in name for name in called.names)


def test_pictures_begin_where_the_ones_before_end() -> None:
    assert first_tokens(((2, 5), (3, 2)), device=CPU).tolist() == [0, 5, 10, 12, 14, 16]


def test_an_unknown_kernel_is_refused_with_the_names_that_exist() -> None:
    with pytest.raises(ConfigError, match="'flash'; expected one of auto, sdpa, explicit, xformers, varlen"):
        choose_attention("flash")


@pytest.mark.parametrize("name", ["xformers", "varlen"])
def test_a_kernel_for_gpus_is_refused_on_a_cpu(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"{name} has no kernel for the CPU; set runtime\.attention=sdpa"):
        choose_attention(name, CPU)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="varlen needs a GPU")
def test_varlen_and_sdpa_give_the_same_tokens() -> None:
    torch.manual_seed(0)
    qkv, groups = torch.randn(2 * 50 + 3 * 17, 3, 2, 64, device="cuda", dtype=torch.half), ((2, 50), (3, 17))
    ours, theirs = (choose_attention(name)(qkv, groups) for name in ("varlen", "sdpa"))
    assert_close(ours, theirs, atol=2e-3, rtol=2e-3)


@pytest.mark.skipif(importlib.util.find_spec("xformers") is not None, reason="xformers is installed here")
def test_xformers_where_it_is_not_installed_is_refused_with_the_way_to_get_it() -> None:
    with pytest.raises(ConfigError, match=r"pip install 'dinov2\[gpu\]'"):
        choose_attention("xformers")


@pytest.mark.skipif(importlib.util.find_spec("xformers") is None, reason="xformers is not installed")
@pytest.mark.skipif(not torch.cuda.is_available(), reason="xformers needs a GPU")
def test_xformers_and_sdpa_give_the_same_tokens() -> None:
    torch.manual_seed(0)
    layer = Attention(128, 2, qkv_bias=True).cuda().half()
    x = torch.randn(2, 50, 128, device="cuda", dtype=torch.half)
    by_sdpa = layer(x)
    use_attention(layer, "xformers")
    assert_close(layer(x), by_sdpa, atol=2e-3, rtol=2e-3)


def test_use_attention_changes_the_kernel_of_every_layer_below_a_module() -> None:
    calls = []

    def counted(qkv: torch.Tensor, groups: Groups) -> torch.Tensor:
        calls.append((qkv.shape, groups))
        return qkv[:, 2]

    layers = torch.nn.Sequential(Attention(8, 2, kernel=counted), Attention(8, 2, kernel=counted))
    layers(torch.randn(1, 3, 8))
    assert calls == [((3, 3, 2, 4), ((1, 3),))] * 2  # [T, 3, H, d]
    use_attention(layers, "sdpa")
    layers(torch.randn(1, 3, 8))
    assert len(calls) == 2


def test_a_width_that_the_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="width 10 is not a multiple of num_heads 3"):
        Attention(10, 3)
