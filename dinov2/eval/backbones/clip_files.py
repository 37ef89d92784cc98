"""ViT checkpoints of open_clip without open_clip: names, shapes and what its configuration file adds.

In: `open_clip_pytorch_model.bin` or `.safetensors` (or another file with its names) and the `open_clip_config.json`
beside it. Out: `ClipTowers` filled, and a `ClipConfig`.
"""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dinov2.errors import WeightsError
from dinov2.eval.backbones.clip_towers import ClipTowers, PictureTower, TextTower, TowerShape
from dinov2.eval.backbones.transformers_models import CLIP_MEAN, CLIP_STD
from dinov2.models.position_table import square_grid
from dinov2.models.processor import Three, read_json

log = logging.getLogger(__name__)

CONFIG = "open_clip_config.json"
FILES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
)
MARK = "visual.conv1.weight"
# Heads are in no tensor: 64 wide, but in open_clip's larger picture towers (ViT-H, ViT-g, ViT-bigG).
HEAD_WIDTH = 64
HEAD_WIDTH_BY_WIDTH = {1280: 80, 1408: 88, 1664: 104}
# What a configuration may say of a tower: what tensors say too, and what changes nothing in evaluation.
KNOWN = {
    *("image_size", "layers", "width", "patch_size", "head_width", "mlp_ratio", "patch_dropout"),
    *("context_length", "vocab_size", "heads"),
}
# Other settings must say what these towers do.
AS_HERE: dict[str, tuple[Any, ...]] = {
    "ls_init_value": (None,),
    "attentional_pool": (False, None),
    "no_ln_pre": (False,),
    "pos_embed_type": ("learnable",),
    "final_ln_after_pool": (False,),
    "pool_type": ("tok", "argmax"),
    "global_average_pool": (False,),
    "output_tokens": (False,),
    "embed_cls": (False,),
    "pad_id": (0,),
    "no_causal_mask": (False,),
    "proj_type": ("linear",),
    "proj_bias": (False,),
    "input_patchnorm": (False,),
    "act_kwargs": (None, {}),
    "norm_kwargs": (None, {}),
    "hf_tokenizer_name": (None,),
}
RENAMED = (
    (re.compile(r"^visual\.conv1\."), "visual.patch_embed."),
    (re.compile(r"^visual\.class_embedding$"), "visual.cls_token"),
    (re.compile(r"(^|\.)positional_embedding$"), r"\1pos_embed"),
    (re.compile(r"\.ln_pre\."), ".norm_pre."),
    (re.compile(r"\.(ln_post|ln_final)\."), ".norm."),
    (re.compile(r"\.text_projection$"), ".proj"),
    (re.compile(r"\.transformer\.resblocks\."), ".blocks."),
    (re.compile(r"\.ln_([12])\."), r".norm\1."),
    (re.compile(r"\.attn\.in_proj_(weight|bias)$"), r".attn.qkv.\1"),
    (re.compile(r"\.attn\.out_proj\."), ".attn.proj."),
    (re.compile(r"\.mlp\.c_fc\."), ".mlp.fc1."),
    (re.compile(r"\.mlp\.c_proj\."), ".mlp.fc2."),
)
UNUSED = {"logit_bias", "attn_mask", "text.attn_mask", "input_resolution", "context_length", "vocab_size"}


@dataclass(frozen=True, kw_only=True)
class ClipConfig:
    """What is in no tensor."""

    quick_gelu: bool
    vision_heads: int | None
    text_heads: int | None
    mean: Three
    std: Three


def clip_file(folder: Path) -> Path | None:
    """The open_clip weights in a folder, or None."""
    return next((folder / name for name in FILES if (folder / name).is_file()), None)


def is_clip_state(state: Mapping[str, Tensor]) -> bool:
    """Whether these are open_clip's names of a ViT."""
    return MARK in state


def towers_in_file(state: Mapping[str, Tensor], *, path: Path) -> tuple[ClipTowers, ClipConfig]:
    """The towers of what the file `path` holds, filled strictly, in float32; the configuration lies beside it.

    Raises WeightsError where it is no ViT checkpoint of open_clip, or its configuration asks for what is not here.
    """
    config = read_clip_config(path.parent / CONFIG)
    return towers_of(state, config=config, source=str(path)), config


