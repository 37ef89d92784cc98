"""A backbone in the form that transformers' DINOv2 has: same function, its configuration, its tensors.

In: a `Source`. Out: a `Fitted`: the network that is written, its card, `config.json` and `preprocessor_config.json`.

transformers' two classes always have LayerScale and biases behind the matrices of a block, three channels (its image
processor gives three), square pictures and patches, and a feed-forward that a whole `mlp_ratio` describes. What can be
brought there without changing the function is; the rest is refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dinov2.backbone_card import BackboneCard
from dinov2.checkpoint.export import build_from_card
from dinov2.errors import WeightsError
from dinov2.formats.opened import three
from dinov2.formats.source import Dtype, Source
from dinov2.layers.block import LAYER_NORM_EPS
from dinov2.layers.swiglu import swiglu_width
from dinov2.models.architecture import PLAIN_MODE, REGISTERS_MODE
from dinov2.models.vision_transformer import DinoVisionTransformer

CHANNELS = 3
LARGEST_RATIO = 64
CANNOT = "transformers cannot express this backbone"
ELSEWHERE = "Export it with --format dinov2 or onnx."


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """What is written, and what was done to the source for it."""

    backbone: DinoVisionTransformer  # on the CPU, float32, evaluation mode; values that the dtype holds
    card: BackboneCard  # of that network
    config: dict[str, Any]  # config.json
    changes: tuple[str, ...]  # a sentence each

    @property
    def model_class(self) -> str:
        """What transformers calls it."""
        return str(self.config["architectures"][0])


def fit(source: Source, *, dtype: Dtype) -> Fitted:
    """The network that transformers' class computes the same with, its values rounded to `dtype`.

    Raises:
        WeightsError: transformers cannot express the architecture, or `dtype` cannot hold a value.
    """
    config = transformers_config(source.backbone, dtype=dtype)
    card, changes = _fitted_card(source.card)
    with torch.device("meta"):  # no initial weights are drawn
        backbone = build_from_card(card, folder=Path(source.origin or "the source"))
    state = _fitted_state(source.backbone.state_dict(), into=backbone.state_dict(), dtype=dtype)
    backbone.load_state_dict(state, strict=True, assign=True)
    return Fitted(backbone=backbone.eval().requires_grad_(False), card=card, config=config, changes=changes)


def transformers_mode(backbone: DinoVisionTransformer) -> dict[str, Any]:
    """How transformers' class of this network resamples the position table; arguments of our network."""
    return REGISTERS_MODE if backbone.num_register_tokens else PLAIN_MODE


def transformers_config(vit: DinoVisionTransformer, *, dtype: Dtype) -> dict[str, Any]:
    """`config.json`; transformers 5 checks the type of every value, and tells 4 and 4.0 apart.

    Raises:
        WeightsError: it cannot describe the architecture.
    """
    state = vit.state_dict()
    registers = vit.num_register_tokens
    name = "Dinov2WithRegistersModel" if registers else "Dinov2Model"
    particular = {"num_register_tokens": registers} if registers else {"use_mask_token": True}
    depth = vit.n_blocks
    return {
        "architectures": [name],
        "model_type": "dinov2_with_registers" if registers else "dinov2",
        "hidden_size": vit.embed_dim,
        "num_hidden_layers": depth,
        "num_attention_heads": vit.num_heads,
        "mlp_ratio": _whole_ratio(state, width=vit.embed_dim),
        "use_swiglu_ffn": "blocks.0.mlp.w12.weight" in state,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "drop_path_rate": 0.0,
        "initializer_range": 0.02,
        "layer_norm_eps": LAYER_NORM_EPS,
        "layerscale_value": 1.0,
        "image_size": _side(vit.patch_embed.img_size, "pictures"),
        "patch_size": _side(vit.patch_embed.patch_size, "patches"),
        "num_channels": _channels(vit.patch_embed.in_chans),
        "qkv_bias": "blocks.0.attn.qkv.bias" in state,
        "apply_layernorm": True,
        "reshape_hidden_states": True,
        "out_features": [f"stage{depth}"],
        "out_indices": [depth],
        "stage_names": ["stem", *(f"stage{i}" for i in range(1, depth + 1))],
        "dtype": dtype,
        **particular,
    }


