"""A vision transformer of DINOv2 by the name a user gives.

In: a path, or a hub id `owner/name`. Out: an `Opened`.

What can be opened: a folder of `dinov2 export` (with its card, or the weights alone), a run of `dinov2 train` (its
newest export, else its newest checkpoint), one checkpoint, a Hugging Face folder of DINOv2 (whole or in several files,
RAD-DINO's with its head beside), a folder of timm's DINOv2, a file per rank of the public trainer, a file of weights.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from dinov2.backbone_card import CARD_NAME, BackboneCard, read_card
from dinov2.checkpoint.export import BACKBONE_FILE, build_from_card, card_of_run
from dinov2.checkpoint.files import FACTS
from dinov2.errors import CheckpointError, WeightsError
from dinov2.formats.opened import IMAGENET_MEAN, IMAGENET_STD, Opened, three
from dinov2.layers.block import LAYER_NORM_EPS
from dinov2.models.architecture import PLAIN_MODE, REGISTERS_MODE, architecture_of
from dinov2.models.files import SUFFIXES
from dinov2.models.folders import CONFIG, TRANSFORMERS_MODELS, model_files
from dinov2.models.hub import local_place
from dinov2.models.processor import FILE, Processor, read_json, read_processor
from dinov2.models.vision_transformer import DinoVisionTransformer
from dinov2.models.weights import Weights, load_part, read_weights
from dinov2.ssl.networks import backbone_of

log = logging.getLogger(__name__)

NOT_OF_THE_BACKBONE = ("head.*", "fc.*", "classifier.*", "linear_head.*")
POSSIBLE = """One of
  a folder that `dinov2 export` or `dinov2 import` wrote, a run folder of `dinov2 train`, or RUN/checkpoints/STEP
  a .pth or .safetensors of DINOv2's backbone, or a folder of the public trainer's files per rank
  a Hugging Face folder or hub id OWNER/NAME of DINOv2, with or without registers; timm's folder of it"""
TIMM_MODE = REGISTERS_MODE  # timm resamples all tables so


def open_vit(name: str | Path, *, revision: str | None = None) -> Opened:
    """The vision transformer that `name` says; `revision` is that of a hub id.

    Raises:
        WeightsError: there is none of that name (the message lists what can be said), or it cannot be read.
    """
    path = local_place(name, revision=revision)
    return _open_folder(path) if path.is_dir() else _open_file(path)


def load_backbone(name: str | Path, *, revision: str | None = None) -> DinoVisionTransformer:
    """The network alone, on the CPU in float32 and evaluation mode; see `open_vit`.  Raises WeightsError."""
    return open_vit(name, revision=revision).vit


def is_ours(path: Path) -> bool:
    """Whether a folder is an export with its card, a run, or a checkpoint of this package."""
    return _has_card(path) or any((path / entry).exists() for entry in (FACTS, "exports", "checkpoints"))


def open_ours(path: Path) -> Opened:
    """An exported folder; a run (its newest export, else its newest checkpoint); a checkpoint.  Raises WeightsError."""
    if _has_card(path):
        return open_with_card(read_weights(path))
    exports = [entry for entry in path.glob("exports/*") if entry.name.isdigit() and _has_card(entry)]
    if exports:
        newest = max(exports, key=lambda entry: int(entry.name))
        log.info("%s: its newest export is %s", path, newest)
        return open_with_card(read_weights(newest))
    # Reading checkpoints takes torch's distributed packages, seconds of them; a folder of weights does without.
    from dinov2.checkpoint.from_checkpoint import load_teacher
    from dinov2.checkpoint.reading import find_checkpoint

    try:
        checkpoint = find_checkpoint(path)
        saved = load_teacher(checkpoint)
    except CheckpointError as error:
        raise WeightsError(f"{path}: holds no export and no whole checkpoint. {error}") from error
    log.info("%s: the teacher of %s", path, checkpoint)
    card = card_of_run(saved.config, saved.parts, facts=saved.facts)
    vit = backbone_of(saved.parts)
    vit.requires_grad_(True)  # a teacher's are off; those of an export are on
    return _with_card(vit, card=card, place=checkpoint)


def open_state(
    state: dict[str, Tensor], *, path: Path, num_heads: int | None = None, mode: Mapping[str, Any] | None = None
) -> Opened:
    """What the file `path` holds; mean, deviation and size of a `preprocessor_config.json` beside it, else ImageNet's.

    The size is otherwise the one its position table was trained at (518 for the public models). `mode` is how the
    position table is resampled where that is not the public models' way. Raises WeightsError.
    """
    arguments = architecture_of(state, source=str(path), num_heads=num_heads) | dict(mode or {})
    vit = DinoVisionTransformer(**arguments)
    load_part(vit, state, source=str(path), allow_unexpected=NOT_OF_THE_BACKBONE)
    folder = path if path.is_dir() else path.parent
    said = processor_beside(folder)
    if said.size_px:
        log.info("%s: mean, deviation and size as %s says", path, folder / FILE)
    patch = vit.patch_embed.patch_size[0]
    size = said.size_px if said.size_px and said.size_px % patch == 0 else vit.patch_embed.img_size[0]
    short_side = said.short_side_px if size == said.size_px else None
    return Opened(
        vit=vit.eval(), place=path, mean=said.mean, std=said.std, input_size=size, card=None, short_side=short_side
    )


