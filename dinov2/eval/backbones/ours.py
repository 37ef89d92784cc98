"""Vision transformers of this package as backbones, and weights that learnt nothing.

In: a `DinoVisionTransformer`, an `Opened`, or `random:ARCH[/PATCH][@SIZE]`. Out: a `DinoBackbone`.
"""

import re
from difflib import get_close_matches

import torch
from torch import Tensor

from dinov2.errors import WeightsError
from dinov2.eval.backbones.backbone import Backbone, Tokens, Traits
from dinov2.eval.backbones.fingerprint import fingerprint_of
from dinov2.eval.backbones.structure import Parts, check_request, ordered_parts
from dinov2.formats import Opened
from dinov2.formats.opened import IMAGENET_MEAN, IMAGENET_STD, three
from dinov2.models.vision_transformer import (
    DinoVisionTransformer,
    vit_base,
    vit_giant2,
    vit_large,
    vit_small,
)

RANDOM = "random:"
RANDOM_ARCHITECTURES = {
    "vit_small": vit_small,
    "vit_base": vit_base,
    "vit_large": vit_large,
    "vit_giant2": vit_giant2,
}
RANDOM_NAME = re.compile(r"(?P<arch>\w+?)(?:/(?P<patch>[1-9]\d*))?(?:@(?P<size>[1-9]\d*))?")
RANDOM_SEED = 0


class DinoBackbone(Backbone):
    """A `DinoVisionTransformer`. Where it takes one channel, it is given the mean of the three."""

    def __init__(self, vit: DinoVisionTransformer, *, traits: Traits) -> None:
        super().__init__()
        self.vit = vit
        self.traits = traits
        self.eval()

    def layers(self, pictures: Tensor, n: int) -> list[Tokens]:
        """See `Backbone.layers`; registers are left out."""
        check_request(pictures, n=n, traits=self.traits)
        if self.vit.patch_embed.in_chans == 1:
            pictures = pictures.mean(dim=1, keepdim=True)
        grid = self.vit.patch_embed.grid(pictures.shape[-2], pictures.shape[-1])
        found = self.vit.get_intermediate_layers(pictures, n, return_class_token=True)
        return [Tokens(cls=cls, patches=patches, grid=grid) for patches, cls in found]

    def parts(self) -> Parts:
        """See `Backbone.parts`."""
        return ordered_parts(self, blocks=list(self.vit.blocks), norms=[self.vit.norm])


def dino_traits(
    vit: DinoVisionTransformer,
    *,
    name: str,
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
    input_size: int | None = None,
    family: str = "dinov2",
) -> Traits:
    """What is fixed about a vision transformer of ours; the input size is that of its position table if not given.

    Raises WeightsError for one that pictures of one or three channels cannot be put to.
    """
    channels = vit.patch_embed.in_chans
    patch_rows, patch_columns = vit.patch_embed.patch_size
    if channels not in (1, 3) or patch_rows != patch_columns:
        raise WeightsError(
            f"{name}: takes {channels} channels in patches of {patch_rows} x {patch_columns} pixels; "
            "probes give one or three channels to square patches."
        )
    return Traits(
        name=name,
        family=family,
        embed_dim=vit.embed_dim,
        depth=vit.n_blocks,
        patch_size=patch_rows,
        mean=three(mean),
        std=three(std),
        input_size=input_size or vit.patch_embed.img_size[0],
        size_step=patch_rows,
        fixed_size=False,
        fingerprint=fingerprint_of(
            vit.state_dict(),
            heads=vit.num_heads,
            registers=vit.num_register_tokens,
            offset=vit.interpolate_offset,
            antialias=vit.interpolate_antialias,
        ),
    )


def as_backbone(opened: Opened, *, name: str) -> DinoBackbone:
    """What was opened, for probes.  Raises WeightsError as `dino_traits`."""
    traits = dino_traits(opened.vit, name=name, mean=opened.mean, std=opened.std, input_size=opened.input_size)
    return DinoBackbone(opened.vit, traits=traits)


def open_random(name: str) -> DinoBackbone:
    """`random:vit_small`, `random:vit_small/16@224`: initial weights, always the same; patch 14 where none is given.

    The size defaults to 16 x 16 patches. Raises WeightsError where the name says no architecture.
    """
    found = RANDOM_NAME.fullmatch(name.removeprefix(RANDOM))
    if found is None or found["arch"] not in RANDOM_ARCHITECTURES:
        asked = found["arch"] if found else name.removeprefix(RANDOM)
        nearest = get_close_matches(asked, RANDOM_ARCHITECTURES, n=1, cutoff=0.0)[0]
        raise WeightsError(
            f"{name}: did you mean {RANDOM}{nearest}? It is {RANDOM}ARCH[/PATCH][@SIZE], with one of "
            f"{', '.join(RANDOM_ARCHITECTURES)}; for example {RANDOM}vit_small/16@224."
        )
    patch = int(found["patch"] or 14)
    size = int(found["size"] or 16 * patch)
    if size % patch:
        raise WeightsError(f"{name}: a side of {size} pixels is no multiple of the patch of {patch}.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_SEED)
        vit = RANDOM_ARCHITECTURES[found["arch"]](patch_size=patch, img_size=size, init_values=1.0)
    return DinoBackbone(vit, traits=dino_traits(vit, name=name))
