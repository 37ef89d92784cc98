"""Models of timm as backbones.

In: `timm:NAME`, for example `timm:vit_base_patch16_224.augreg_in21k`, `timm:local-dir:FOLDER` or
`timm:hf-hub:OWNER/NAME`. Out: a `TimmBackbone`, or a `MapBackbone`.
"""

import inspect
from typing import Any

from torch import Tensor, nn

from dinov2.eval.backbones.backbone import Backbone, Tokens, Traits
from dinov2.eval.backbones.feature_maps import map_backbone
from dinov2.eval.backbones.fingerprint import fingerprint_of
from dinov2.eval.backbones.structure import Parts, check_request, ordered_parts
from dinov2.models.libraries import library_errors, library_part

TIMM = "timm:"
HINT = "Names: timm.list_models('*vit*', pretrained=True). Is there a network to fetch it over?"


class TimmBackbone(Backbone):
    """A vision transformer of timm that gives its blocks' tokens."""

    def __init__(self, network: Any, *, traits: Traits) -> None:
        super().__init__()
        self.network = network
        self.traits = traits
        self.eval()

    def layers(self, pictures: Tensor, n: int) -> list[Tokens]:
        """See `Backbone.layers`; a network without a CLS token has the mean of its patches in its place."""
        check_request(pictures, n=n, traits=self.traits)
        step = self.traits.size_step
        grid = pictures.shape[-2] // step, pictures.shape[-1] // step
        found = self.network.forward_intermediates(
            pictures, indices=n, return_prefix_tokens=True, norm=True, output_fmt="NLC", intermediates_only=True
        )
        layers = []
        for entry in found:
            patches, prefix = entry if isinstance(entry, tuple) else (entry, None)
            has_cls = prefix is not None and getattr(self.network, "cls_token", None) is not None
            layers.append(Tokens(cls=prefix[:, 0] if has_cls else patches.mean(dim=1), patches=patches, grid=grid))
        return layers

    def parts(self) -> Parts:
        """See `Backbone.parts`."""
        norms = [norm for norm in (getattr(self.network, "norm", None),) if isinstance(norm, nn.Module)]
        return ordered_parts(self, blocks=list(self.network.blocks), norms=norms)


class _Features(nn.Module):
    """A network's own `forward_features`, as a module."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, pictures: Tensor) -> Tensor:
        found: Tensor = self.network.forward_features(pictures)
        return found


def open_timm(name: str) -> Backbone:
    """The pretrained model of that name.  Raises WeightsError, also where timm cannot be loaded."""
    create_model = library_part("timm", "create_model", wanted_by=name)
    model = name.removeprefix(TIMM)
    with library_errors(name, hint=HINT):
        try:
            network = create_model(model, pretrained=True, num_classes=0, dynamic_img_size=True)
            any_size = True
        except TypeError:  # not a vision transformer that resamples its positions
            network = create_model(model, pretrained=True, num_classes=0)
            any_size = False
        recipe = dict(getattr(network, "pretrained_cfg", None) or network.default_cfg)
        mean, std, size = tuple(recipe["mean"]), tuple(recipe["std"]), int(recipe["input_size"][-1])
    network = network.float().eval()
    family = str(recipe.get("architecture") or model.partition(".")[0])
    if not _gives_tokens(network):
        return map_backbone(_Features(network), name=name, family=family, mean=mean, std=std, input_size=size)
    patch = int(network.patch_embed.patch_size[0])
    traits = Traits(
        name=name,
        family=family,
        embed_dim=network.embed_dim,
        depth=len(network.blocks),
        patch_size=patch,
        mean=mean,
        std=std,
        input_size=size,
        size_step=patch,
        fixed_size=not any_size,
        fingerprint=fingerprint_of(network.state_dict(), model=family),
    )
    return TimmBackbone(network, traits=traits)


def _gives_tokens(network: Any) -> bool:
    """Whether it is a plain vision transformer: its intermediates tell patches from the tokens before them."""
    intermediates = getattr(network, "forward_intermediates", None)
    return (
        intermediates is not None
        and "return_prefix_tokens" in inspect.signature(intermediates).parameters
        and all(hasattr(network, part) for part in ("blocks", "patch_embed"))
    )