def open_dinov2_folder(folder: Path) -> Opened:
    """A Hugging Face folder of model_type `dinov2` or `dinov2_with_registers`, without transformers; or timm's.

    The position table is resampled as that library does it, so the features are those of the folder's own library; a
    folder that holds our card is opened as the card says. Raises WeightsError.
    """
    weights = read_weights(folder)
    state = weights.part("backbone")
    if (folder / CARD_NAME).is_file():
        return open_with_card(weights)
    config = read_json(folder / CONFIG)
    if is_timm(config) and "pos_embed" not in state:
        raise WeightsError(
            f"{folder}: {config.get('architecture')} has rotary positions and no table of them, so this network cannot "
            "compute what it does. To start a training from it: "
            f"dinov2 import --weights {folder} --allow-missing pos_embed --output-dir FOLDER"
        )
    opened = open_state(state, path=folder, num_heads=config.get("num_attention_heads"), mode=mode_of(config, state))
    return replace(opened, place=folder)


def open_with_card(weights: Weights) -> Opened:
    """Weights whose folder holds our card.  Raises WeightsError where the two disagree, showing both sides."""
    folder = weights.path if weights.path.is_dir() else weights.path.parent
    card = read_card(folder)
    vit = build_from_card(card, folder=folder)
    try:
        report = load_part(vit, weights.part("backbone"), source=str(folder), grid=weights.grid)
    except WeightsError as error:
        raise WeightsError(f"{folder}: its card and its weights disagree. {error}") from error
    differing = (*report.resized, *report.missing)
    if differing:
        raise WeightsError(f"{folder}: its card and its weights disagree: {', '.join(differing)}. Export it again.")
    return _with_card(vit.eval(), card=card, place=folder)


def mode_of(config: Mapping[str, Any], state: Mapping[str, Tensor]) -> dict[str, Any]:
    """How the library of a folder's `config.json` resamples the position table."""
    if is_timm(config):
        return TIMM_MODE
    return {} if "register_tokens" in state else PLAIN_MODE


def is_timm(config: Mapping[str, Any]) -> bool:
    """Whether a `config.json` is timm's."""
    return "model_type" not in config and "architecture" in config


def processor_beside(folder: Path) -> Processor:
    """Mean, deviation and side that a folder says of its pictures, in Hugging Face's files or timm's; else ImageNet's.

    Raises WeightsError where the file cannot be understood.
    """
    said = read_processor(folder, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    config = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    if not is_timm(config):
        return said
    recipe = config.get("pretrained_cfg") or {}
    try:
        size = recipe.get("input_size")
        return Processor(
            mean=three(tuple(recipe.get("mean", IMAGENET_MEAN))),
            std=three(tuple(recipe.get("std", IMAGENET_STD))),
            size_px=int(size[-1]) if size else None,
        )
    except (TypeError, ValueError) as error:
        raise WeightsError(f"{folder / CONFIG}: its pretrained_cfg cannot be understood ({error}).") from error


def fits_our_network(config: Mapping[str, Any], folder: Path) -> bool:
    """Whether our own network computes what a Hugging Face folder of DINOv2 does."""
    ours = config.get("hidden_act", "gelu") == "gelu" and config.get("layer_norm_eps", LAYER_NORM_EPS) == LAYER_NORM_EPS
    return ours and bool(model_files(folder))


def _open_folder(folder: Path) -> Opened:
    if is_ours(folder):
        return open_ours(folder)
    if not (folder / CONFIG).is_file():
        return _open_weights(read_weights(folder))
    said = read_json(folder / CONFIG)
    of_transformers = said.get("model_type") in TRANSFORMERS_MODELS and fits_our_network(said, folder)
    if not of_transformers and not is_timm(said):
        raise WeightsError(
            f"{folder}: model_type {said.get('model_type')!r} of its config.json, or another activation or norm than "
            f"{' and '.join(TRANSFORMERS_MODELS)} have, or no weights.\n{POSSIBLE}"
        )
    return open_dinov2_folder(folder)


def _open_file(path: Path) -> Opened:
    if path.name == BACKBONE_FILE and _has_card(path.parent):
        return open_with_card(read_weights(path.parent))
    if path.suffix not in SUFFIXES:
        raise WeightsError(f"{path}: not a file of weights.\n{POSSIBLE}")
    return _open_weights(read_weights(path))


def _open_weights(weights: Weights) -> Opened:
    """What lies in one place without a configuration."""
    path = weights.path
    alone = weights.files[0] if path.is_dir() and len(weights.files) == 1 else path
    return open_state(weights.part("backbone"), path=alone)


def _has_card(folder: Path) -> bool:
    return (folder / CARD_NAME).is_file() and (folder / BACKBONE_FILE).is_file()


def _with_card(vit: DinoVisionTransformer, *, card: BackboneCard, place: Path) -> Opened:
    return Opened(
        vit=vit,
        place=place,
        mean=three(card.mean),
        std=three(card.std),
        input_size=card.resolution_px,
        card=card,
        short_side=card.short_side_px,
    )