def processor_config(card: BackboneCard) -> dict[str, Any]:
    """`preprocessor_config.json`: shortest side resized, a square of the training's resolution cut out, normalised."""
    side = card.resolution_px
    return {
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": card.short_side_px or side},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": side, "width": side},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(three(card.mean)),
        "image_std": list(three(card.std)),
    }


def _whole_ratio(state: Mapping[str, Tensor], *, width: int) -> int:
    """The `mlp_ratio` that gives transformers' feed-forward the hidden size of this one.  Raises WeightsError."""
    is_gated = "blocks.0.mlp.w12.weight" in state
    matrix = state.get("blocks.0.mlp.w12.weight" if is_gated else "blocks.0.mlp.fc1.weight")
    if matrix is None:
        raise WeightsError(
            f"{CANNOT}: its blocks have no feed-forward (ffn_layer: identity), which the library's always have. "
            f"{ELSEWHERE}"
        )
    hidden = len(matrix) // 2 if is_gated else len(matrix)
    for ratio in range(1, LARGEST_RATIO + 1):
        if hidden == (swiglu_width(width * ratio) if is_gated else width * ratio):
            return ratio
    formula = "two thirds of a whole multiple, rounded up to 8," if is_gated else "a whole multiple"
    raise WeightsError(
        f"{CANNOT}: the hidden size {hidden} of its feed-forward is not {formula} of its width {width}, and the "
        f"library's configuration describes no other. {ELSEWHERE}"
    )


def _side(sides: tuple[int, int], what: str) -> int:
    if sides[0] != sides[1]:
        raise WeightsError(
            f"{CANNOT}: its {what} are {sides[0]} x {sides[1]} pixels, the library's are squares. {ELSEWHERE}"
        )
    return sides[0]


def _channels(given: int) -> int:
    if given not in (1, CHANNELS):
        raise WeightsError(
            f"{CANNOT}: it takes {given} channels, and the library's image processor gives {CHANNELS}. {ELSEWHERE}"
        )
    return CHANNELS


def _fitted_card(card: BackboneCard) -> tuple[BackboneCard, tuple[str, ...]]:
    """The card of the network that is written, and what makes it another than the source's."""
    changes = []
    before = card.architecture
    wanted = {"init_values": before.get("init_values") or 1.0, "proj_bias": True, "ffn_bias": True}
    if not before.get("init_values"):
        changes.append("The network has no LayerScale; factors of one are written.")
    if not (before.get("proj_bias", True) and before.get("ffn_bias", True)):
        changes.append("The network lacks biases that transformers always has; zeros are written.")
    if card.in_chans == 1:
        changes.append(
            "The network was trained on one channel; its patch map is spread evenly over three, so a grey picture in "
            "three channels gives the same features."
        )
    fitted = replace(
        card,
        architecture=dict(before) | wanted | {"in_chans": CHANNELS},
        in_chans=CHANNELS,
        mean=three(card.mean),
        std=three(card.std),
    )
    return fitted, tuple(changes)


def _fitted_state(state: Mapping[str, Tensor], *, into: Mapping[str, Tensor], dtype: Dtype) -> dict[str, Tensor]:
    """Tensors for every name of `into`: the source's, or what leaves its function as it is."""
    torch_dtype = getattr(torch, dtype)
    fitted = {}
    for name, target in into.items():
        if name in state:
            value = state[name].detach().float()
        else:
            value = torch.full(target.shape, 1.0 if name.endswith(".gamma") else 0.0)
        value = value.to(torch_dtype).float().contiguous()
        is_grey = name == "patch_embed.proj.weight" and value.shape[1] == 1
        fitted[name] = _spread(value, dtype=torch_dtype) if is_grey else value
    lost = [name for name, value in fitted.items() if not bool(value.isfinite().all())]
    if lost:
        raise WeightsError(
            f"{', '.join(lost[:3])}: not all values are finite in {dtype}. "
            + ("The weights are broken." if dtype == "float32" else "Give --dtype bfloat16 or float32.")
        )
    return fitted


def _spread(weight: Tensor, *, dtype: torch.dtype) -> Tensor:
    """Thirds that `dtype` holds, and whose sum is the very weight again.  [D, 1, p, p] -> [D, 3, p, p]"""
    third = (weight / CHANNELS).to(dtype).float()
    return torch.cat([third, third, weight - 2 * third], dim=1)
