"""Low-rank additions and biases: what learns, what stays."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from dinov2.eval.backbones import Backbone, Tokens
from dinov2.eval.probes.adapters import (
    MODES,
    Mode,
    count_parameters,
    learnt_state,
    merge,
    prepare,
    restore,
    set_training,
)
from tests.eval.probes.films import SIZE, tiny_backbone


def _pictures(seed: int = 0) -> torch.Tensor:
    return torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def _moved(backbone: Backbone, *, mode: Mode, steps: int = 3) -> set[str]:
    """Names of the tensors that training changes, by their names before additions were made."""
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    learning = [parameter for parameter in backbone.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(learning, lr=0.1) if learning else None
    set_training(backbone, mode=mode)
    for step in range(steps):
        tokens = backbone(_pictures(step))
        loss = tokens.cls.pow(2).mean() + tokens.patches.sin().mean()
        if optimizer is not None:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return {name for name, value in backbone.state_dict().items() if not torch.equal(value, before[name])}


@pytest.mark.parametrize("ffn", ["mlp", "swiglu"])
def test_step_0_of_lora_is_the_frozen_network(ffn: str) -> None:
    backbone = tiny_backbone(ffn=ffn)
    expected = backbone(_pictures())
    prepare(backbone, mode="lora", rank=4, alpha=8)
    found = backbone(_pictures())
    assert torch.equal(found.cls, expected.cls)
    assert torch.equal(found.patches, expected.patches)


@pytest.mark.parametrize("ffn", ["mlp", "swiglu"])
def test_every_addition_of_lora_gets_a_gradient_and_no_other_parameter_does(ffn: str) -> None:
    backbone = tiny_backbone(ffn=ffn)
    prepare(backbone, mode="lora", rank=4, alpha=8)
    _moved(backbone, mode="lora")  # at step 0 `down` has none, `up` being zero
    backbone.zero_grad()
    backbone(_pictures()).patches.pow(2).mean().backward()
    additions = {name for name, _ in backbone.named_parameters() if name.endswith((".up", ".down"))}
    assert len(additions) == 3 * 3 * 2  # three matrices of each of three blocks
    for name, parameter in backbone.named_parameters():
        if name in additions:
            assert parameter.grad is not None
            assert parameter.grad.abs().sum() > 0, name
        else:
            assert parameter.grad is None, name


@pytest.mark.parametrize("mode", MODES)
def test_a_mode_changes_what_it_says_and_nothing_else(mode: Mode) -> None:
    backbone = tiny_backbone()
    prepare(backbone, mode=mode, rank=4, alpha=8)
    moved = _moved(backbone, mode=mode)
    names = set(backbone.state_dict())
    if mode == "frozen":
        assert not moved
    elif mode == "lora":
        assert moved == {name for name in names if name.endswith((".up", ".down"))}
    elif mode == "bitfit":
        # gradients of the biases of keys are zero: attention does not see a constant on all keys alike
        assert moved == {name for name in names if name.endswith(".bias")}
    else:
        assert moved == names - {"vit.mask_token"}


def test_merged_lora_computes_what_the_additions_did_through_layerscale() -> None:
    backbone = tiny_backbone(layerscale=0.3)
    names = list(backbone.state_dict())
    prepare(backbone, mode="lora", rank=4, alpha=8)
    _moved(backbone, mode="lora")
    backbone.eval()
    with torch.no_grad():
        expected = backbone(_pictures())
    first = tiny_backbone(layerscale=0.3)(_pictures())
    assert not torch.allclose(first.cls, expected.cls, atol=1e-3), "the additions must have done something"
    merge(backbone)
    assert sorted(backbone.state_dict()) == sorted(names)
    torch.testing.assert_close(backbone(_pictures()).patches, expected.patches, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("checkpointing", ["pointwise", "full"])
def test_lora_has_the_same_gradients_with_blocks_computed_again(checkpointing: str) -> None:
    from dinov2.layers.block import use_checkpointing

    gradients = []
    for how in ("none", checkpointing):
        backbone = tiny_backbone()
        torch.manual_seed(0)
        prepare(backbone, mode="lora", rank=4, alpha=8)
        use_checkpointing(backbone, how)  # type: ignore[arg-type]
        backbone.train()
        backbone(_pictures()).cls.pow(2).mean().backward()
        gradients.append([p.grad for n, p in backbone.named_parameters() if n.endswith(".up")])
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, again)


def test_what_was_learnt_comes_back_into_an_untouched_network() -> None:
    backbone = tiny_backbone()
    prepare(backbone, mode="lora", rank=4, alpha=8)
    _moved(backbone, mode="lora")
    state = learnt_state(backbone, mode="lora")
    other = tiny_backbone()
    prepare(other, mode="lora", rank=4, alpha=8)
    restore(other, state)
    assert torch.equal(other.eval()(_pictures()).cls, backbone.eval()(_pictures()).cls)
    with pytest.raises(ValueError, match="has no"):
        restore(tiny_backbone(), state)


def test_a_copy_of_what_was_learnt_does_not_follow_the_network() -> None:
    backbone = tiny_backbone()
    prepare(backbone, mode="full")
    state = learnt_state(backbone, mode="full")
    kept = copy.deepcopy(state)
    _moved(backbone, mode="full")
    assert all(torch.equal(state[name], kept[name]) for name in state)


def test_parameters_are_counted_without_additions() -> None:
    backbone = tiny_backbone()
    total = sum(parameter.numel() for parameter in backbone.parameters())
    prepare(backbone, mode="lora", rank=4, alpha=8)
    assert count_parameters(backbone) == (3 * 4 * ((32 + 96) + (32 + 128) + (128 + 32)), total)


class _Convolution(Backbone):
    """A network with neither attention nor biases, but a batch norm."""

    def __init__(self, *, affine: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, bias=False)
        self.norm = nn.BatchNorm2d(4, affine=affine)
        self.traits = tiny_backbone().traits

    def layers(self, pictures: torch.Tensor, n: int) -> list[Tokens]:
        return [Tokens(cls=self.norm(self.conv(pictures)).mean(dim=(2, 3)), patches=None, grid=None)] * n

    def parts(self) -> list[list[tuple[str, nn.Parameter]]]:
        raise ValueError("no order")


def test_a_network_without_the_layers_of_a_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="lora"):
        prepare(_Convolution(), mode="lora")
    with pytest.raises(ValueError, match="bitfit"):
        prepare(_Convolution(), mode="bitfit")


@pytest.mark.parametrize("mode", ["bitfit", "frozen"])
def test_batch_norms_keep_their_statistics_unless_everything_learns(mode: Mode) -> None:
    backbone = _Convolution(affine=True)
    before = backbone.norm.running_mean.clone()
    set_training(backbone, mode=mode)
    backbone(_pictures())
    assert torch.equal(backbone.norm.running_mean, before)
    set_training(backbone, mode="full")
    backbone(_pictures())
    assert not torch.equal(backbone.norm.running_mean, before)


@pytest.mark.parametrize("family", ["vit", "dinov2", "clip"])
def test_lora_finds_the_matrices_of_transformers_networks(family: str) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 16, "patch_size": 8}
    if family == "vit":
        network = transformers.ViTModel(transformers.ViTConfig(**sizes, intermediate_size=32))
    elif family == "dinov2":
        network = transformers.Dinov2Model(transformers.Dinov2Config(**sizes, mlp_ratio=2))
    else:
        network = transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**sizes, intermediate_size=32))
    wrapped = _Wrapped(network)
    prepare(wrapped, mode="lora", rank=2, alpha=2)
    adapted = [name for name, module in wrapped.named_modules() if parametrize.is_parametrized(module)]
    assert len(adapted) == 2 * 5, adapted  # queries, keys, values and two of the feed-forward, of two blocks
    network(pixel_values=torch.randn(1, 3, 16, 16)).last_hidden_state.pow(2).sum().backward()
    ups = [parameter for name, parameter in wrapped.named_parameters() if name.endswith(".up")]
    assert all(up.grad is not None for up in ups)
    assert sum(float(up.grad.abs().sum()) > 0 for up in ups) >= 8


class _Wrapped(_Convolution):
    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network


def test_lora_adapts_the_joint_matrix_of_torchs_own_attention() -> None:
    network = nn.MultiheadAttention(8, 2, batch_first=True)
    wrapped = _Wrapped(network)
    tokens = torch.randn(2, 5, 8)
    expected = network(tokens, tokens, tokens)[0]
    prepare(wrapped, mode="lora", rank=2, alpha=2)
    torch.testing.assert_close(network(tokens, tokens, tokens)[0], expected)
    network(tokens, tokens, tokens)[0].pow(2).sum().backward()
    (up,) = (parameter for name, parameter in wrapped.named_parameters() if name.endswith(".up"))
    assert up.grad is not None
    assert up.grad.abs().sum() > 0
