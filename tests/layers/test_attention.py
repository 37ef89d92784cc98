import importlib.util

import pytest
import torch
from torch.testing import assert_close

from dinov2.errors import ConfigError
from dinov2.layers import Attention, choose_attention
from dinov2.layers.attention import use_attention

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


def test_attention_is_softmax_of_scaled_products_with_rows_of_qkv_in_that_order() -> None:
    torch.manual_seed(0)
    layer = Attention(24, 3, qkv_bias=True)
    x = torch.randn(2, 7, 24)
    assert_close(layer(x), plain_attention(layer, x))


@pytest.mark.parametrize("name", ["auto", "explicit"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.bfloat16, 2e-2)])
def test_every_kernel_gives_the_values_and_gradients_of_sdpa(name: str, dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    given = torch.randn(2, 37, 3, 4, 8, dtype=dtype)
    results = []
    for kernel in (choose_attention(name, CPU), choose_attention("sdpa", CPU)):
        qkv = given.clone().requires_grad_()
        attended = kernel(*qkv.unbind(2))
        (gradient,) = torch.autograd.grad(attended.float().square().sum(), qkv)
        results.append((attended.float(), gradient.float()))
    (ours, our_gradient), (theirs, their_gradient) = results
    assert_close(ours, theirs, atol=tolerance, rtol=tolerance)
    assert_close(our_gradient, their_gradient, atol=5 * tolerance, rtol=5 * tolerance)


def test_an_unknown_kernel_is_refused_with_the_names_that_exist() -> None:
    with pytest.raises(ConfigError, match="'flash'; expected one of auto, sdpa, explicit, xformers"):
        choose_attention("flash")


def test_xformers_on_a_cpu_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no kernel for the CPU; set runtime\.attention=sdpa"):
        choose_attention("xformers", CPU)


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

    def counted(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        calls.append(queries.shape)
        return values

    layers = torch.nn.Sequential(Attention(8, 2, kernel=counted), Attention(8, 2, kernel=counted))
    layers(torch.randn(1, 3, 8))
    assert calls == [(1, 3, 2, 4)] * 2  # [B, N, H, d]
    use_attention(layers, "sdpa")
    layers(torch.randn(1, 3, 8))
    assert len(calls) == 2


def test_a_width_that_the_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="width 10 is not a multiple of num_heads 3"):
        Attention(10, 3)