def read_clip_config(path: Path) -> ClipConfig:
    """The configuration file beside a checkpoint; without one, plain GELU and OpenAI's mean and deviation."""
    if not path.is_file():
        log.warning("%s is not there: plain GELU and OpenAI's mean and deviation are assumed", path)
        return ClipConfig(quick_gelu=False, vision_heads=None, text_heads=None, mean=CLIP_MEAN, std=CLIP_STD)
    said = read_json(path)
    model, pictures = said.get("model_cfg", said), said.get("preprocess_cfg", {})
    vision, text = model.get("vision_cfg", {}), model.get("text_cfg", {})
    _refuse_unknown(vision, where=f"{path}: model_cfg.vision_cfg")
    _refuse_unknown(text, where=f"{path}: model_cfg.text_cfg")
    heads = None
    if "head_width" in vision and isinstance(vision.get("width"), int):
        heads = vision["width"] // vision["head_width"]
    return ClipConfig(
        quick_gelu=bool(model.get("quick_gelu", False)),
        vision_heads=heads,
        text_heads=text.get("heads"),
        mean=_three(pictures.get("mean"), CLIP_MEAN),
        std=_three(pictures.get("std"), CLIP_STD),
    )


def _refuse_unknown(section: Mapping[str, Any], *, where: str) -> None:
    """Raises WeightsError for a setting that changes the numbers in a way that these towers do not follow."""
    for key, value in section.items():
        if key in KNOWN or value in AS_HERE.get(key, ()):
            continue
        raise WeightsError(
            f"{where}.{key} is {value!r}: only plain ViT towers load without open_clip. "
            "pip install open_clip_torch, and name it open_clip:MODEL@PRETRAINED"
        )


def _three(values: Any, otherwise: Three) -> Three:
    return (float(values[0]), float(values[1]), float(values[2])) if values else otherwise


def towers_of(state: Mapping[str, Tensor], *, config: ClipConfig, source: str) -> ClipTowers:
    """Towers whose shapes are those of the tensors, filled.  Raises WeightsError."""
    if not is_clip_state(state):
        raise WeightsError(f"{source}: no ViT checkpoint of open_clip (it has no {MARK}).")
    ours = _our_names(state)
    try:
        grid = square_grid(ours["visual.pos_embed"].shape[0] - 1)
        patch = ours["visual.patch_embed.weight"].shape[-1]
        vision = _shape(ours, tower="visual", heads=config.vision_heads, quick=config.quick_gelu)
        text = _shape(ours, tower="text", heads=config.text_heads, quick=config.quick_gelu)
        if grid is None:
            raise WeightsError(f"{source}: its position table is not of a square picture.")
        towers = ClipTowers(
            PictureTower(vision, patch_size=patch, grid=grid, embed_dim=ours["visual.proj"].shape[1]),
            TextTower(
                text,
                vocabulary=ours["text.token_embedding.weight"].shape[0],
                context=ours["text.pos_embed"].shape[0],
                embed_dim=ours["text.proj"].shape[1],
            ),
        )
        towers.load_state_dict(ours, strict=True)
    except (KeyError, RuntimeError, IndexError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise WeightsError(f"{source}: its tensors are not those of plain ViT towers ({reason}).") from error
    return towers.to(torch.float32).eval()


def _our_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The text tower's tensors lie at the top, or under `text.` in newer checkpoints."""
    ours: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name in UNUSED:
            continue
        placed = name if name.startswith(("visual.", "text.")) or name == "logit_scale" else f"text.{name}"
        for pattern, new in RENAMED:
            placed = pattern.sub(new, placed)
        ours[placed] = tensor.reshape(()) if placed == "logit_scale" else tensor
    return ours


def _shape(ours: Mapping[str, Tensor], *, tower: str, heads: int | None, quick: bool) -> TowerShape:
    prefix = f"{tower}.blocks."
    hidden, width = ours[f"{prefix}0.mlp.fc1.weight"].shape
    head_width = HEAD_WIDTH_BY_WIDTH.get(width, HEAD_WIDTH) if tower == "visual" else HEAD_WIDTH
    chosen = heads or max(width // head_width, 1)
    if width % chosen:
        raise WeightsError(f"{tower} tower: {chosen} heads do not divide its width of {width}.")
    depth = 1 + max(int(name.removeprefix(prefix).split(".")[0]) for name in ours if name.startswith(prefix))
    return TowerShape(width=width, depth=depth, heads=chosen, hidden=hidden, quick_gelu=quick)
