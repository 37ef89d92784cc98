import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from dinov2.errors import WeightsError
from dinov2.eval.backbones.feature_maps import OLD_DENSENET, XRAY_MEAN, XRAY_STD, features_of, map_backbone


class SmallResNet(nn.Module):
    """The parts of torchvision's ResNet under its names."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu = nn.Conv2d(3, 8, 7, stride=2, padding=3), nn.BatchNorm2d(8), nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = nn.Conv2d(8, 8, 1)
        self.layer2, self.layer3, self.layer4 = (nn.Conv2d(8, 8, 3, stride=2, padding=1) for _ in range(3))
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.fc(self.avgpool(self.layer4(self.layer3(self.layer2(self.layer1(x))))).flatten(1))


class SmallDenseNet(nn.Module):
    """DenseNet's features end before the activation that its classifier applies."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential()
        self.features.add_module("conv0", nn.Conv2d(3, 6, 4, stride=4))
        self.features.add_module("denseblock1", nn.Conv2d(6, 6, 1))


def backbone_of(features: nn.Module, *, grey: bool = False):
    words = {"name": "torchvision:small", "family": "resnet", "mean": (0.5,) * 3, "std": (0.2,) * 3}
    return map_backbone(features, **words, input_size=96, grey=grey)


@torch.no_grad()
def test_the_mean_of_the_last_feature_map_is_the_networks_own_pooled_output() -> None:
    torch.manual_seed(0)
    network = SmallResNet().eval()
    backbone = backbone_of(features_of(network, name="small"))
    pictures = torch.randn(2, 3, 64, 96)
    tokens = backbone(pictures)
    assert_close(tokens.cls, network(pictures))
    assert tokens.grid == (2, 3)
    assert tokens.patches is not None
    assert tokens.patches.shape == (2, 6, 8)
    assert (backbone.traits.patch_size, backbone.traits.embed_dim, backbone.traits.depth) == (32, 8, 1)


@torch.no_grad()
def test_patches_of_a_feature_map_lie_row_by_row() -> None:
    backbone = backbone_of(nn.Conv2d(3, 3, 32, stride=32))
    pictures = torch.randn(1, 3, 64, 96)
    changed = pictures.clone()
    changed[:, :, 32:, 64:] += 1.0  # row 1, column 2
    moved = (backbone(changed).patches - backbone(pictures).patches).abs().amax(dim=(0, 2)) > 1e-6
    assert moved.nonzero().flatten().tolist() == [1 * 3 + 2]


@torch.no_grad()
def test_a_densenet_is_activated_before_it_is_pooled() -> None:
    network = SmallDenseNet().eval()
    tokens = backbone_of(features_of(network, name="small"))(torch.randn(1, 3, 32, 32))
    assert tokens.patches is not None
    assert tokens.patches.min() == 0.0


def test_names_of_old_densenet_files_become_those_of_the_module() -> None:
    old = "features.denseblock1.denselayer2.norm.1.running_mean"
    assert OLD_DENSENET.sub(r"\1\2", old) == "features.denseblock1.denselayer2.norm1.running_mean"
    assert OLD_DENSENET.sub(r"\1\2", "features.norm5.weight") == "features.norm5.weight"


@torch.no_grad()
def test_a_grey_film_reaches_a_torchxrayvision_network_from_minus_1024_to_1024() -> None:
    seen: list[Tensor] = []

    class Watch(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x)
            return x[:, :, ::32, ::32]

    backbone = backbone_of(Watch(), grey=True)
    film = torch.tensor([0.0, 0.5, 1.0, 0.25]).repeat_interleave(8).expand(1, 3, 32, 32)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (XRAY_MEAN, XRAY_STD))
    backbone((film - mean) / std)
    assert seen[-1].shape == (1, 1, 32, 32)
    assert seen[-1][0, 0, 0, ::8].tolist() == [-1024.0, 0.0, 1024.0, -512.0]


def test_convolutional_networks_have_no_parts_and_say_so() -> None:
    with pytest.raises(ValueError, match="no blocks to give learning rates of their own"):
        backbone_of(nn.Conv2d(3, 3, 32, stride=32)).parts()


def test_a_network_without_a_feature_map_is_refused() -> None:
    with pytest.raises(WeightsError, match="Linear has no feature map that is known here"):
        features_of(nn.Linear(2, 2), name="torchvision:small")
    with pytest.raises(WeightsError, match="for a picture of 128 pixels; expected"):
        backbone_of(nn.Flatten())
