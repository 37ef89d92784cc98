"""What `torch.hub.load` gives: the public architectures by their public names, and linear classifiers on them.

In: the words of `torch.hub.load(REPOSITORY, "dinov2_vitb14", source="local", pretrained=...)`. Out: a
`DinoVisionTransformer`; a `LinearClassifier`.

Legend: B pictures, C channels, D width, K outputs.
"""

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dinov2.errors import WeightsError
from dinov2.formats.linear_heads import LinearHead, random_head, read_linear_head
from dinov2.formats.opening import open_vit
from dinov2.formats.sources import card_of_weights
from dinov2.models.architecture import OLD_MODE, REGISTERS_MODE
from dinov2.models.registry import ARCHITECTURES
from dinov2.models.vision_transformer import SIZES, DinoVisionTransformer
from dinov2.models.weights import load_part

log = logging.getLogger(__name__)

PUBLIC_WEIGHTS = ("LVD142M", "IMAGENET1K")  # names that the public entry points take
LETTERS = {"vit_small": "s", "vit_base": "b", "vit_large": "l", "vit_giant2": "g"}
PATCH, REGISTERS = 14, 4
IMAGENET_CLASSES = 1000
DEFAULT_LAYERS = 4
Pretrained = bool | str | Path | None
Head = str | Path | None


class LinearClassifier(nn.Module):
    """One linear map of the last blocks' tokens.

    It sees the CLS tokens of the last `layers` blocks and, if `pooled`, the mean patch token of the last one. `classes`
    are the names of the outputs where the head's file says them.
    """

    def __init__(self, *, backbone: DinoVisionTransformer, head: LinearHead) -> None:
        super().__init__()
        self.backbone = backbone
        self.linear_head = head.linear
        self.layers = head.layers
        self.pooled = head.pooled
        self.classes = head.classes

    def forward(self, x: Tensor) -> Tensor:
        """Logits.  [B, C, rows, columns] -> [B, K]"""
        blocks = self.backbone.get_intermediate_layers(x, self.layers, return_class_token=True)
        tokens = [cls for _, cls in blocks] + ([blocks[-1][0].mean(dim=1)] if self.pooled else [])
        logits: Tensor = self.linear_head(torch.cat(tokens, dim=1))
        return logits


def hub_backbone(
    arch: str, *, registers: bool, pretrained: Pretrained = None, weights: object = None, **arguments: Any
) -> DinoVisionTransformer:
    """A public architecture with random weights, or with those of `pretrained`, loaded strictly.

    Args:
        arch: `vit_small`, `vit_base`, `vit_large`, `vit_giant2`.
        pretrained: what `dinov2.load_backbone` opens; False for random weights; None for random weights and a warning.
        weights: another word for it, as later public code has; names of public weights (`LVD142M`) mean nothing here.
        arguments: of `DinoVisionTransformer`; they go before what is known of the weights, which are resized.

    Raises:
        WeightsError: `pretrained=True`, no weights of that name, or weights of another architecture.
    """
    name = _entry(arch, registers=registers)
    start = starting_point(pretrained, weights, entry=name)
    if start is not None:
        return _opened(start, arch=arch, registers=registers, arguments=arguments)
    if pretrained is None:
        log.warning(
            "%s has random weights, for none are shipped: give pretrained=PATH_OR_NAME, load a state dict into it, or "
            "say pretrained=False.",
            name,
        )
    public = {
        "img_size": 518,
        "patch_size": PATCH,
        "init_values": 1.0,
        "block_chunks": 0,
        "ffn_layer": "swiglufused" if arch == "vit_giant2" else "mlp",
        "num_register_tokens": REGISTERS if registers else 0,
        **(REGISTERS_MODE if registers else OLD_MODE),
    }
    return ARCHITECTURES[arch](**(public | arguments))


