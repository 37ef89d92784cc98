"""Vision models of transformers as backbones.

In: a Hugging Face folder whose `config.json` names a family below. Out: a `TransformersBackbone`.

Legend: B pictures, N patches on a grid h x w, R registers, D width.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dinov2.errors import WeightsError
from dinov2.eval.backbones.backbone import Backbone, Tokens, Traits
from dinov2.eval.backbones.fingerprint import fingerprint_of
from dinov2.eval.backbones.structure import Parts, check_request, ordered_parts
from dinov2.formats.opened import IMAGENET_MEAN, IMAGENET_STD
from dinov2.models.libraries import library_errors, library_part, quiet_transformers
from dinov2.models.processor import Three, read_json, read_processor

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
HALVES = (0.5, 0.5, 0.5)
# Releases of transformers keep blocks and the final norm in different places.
BLOCKS = (
    *("layers", "layer", "model.layer", "encoder.layer", "encoder.layers"),
    *("vision_encoder.layers", "vision_model.encoder.layers"),
)
NORMS = ("layernorm", "norm", "post_layernorm", "vision_model.post_layernorm")
INCOMPLETE = "Is the folder whole, and of this family? Download it again."


@dataclass(frozen=True, kw_only=True)
class Family:
    """How one family of transformers is opened and run."""

    name: str
    model: str  # class of transformers
    mean: Three = IMAGENET_MEAN  # where the folder says none
    std: Three = IMAGENET_STD
    options: Mapping[str, Any] = field(default_factory=dict)  # for opening
    resamples: bool = False  # its positions are resampled when asked to
    fixed_size: bool = False
    has_cls: bool = True
    has_norm: bool = True


DINOV2 = ("dinov2", "dinov2_with_registers")
_CLIP = Family(name="clip", model="CLIPVisionModel", mean=CLIP_MEAN, std=CLIP_STD, resamples=True)
_SAM = Family(name="sam", model="SamVisionModel", fixed_size=True, has_cls=False, has_norm=False)
FAMILIES = {
    "vit": Family(
        name="vit",
        model="ViTModel",
        mean=HALVES,
        std=HALVES,
        options={"add_pooling_layer": False},
        resamples=True,
    ),
    # All patches are seen: the share that is hidden in pretraining is 0 here.
    "vit_mae": Family(name="mae", model="ViTMAEModel", options={"mask_ratio": 0.0}, resamples=True),
    "vit_msn": Family(name="msn", model="ViTMSNModel", resamples=True),
    "clip": _CLIP,
    "clip_vision_model": _CLIP,
    "sam": _SAM,
    "sam_vision_model": _SAM,
    "dinov3_vit": Family(name="dinov3", model="DINOv3ViTModel"),
    "dinov2": Family(name="dinov2", model="Dinov2Model"),
    "dinov2_with_registers": Family(name="dinov2", model="Dinov2WithRegistersModel"),
}


class TransformersBackbone(Backbone):
    """A vision transformer of transformers; what each block returns is caught on its way."""

    def __init__(self, network: nn.Module, *, family: Family, traits: Traits, num_registers: int) -> None:
        super().__init__()
        self.network = network
        self.family = family
        self.traits = traits
        self.num_registers = num_registers
        # Places, not modules: a module held twice would be in the state dict twice.
        self._blocks_at = _place_of(network, BLOCKS)
        self._norm_at = _place_of(network, NORMS) if family.has_norm else None
        if len(self._blocks()) != traits.depth:
            raise WeightsError(f"{traits.name}: {len(self._blocks())} blocks, its config.json says {traits.depth}.")
        self.eval()

    def layers(self, pictures: Tensor, n: int) -> list[Tokens]:
        """See `Backbone.layers`. SAM has no norm before its neck, and no CLS: the mean of its patches is in its place.

        CLIP's final norm is `post_layernorm`, here over patches too.
        """
        check_request(pictures, n=n, traits=self.traits)
        patch = self.traits.size_step
        grid = pictures.shape[-2] // patch, pictures.shape[-1] // patch
        with _caught(self._blocks()[-n:]) as found:
            self.network(pixel_values=pictures, **self._call(len(pictures), grid=grid, device=pictures.device))
        return [self._tokens(output, grid=grid) for output in found]

    def _call(self, num_pictures: int, *, grid: tuple[int, int], device: torch.device) -> dict[str, Any]:
        call: dict[str, Any] = {"interpolate_pos_encoding": True} if self.family.resamples else {}
        if self.family.name == "mae":
            # MAE sorts patches by this noise even where it hides none; ascending noise keeps them in their order.
            noise = torch.arange(grid[0] * grid[1], device=device, dtype=torch.float32)
            call["noise"] = noise.expand(num_pictures, -1)
        return call

    def _tokens(self, output: Tensor, *, grid: tuple[int, int]) -> Tokens:
        if self._norm_at is not None:
            output = self.network.get_submodule(self._norm_at)(output)
        if not self.family.has_cls:
            patches = output.flatten(1, 2)  # [B, h, w, D] -> [B, N, D]
            return Tokens(cls=patches.mean(dim=1), patches=patches, grid=grid)
        return Tokens(cls=output[:, 0], patches=output[:, 1 + self.num_registers :], grid=grid)

    def parts(self) -> Parts:
        """See `Backbone.parts`."""
        norms = [] if self._norm_at is None else [self.network.get_submodule(self._norm_at)]
        return ordered_parts(self, blocks=self._blocks(), norms=norms)

    def _blocks(self) -> list[nn.Module]:
        return list(self.network.get_submodule(self._blocks_at).children())


def open_transformers_folder(folder: Path, *, name: str) -> TransformersBackbone:
    """A folder of one of `FAMILIES`.  Raises WeightsError, also where transformers cannot be loaded."""
    model_type = read_json(folder / "config.json").get("model_type")
    if model_type not in FAMILIES:
        raise WeightsError(
            f"{folder}: model_type is {model_type!r} in its config.json; there are {', '.join(FAMILIES)}."
        )
    family = FAMILIES[model_type]
    network = load_model(folder, model=family.model, options=family.options)
    if family.name == "sam":
        network.vision_encoder.neck = nn.Identity()  # features are those of the blocks
    return wrap(network, family=family, folder=folder, name=name)


def load_model(folder: Path, *, model: str, options: Mapping[str, Any]) -> Any:
    """A model of transformers with every weight out of the folder, in float32; no code of the folder is run.

    Raises WeightsError, naming weights that the folder lacks: transformers would draw them at random.
    """
    opened = library_part("transformers", model, wanted_by=str(folder))
    with quiet_transformers(), library_errors(str(folder), hint=INCOMPLETE):
        network, said = opened.from_pretrained(
            folder,
            local_files_only=True,
            trust_remote_code=False,
            weights_only=True,
            output_loading_info=True,
            **options,
        )
    absent = sorted([*said["missing_keys"], *(str(entry) for entry in said.get("mismatched_keys", ()))])
    if absent:
        raise WeightsError(f"{folder}: {len(absent)} weights of {model} are not in it, first {absent[0]}. {INCOMPLETE}")
    return network.float().eval()


def wrap(network: Any, *, family: Family, folder: Path, name: str) -> TransformersBackbone:
    """A model of one of `FAMILIES` as a backbone; mean, deviation and size as the folder says."""
    config = network.config
    said = read_processor(folder, mean=family.mean, std=family.std)
    patch, own_size = _one_side(config.patch_size, name=name), _one_side(config.image_size, name=name)
    size = own_size if family.fixed_size or not said.size_px or said.size_px % patch else said.size_px
    registers = int(getattr(config, "num_register_tokens", 0) or 0)
    if config.num_channels != 3:
        raise WeightsError(f"{name}: takes {config.num_channels} channels; probes give three.")
    traits = Traits(
        name=name,
        family=family.name,
        embed_dim=config.hidden_size,
        depth=config.num_hidden_layers,
        patch_size=patch,
        mean=said.mean,
        std=said.std,
        input_size=size,
        size_step=patch,
        fixed_size=family.fixed_size,
        fingerprint=fingerprint_of(
            network.state_dict(),
            model=family.model,
            heads=config.num_attention_heads,
            activation=str(config.hidden_act),
            eps=str(config.layer_norm_eps),
            others=[str(getattr(config, name, "")) for name in ("rope_theta", "window_size", "global_attn_indexes")],
        ),
    )
    return TransformersBackbone(network, family=family, traits=traits, num_registers=registers)


def _place_of(network: nn.Module, places: tuple[str, ...]) -> str:
    """The first of `places` that the network has.  Raises WeightsError where it has none."""
    known = {name for name, _ in network.named_modules()}
    for place in places:
        if place in known:
            return place
    raise WeightsError(
        f"{type(network).__name__}: nothing at {', '.join(places)}; this release of transformers keeps it elsewhere. "
        "Releases 4.57 and 5.23 are known: pip install 'transformers>=4.57,<=5.23'"
    )


def _one_side(size: Any, *, name: str) -> int:
    sides = {int(side) for side in size} if isinstance(size, list | tuple) else {int(size)}
    if len(sides) != 1:
        raise WeightsError(f"{name}: its patches or pictures are not square ({size}).")
    return sides.pop()


@contextmanager
def _caught(blocks: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """What each of the blocks returns while this lasts, in order."""
    found: list[Tensor] = []

    def catch(_block: nn.Module, _given: Any, output: Any) -> None:
        found.append(output[0] if isinstance(output, tuple) else output)

    hooks = [block.register_forward_hook(catch) for block in blocks]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
