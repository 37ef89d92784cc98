"""Convolutional networks as backbones: the last feature map, and its mean in place of a CLS token.

In: `torchvision:NAME[@WEIGHTS]` or `torchxrayvision:NAME`. Out: a `MapBackbone`.
"""

import logging
import re
from typing import Any

import torch
from torch import Tensor, nn

from dinov2.errors import WeightsError
from dinov2.eval.backbones.backbone import Backbone, Tokens, Traits
from dinov2.eval.backbones.fingerprint import fingerprint_of
from dinov2.eval.backbones.structure import Parts, check_request
from dinov2.models.libraries import library_errors, library_part
from dinov2.models.processor import Three

log = logging.getLogger(__name__)

TORCHVISION, XRAYVISION = "torchvision:", "torchxrayvision:"
TRIAL_PX = 128  # a multiple of every network's stride
# Old files of DenseNet have a dot that modules may not have any more.
OLD_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.\w+)$")
# torchxrayvision's pictures go from -1024 to 1024; of pictures in 0..1 that is this mean and deviation.
XRAY_MEAN, XRAY_STD = (0.5,) * 3, (0.5 / 1024,) * 3
XRAY_SIZE = re.compile(r"res(\d+)")


class MapBackbone(Backbone):
    """A network from pictures to a feature map [B, D, h, w]; its places are the patches."""

    def __init__(self, features: nn.Module, *, traits: Traits, grey: bool = False) -> None:
        super().__init__()
        self.features = features
        self.traits = traits
        self.grey = grey  # takes one channel: the mean of three
        self.eval()

    def layers(self, pictures: Tensor, n: int) -> list[Tokens]:
        """See `Backbone.layers`; there is one block."""
        check_request(pictures, n=n, traits=self.traits)
        found: Tensor = self.features(pictures.mean(dim=1, keepdim=True) if self.grey else pictures)
        patches = found.flatten(2).transpose(1, 2)  # [B, N, D]
        return [Tokens(cls=patches.mean(dim=1), patches=patches, grid=(found.shape[2], found.shape[3]))]

    def parts(self) -> Parts:
        """Raises ValueError: a convolutional network has no list of blocks."""
        raise ValueError(
            f"{self.traits.name}: a convolutional network has no blocks to give learning rates of their own. "
            "Use one rate for all of it."
        )


def map_backbone(
    features: nn.Module, *, name: str, family: str, mean: Three, std: Three, input_size: int, grey: bool = False
) -> MapBackbone:
    """Width and stride are found by putting one empty picture through.  Raises WeightsError where that fails."""
    features.float().eval()
    with torch.no_grad(), library_errors(name, hint="Is it a network of feature maps?"):
        found = features(torch.zeros(1, 1 if grey else 3, TRIAL_PX, TRIAL_PX))
    if found.ndim != 4 or TRIAL_PX % found.shape[-1]:
        raise WeightsError(
            f"{name}: gives {list(found.shape)} for a picture of {TRIAL_PX} pixels; expected [1, D, h, w] whose places "
            "are a whole number of pixels apart. Choose another network."
        )
    stride = TRIAL_PX // found.shape[-1]
    traits = Traits(
        name=name,
        family=family,
        embed_dim=found.shape[1],
        depth=1,
        patch_size=stride,
        mean=mean,
        std=std,
        input_size=input_size,
        size_step=stride,
        fixed_size=False,
        fingerprint=fingerprint_of(features.state_dict(), family=family),
    )
    return MapBackbone(features, traits=traits, grey=grey)


def features_of(network: Any, *, name: str) -> nn.Module:
    """What a classifier of torchvision has before its pooling.  Raises WeightsError where that is not known."""
    if isinstance(getattr(network, "layer4", None), nn.Module):  # ResNet and its kin
        stem = (network.conv1, network.bn1, network.relu, network.maxpool)
        return nn.Sequential(*stem, network.layer1, network.layer2, network.layer3, network.layer4)
    features = getattr(network, "features", None)
    if not isinstance(features, nn.Module):
        raise WeightsError(
            f"{name}: {type(network).__name__} has no feature map that is known here; there are resnet152, vgg19, "
            "densenet201 and their kin. A vision transformer: timm:NAME"
        )
    is_dense = any(key.startswith("denseblock") for key, _ in features.named_children())
    return nn.Sequential(features, nn.ReLU()) if is_dense else features


def open_torchvision(name: str) -> MapBackbone:
    """`torchvision:resnet152`, or `torchvision:resnet152@IMAGENET1K_V1` for weights that are not the default.

    Raises WeightsError, also where torchvision cannot be loaded.
    """
    arch, _, tag = name.removeprefix(TORCHVISION).partition("@")
    models = library_part("torchvision", "models", wanted_by=name)
    with library_errors(name, hint="Names: torchvision.models.list_models(). Is there a network to fetch it over?"):
        every = models.get_model_weights(arch)
        weights = every[tag] if tag else every.DEFAULT
        state = weights.get_state_dict(check_hash=True, map_location="cpu", weights_only=True)
        network = models.get_model(arch, weights=None)
        network.load_state_dict({OLD_DENSENET.sub(r"\1\2", key): value for key, value in state.items()}, strict=True)
        recipe = weights.transforms()
        mean, std, size = tuple(recipe.mean), tuple(recipe.std), int(recipe.crop_size[0])
    return map_backbone(features_of(network, name=name), name=name, family=arch, mean=mean, std=std, input_size=size)


def open_xrayvision(name: str) -> MapBackbone:
    """`torchxrayvision:densenet121-res224-all` and the like; the library reads its own files, which are pickles.

    Raises WeightsError, also where torchxrayvision cannot be loaded.
    """
    arch = name.removeprefix(XRAYVISION)
    get_model = library_part("torchxrayvision", "models", "get_model", wanted_by=name)
    log.warning(
        "%s: torchxrayvision opens its files as whole pickles, which can run code; they come from its makers", name
    )
    with library_errors(name, hint="Names: torchxrayvision.models.model_urls. Is there a network to fetch it over?"):
        network = get_model(arch)
    size = XRAY_SIZE.search(arch)
    inner = getattr(network, "model", network)  # its ResNet holds torchvision's
    return map_backbone(
        features_of(inner, name=name),
        name=name,
        family=arch.partition("-")[0],
        mean=XRAY_MEAN,
        std=XRAY_STD,
        input_size=int(size[1]) if size else 224,
        grey=True,
    )
