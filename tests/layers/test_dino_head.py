import pytest
import torch
from torch import nn
from torch.testing import assert_close

from dinov2.layers import DINOHead, WeightNormLinear
from dinov2.layers.dino_head import Projection


def test_a_weight_normed_map_equals_torch_s_own_in_value_and_gradient() -> None:
    torch.manual_seed(0)
    ours = WeightNormLinear(6, 9)
    theirs = nn.utils.parametrizations.weight_norm(nn.Linear(6, 9, bias=False), dim=0)
    with torch.no_grad():
        ours.weight_g.uniform_(0.5, 2.0)
        theirs.parametrizations.weight.original0.copy_(ours.weight_g)
        theirs.parametrizations.weight.original1.copy_(ours.weight_v)
    x = torch.randn(4, 6)
    for layer in (ours, theirs):
        layer(x).pow(2).sum().backward()
    assert_close(ours(x), theirs(x))
    assert_close(ours.weight_g.grad, theirs.parametrizations.weight.original0.grad, atol=1e-5, rtol=1e-5)
    assert_close(ours.weight_v.grad, theirs.parametrizations.weight.original1.grad, atol=1e-5, rtol=1e-5)


def test_logits_are_cosines_between_minus_and_plus_one_at_the_start() -> None:
    torch.manual_seed(0)
    head = DINOHead(8, 40, hidden_dim=16, bottleneck_dim=4)
    x = torch.randn(50, 8) * 100
    logits = head(x).detach()
    bottleneck = nn.functional.normalize(head.mlp(x), dim=-1)
    prototypes = nn.functional.normalize(head.last_layer.weight_v, dim=-1)
    assert_close(logits, (bottleneck @ prototypes.T).detach(), atol=1e-6, rtol=0.0)
    assert float(logits.abs().max()) <= 1 + 1e-6


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ({}, {"mlp.0.weight", "mlp.0.bias", "mlp.2.weight", "mlp.2.bias", "mlp.4.weight", "mlp.4.bias"}),
        ({"nlayers": 1}, {"mlp.weight", "mlp.bias"}),
        ({"nlayers": 2, "mlp_bias": False}, {"mlp.0.weight", "mlp.2.weight"}),
    ],
)
def test_parameters_have_the_public_names(arguments: dict, names: set[str]) -> None:
    head = DINOHead(8, 40, hidden_dim=16, bottleneck_dim=4, **arguments)
    assert set(head.state_dict()) == names | {"last_layer.weight_g", "last_layer.weight_v"}


def test_with_batch_norm_the_hidden_layers_are_normalised() -> None:
    torch.manual_seed(0)
    head = DINOHead(8, 10, hidden_dim=16, bottleneck_dim=4, use_bn=True).train()
    assert sum(isinstance(module, nn.BatchNorm1d) for module in head.modules()) == 2
    assert_close(head.mlp[:2](torch.randn(32, 8) * 7 + 3).mean(dim=0), torch.zeros(16), atol=1e-5, rtol=0.0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_zero_bottleneck_in_half_precision_gives_zero_logits_in_that_precision(dtype: torch.dtype) -> None:
    head = DINOHead(8, 10, hidden_dim=16, bottleneck_dim=4).to(dtype)
    assert torch.equal(head(torch.zeros(2, 8, dtype=dtype)), torch.zeros(2, 10, dtype=dtype))


def test_the_head_starts_as_the_public_one_does() -> None:
    torch.manual_seed(0)
    head = DINOHead(64, 4096, hidden_dim=128, bottleneck_dim=256)
    assert float(head.mlp[0].weight.detach().std()) == pytest.approx(0.02, rel=0.05)
    assert float(head.mlp[0].bias.detach().abs().max()) == 0
    assert float(head.last_layer.weight_v.detach().std()) == pytest.approx(0.0361, rel=0.01)
    assert torch.equal(head.last_layer.weight_g, torch.ones(4096, 1))


@pytest.mark.parametrize(
    "format_", [None, torch.bfloat16, torch.float16], ids=["fp32", "autocast bf16", "autocast fp16"]
)
def test_the_factors_of_the_logits_are_in_their_format_and_multiply_to_them(format_: torch.dtype | None) -> None:
    torch.manual_seed(0)
    head, x = DINOHead(8, 40, hidden_dim=16, bottleneck_dim=4), torch.randn(6, 8)
    with torch.autocast("cpu", dtype=format_, enabled=format_ is not None):
        logits, projection = head(x), head(x, as_projection=True)
    assert isinstance(projection, Projection)
    assert projection.features.dtype == projection.prototypes.dtype == logits.dtype == (format_ or torch.float32)
    assert torch.equal(projection.features @ projection.prototypes.T, logits)
    length = projection.features.float().norm(dim=1)
    assert_close(length, torch.ones(6), atol=2 * torch.finfo(logits.dtype).eps, rtol=0.0)


def test_factors_of_weights_in_half_precision_are_in_that_precision() -> None:
    head = DINOHead(8, 10, hidden_dim=16, bottleneck_dim=4).to(torch.bfloat16)
    projection = head(torch.randn(2, 8, dtype=torch.bfloat16), as_projection=True)
    assert projection.features.dtype == projection.prototypes.dtype == torch.bfloat16
