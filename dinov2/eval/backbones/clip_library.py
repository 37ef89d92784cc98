"""Names of open_clip, by the library itself.

In: `open_clip:MODEL[@PRETRAINED]` or `open_clip:hf-hub:OWNER/NAME`. Out: its ViT towers, computed by ours.
"""

from typing import Any

from dinov2.errors import WeightsError
from dinov2.eval.backbones.clip import ClipBackbone, OpenClipPair, pair_of, picture_backbone
from dinov2.eval.backbones.clip_files import ClipConfig, is_clip_state, towers_of
from dinov2.eval.backbones.clip_towers import ClipTowers
from dinov2.eval.backbones.tokenizer import ClipTokenizer, find_any_vocabulary
from dinov2.eval.backbones.transformers_models import CLIP_MEAN, CLIP_STD
from dinov2.models.libraries import library_errors, library_part

OPEN_CLIP = "open_clip:"


def open_clip_name(name: str) -> ClipBackbone:
    """The picture tower.  Raises WeightsError, also where open_clip cannot be loaded or the model is no plain ViT."""
    towers, config = _opened(name)
    return picture_backbone(towers.visual, config=config, name=name)


def open_clip_name_pair(name: str) -> OpenClipPair:
    """Both towers, with CLIP's vocabulary.  Raises WeightsError as above."""
    towers, config = _opened(name)
    text = towers.text
    vocabulary = find_any_vocabulary(wanted_by=name)
    tokenizer = ClipTokenizer(vocabulary, context=text.context, vocabulary=text.vocabulary)
    return pair_of(towers, config=config, tokenizer=tokenizer, name=name)


def _opened(name: str) -> tuple[ClipTowers, ClipConfig]:
    model, _, tag = name.removeprefix(OPEN_CLIP).partition("@")
    create = library_part("open_clip", "create_model_from_pretrained", wanted_by=name)
    if not tag and not model.startswith(("hf-hub:", "local-dir:")):
        raise WeightsError(
            f"{name}: which weights? Say {OPEN_CLIP}{model}@PRETRAINED; open_clip.list_pretrained() has the names."
        )
    with library_errors(name, hint="Names: open_clip.list_pretrained(). Is there a network to fetch it over?"):
        network, _ = create(model, pretrained=tag or None, precision="fp32")
    state = network.state_dict()
    if not is_clip_state(state):
        raise WeightsError(f"{name}: {type(network.visual).__name__} is no plain ViT; others are not known here.")
    return towers_of(state, config=_config_of(network), source=name), _config_of(network)


def _config_of(network: Any) -> ClipConfig:
    """What is in no tensor, off the modules themselves."""
    block = network.visual.transformer.resblocks[0]
    text = getattr(network, "text", network).transformer.resblocks[0]
    pictures = getattr(network.visual, "preprocess_cfg", None) or {}
    return ClipConfig(
        quick_gelu=type(block.mlp.gelu).__name__ == "QuickGELU",
        vision_heads=int(block.attn.num_heads),
        text_heads=int(text.attn.num_heads),
        mean=tuple(pictures.get("mean", CLIP_MEAN)),
        std=tuple(pictures.get("std", CLIP_STD)),
    )