def hub_classifier(
    arch: str,
    *,
    registers: bool,
    pretrained: Pretrained = None,
    weights: object = None,
    layers: int | None = None,
    head: Head = None,
    **arguments: Any,
) -> LinearClassifier:
    """A backbone of `hub_backbone` under a linear head, which is random with 1000 outputs where no `head` is given.

    Args:
        layers: blocks whose CLS tokens the head sees; by default what the head's file says, else 4.
        head: a public `dinov2_*_linear_head.pth`, or the `head.safetensors` of `dinov2 eval linear`.

    Raises:
        WeightsError: see `hub_backbone`; or a head that does not fit the backbone or `layers`.
    """
    backbone = hub_backbone(arch, registers=registers, pretrained=pretrained, weights=weights, **arguments)
    if head is not None:
        return LinearClassifier(
            backbone=backbone, head=read_linear_head(Path(head), width=backbone.embed_dim, layers=layers)
        )
    if pretrained is not False:
        log.warning("%s_lc: the linear head has random weights; give head=PATH.", _entry(arch, registers=registers))
    untrained = random_head(width=backbone.embed_dim, layers=layers or DEFAULT_LAYERS, outputs=IMAGENET_CLASSES)
    return LinearClassifier(backbone=backbone, head=untrained)


def starting_point(pretrained: Pretrained, weights: object, *, entry: str) -> str | Path | None:
    """What to open; None for random weights.  Raises WeightsError where the two words contradict each other.

    `weights` may be a member of the public enumerations, whose name then counts.
    """
    named = getattr(weights, "name", weights) if not isinstance(weights, Path) else weights
    given = None if named is None or named in PUBLIC_WEIGHTS else named
    if given is not None and not isinstance(given, (str, Path)):
        raise WeightsError(f"{entry}: weights={weights!r} is no path and no name. Give pretrained=PATH_OR_NAME.")
    if isinstance(pretrained, (str, Path)):
        if given is not None:
            raise WeightsError(f"{entry}: pretrained={pretrained} and weights={given}. Give one of the two.")
        return pretrained
    if given is not None:
        if pretrained is False:
            raise WeightsError(f"{entry}: pretrained=False and weights={given}. Give one of the two.")
        return given
    if pretrained:
        raise WeightsError(
            f"{entry}: pretrained=True, but no weights are shipped with this repository. Give pretrained= a folder of "
            "`dinov2 export`, a .pth or .safetensors file, or a hub id OWNER/NAME; or pretrained=False for random ones."
        )
    return None


def _opened(start: str | Path, *, arch: str, registers: bool, arguments: dict[str, Any]) -> DinoVisionTransformer:
    """The network that lies there, if it is of this architecture; built anew where the user's arguments differ."""
    opened = open_vit(start)
    _check_architecture(opened.vit, start=start, arch=arch, registers=registers)
    log.info("%s: %s", _entry(arch, registers=registers), opened.place)
    if not arguments:
        return opened.vit.train()  # as a network is that was just built
    card = opened.card or card_of_weights(opened, said={})
    vit = ARCHITECTURES[card.arch](**(card.architecture | arguments))
    report = load_part(vit, opened.vit.state_dict(), source=str(start))
    log.info("%s", report.summary())
    return vit


def _check_architecture(vit: DinoVisionTransformer, *, start: str | Path, arch: str, registers: bool) -> None:
    size = SIZES[arch]
    wanted = (size["embed_dim"], size["depth"], size["num_heads"], PATCH, REGISTERS if registers else 0)
    found = (vit.embed_dim, vit.n_blocks, vit.num_heads, vit.patch_embed.patch_size[0], vit.num_register_tokens)
    if found == wanted:
        return
    others = (
        _entry(other, registers=has)
        for other, its in SIZES.items()
        for has in (False, True)
        if found == (its["embed_dim"], its["depth"], its["num_heads"], PATCH, REGISTERS if has else 0)
    )
    instead = next((f"torch.hub's {other}" for other in others), "dinov2.load_backbone")
    width, depth, heads, patch, num_registers = found
    raise WeightsError(
        f"{start}: holds a vision transformer of width {width}, {depth} blocks, {heads} heads, patch {patch} and "
        f"{num_registers} registers, not {_entry(arch, registers=registers)}. Open it with {instead}."
    )


def _entry(arch: str, *, registers: bool) -> str:
    """dinov2_vitb14_reg"""
    return f"dinov2_vit{LETTERS[arch]}{PATCH}{'_reg' * registers}"
