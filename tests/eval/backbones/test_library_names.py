"""Names of libraries that are not installed here, against stand-ins with their public signatures."""

import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from dinov2.errors import WeightsError
from dinov2.eval.backbones import open_backbone
from dinov2.models.vision_transformer import DinoVisionTransformer
from tests.eval.backbones.small_models import clip_model, in_open_clip_names
from tests.eval.backbones.test_feature_maps import SmallResNet

Stand = Callable[..., ModuleType]


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Stand:
    def put(name: str, **parts: Any) -> ModuleType:
        module = ModuleType(name)
        module.__dict__.update(parts)
        monkeypatch.setitem(sys.modules, name, module)
        return module

    return put


@torch.no_grad()
def test_a_torchvision_name_takes_the_weights_their_mean_and_their_size(stand_in: Stand) -> None:
    torch.manual_seed(0)
    trained = SmallResNet().eval()
    asked: dict[str, Any] = {}

    class Weights:
        def get_state_dict(self, **words: Any) -> dict[str, Tensor]:
            asked.update(words)
            return trained.state_dict()

        def transforms(self) -> SimpleNamespace:
            return SimpleNamespace(mean=[0.1, 0.2, 0.3], std=[0.4, 0.5, 0.6], crop_size=[96])

    class Every(dict):
        DEFAULT = Weights()

    every = Every(IMAGENET1K_V1=Weights())
    models = SimpleNamespace(get_model_weights=lambda _: every, get_model=lambda _, weights: weights or SmallResNet())
    stand_in("torchvision", models=models)
    pictures = torch.randn(1, 3, 64, 64)
    for name in ("torchvision:resnet152", "torchvision:resnet152@IMAGENET1K_V1"):
        backbone = open_backbone(name)
        assert_close(backbone(pictures).cls, trained(pictures))
        assert (backbone.traits.mean, backbone.traits.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
        assert (backbone.traits.input_size, backbone.traits.family) == (96, "resnet152")
    assert asked["weights_only"] is True
    with pytest.raises(
        WeightsError, match=r"torchvision:resnet152@V9: cannot be opened .*torchvision\.models\.list_models"
    ):
        open_backbone("torchvision:resnet152@V9")


@torch.no_grad()
def test_a_torchxrayvision_name_gets_grey_pictures_of_the_size_in_its_name(stand_in: Stand) -> None:
    network = SimpleNamespace(features=nn.Sequential(nn.Conv2d(1, 4, 32, stride=32)))
    stand_in("torchxrayvision", models=SimpleNamespace(get_model=lambda _: network))
    backbone = open_backbone("torchxrayvision:resnet50-res512-all")
    assert backbone.traits.input_size == 512
    grey = torch.randn(1, 1, 64, 64)
    assert_close(
        backbone(grey.expand(-1, 3, -1, -1)).cls, network.features(grey).mean(dim=(2, 3)), atol=1e-5, rtol=1e-5
    )


class SmallTimm(nn.Module):
    """A vision transformer with the names and signatures of timm's."""

    def __init__(self, *, with_cls: bool) -> None:
        super().__init__()
        self.vit = DinoVisionTransformer(img_size=32, patch_size=8, embed_dim=32, depth=3, num_heads=2)
        self.blocks, self.norm, self.embed_dim = self.vit.blocks, self.vit.norm, 32
        self.cls_token = self.vit.cls_token if with_cls else None
        self.patch_embed = self.vit.patch_embed
        self.pretrained_cfg = {"mean": (0.5,) * 3, "std": (0.25,) * 3, "input_size": (3, 32, 32)}

    def forward_intermediates(
        self, x: Tensor, indices: int, return_prefix_tokens: bool, norm: bool, output_fmt: str, intermediates_only: bool
    ) -> list[tuple[Tensor, Tensor]]:
        assert return_prefix_tokens
        assert intermediates_only
        assert output_fmt == "NLC"
        found = self.vit.get_intermediate_layers(x, indices, return_class_token=True, norm=norm)
        return [(patches, cls[:, None]) for patches, cls in found]


@torch.no_grad()
@pytest.mark.parametrize("with_cls", [True, False])
def test_a_timm_transformer_gives_its_blocks_and_the_mean_where_it_has_no_cls(stand_in: Stand, with_cls: bool) -> None:
    network = SmallTimm(with_cls=with_cls).eval()
    stand_in("timm", create_model=lambda _, **__: network)
    backbone = open_backbone("timm:vit_small")
    pictures = torch.randn(2, 3, 32, 16)
    ((patches, cls),) = network.vit.get_intermediate_layers(pictures, 1, return_class_token=True)
    tokens = backbone.layers(pictures, 2)[-1]
    assert_close(tokens.patches, patches)
    assert_close(tokens.cls, cls if with_cls else patches.mean(dim=1))
    assert tokens.grid == (4, 2)
    assert backbone.traits.depth == 3
    names = [name for part in backbone.parts() for name, _ in part]
    assert sorted(names) == sorted(name for name, _ in backbone.named_parameters())


@torch.no_grad()
def test_a_timm_network_of_feature_maps_is_one_that_takes_no_dynamic_size(stand_in: Stand) -> None:
    class SmallMaps(nn.Conv2d):
        def __init__(self) -> None:
            super().__init__(3, 5, 16, stride=16)
            self.default_cfg = {"mean": (0.5,) * 3, "std": (0.25,) * 3, "input_size": (3, 64, 64)}

        def forward_features(self, x: Tensor) -> Tensor:
            return self(x)

    def create_model(name: str, pretrained: bool, num_classes: int) -> nn.Module:
        return SmallMaps()

    stand_in("timm", create_model=create_model)
    backbone = open_backbone("timm:resnet50")
    assert (backbone.traits.embed_dim, backbone.traits.patch_size, backbone.traits.input_size) == (5, 16, 64)


@torch.no_grad()
@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
def test_an_open_clip_name_is_computed_by_our_towers_with_the_models_activation(
    stand_in: Stand, activation: str
) -> None:
    model = clip_model(activation=activation)
    act = type("QuickGELU", (nn.Module,), {})() if activation == "quick_gelu" else nn.GELU()

    def tower(heads: int) -> SimpleNamespace:
        block = SimpleNamespace(mlp=SimpleNamespace(gelu=act), attn=SimpleNamespace(num_heads=heads))
        return SimpleNamespace(resblocks=[block])

    visual = SimpleNamespace(transformer=tower(2), preprocess_cfg={"mean": (0.1,) * 3, "std": (0.2,) * 3})
    state = in_open_clip_names(model)
    network = SimpleNamespace(visual=visual, transformer=tower(1), state_dict=lambda: state)
    stand_in("open_clip", create_model_from_pretrained=lambda _, **__: (network, None))
    backbone = open_backbone("open_clip:ViT-L-14@laion2b_s32b_b82k")
    pictures = torch.randn(2, 3, 32, 32)
    assert_close(backbone(pictures).cls, model.vision_model(pictures).pooler_output, atol=1e-5, rtol=1e-5)
    assert backbone.traits.mean == (0.1, 0.1, 0.1)
    del state["visual.conv1.weight"]
    with pytest.raises(WeightsError, match="is no plain ViT; others are not known here"):
        open_backbone("open_clip:convnext_base@laion400m")
