"""A vision transformer of DINOv2 by the name a user gives.

In: a path, or a hub id `owner/name`. Out: an `Opened`.

What can be opened: a folder of `dinov2 export` (with its card, or the weights alone), a run of `dinov2 train` (its
newest export, else its newest checkpoint), one checkpoint, a Hugging Face folder of DINOv2, a file of weights.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from dinov2.backbone_card import CARD_NAME, BackboneCard, read_card
from dinov2.checkpoint.export import BACKBONE_FILE, build_from_card, load_exported, make_card
from dinov2.checkpoint.from_checkpoint import load_teacher
from dinov2.checkpoint.reading import FACTS, find_checkpoint
from dinov2.errors import CheckpointError, WeightsError
from dinov2.formats.opened import IMAGENET_MEAN, IMAGENET_STD, Opened, three
from dinov2.layers.block import LAYER_NORM_EPS
from dinov2.models.architecture import PLAIN_MODE, architecture_of
from dinov2.models.hub import hub_folder, hub_id
from dinov2.models.processor import FILE, read_json, read_processor
from dinov2.models.vision_transformer import DinoVisionTransformer
from dinov2.models.weights import PICKLES, TRANSFORMERS_MODELS, load_part, read_weights
from dinov2.ssl.networks import backbone_of

log = logging.getLogger(__name__)

NOT_OF_THE_BACKBONE = ("head.*", "fc.*", "classifier.*", "linear_head.*")
POSSIBLE = """One of
  a folder that `dinov2 export` or `dinov2 import` wrote, a run folder of `dinov2 train`, or RUN/checkpoints/STEP
  a .pth or .safetensors of DINOv2's backbone
  a Hugging Face folder or hub id OWNER/NAME of DINOv2, with or without registers"""


def open_vit(name: str | Path, *, revision: str | None = None) -> Opened:
    """The vision transformer that `name` says; `revision` is that of a hub id.

    Raises:
        WeightsError: there is none of that name (the message lists what can be said), or it cannot be read.
    """
    path = Path(name)
    if path.is_dir():
        return _open_folder(path)
    if path.is_file():
        return _open_file(path)
    found = hub_id(str(name))
    if found is None:
        raise WeightsError(f"{name}: no such folder or file, and no OWNER/NAME of a hub.\n{POSSIBLE}")
    return _open_folder(hub_folder(found, revision=revision))


def load_backbone(name: str | Path, *, revision: str | None = None) -> DinoVisionTransformer:
    """The network alone, on the CPU in float32 and evaluation mode; see `open_vit`.  Raises WeightsError."""
    return open_vit(name, revision=revision).vit


def is_ours(path: Path) -> bool:
    """Whether a folder is an export with its card, a run, or a checkpoint of this package."""
    return _has_card(path) or any((path / entry).exists() for entry in (FACTS, "exports", "checkpoints"))


def open_ours(path: Path) -> Opened:
    """An exported folder; a run (its newest export, else its newest checkpoint); a checkpoint.  Raises WeightsError."""
    if _has_card(path):
        return _open_with_card(path)
    exports = [entry for entry in path.glob("exports/*") if entry.name.isdigit() and _has_card(entry)]
    if exports:
        newest = max(exports, key=lambda entry: int(entry.name))
        log.info("%s: its newest export is %s", path, newest)
        return _open_with_card(newest)
    try:
        checkpoint = find_checkpoint(path)
        saved = load_teacher(checkpoint)
    except CheckpointError as error:
        raise WeightsError(f"{path}: holds no export and no whole checkpoint. {error}") from error
    log.info("%s: the teacher of %s", path, checkpoint)
    card = make_card(saved.config, saved.parts, step=saved.facts["step"], provenance={})
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
    load_part(vit, state, source=str(path), allow_missing=("mask_token",), allow_unexpected=NOT_OF_THE_BACKBONE)
    said = read_processor(path.parent, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    if said.size_px:
        log.info("%s: mean, deviation and size as %s says", path, path.parent / FILE)
    patch = vit.patch_embed.patch_size[0]
    size = said.size_px if said.size_px and said.size_px % patch == 0 else vit.patch_embed.img_size[0]
    return Opened(vit=vit.eval(), place=path, mean=said.mean, std=said.std, input_size=size, card=None)


def open_dinov2_folder(folder: Path) -> Opened:
    """A Hugging Face folder of model_type `dinov2` or `dinov2_with_registers`, without transformers.

    The position table is resampled as transformers does it, so the features are those of the folder's own library; a
    folder that holds our card is opened as the card says. Raises WeightsError.
    """
    file = weights_file(folder)
    if file is None:
        raise WeightsError(f"{folder}: no model.safetensors and no pytorch_model.bin in it. Download the folder again.")
    state = read_weights(file).part("backbone")
    if (folder / CARD_NAME).is_file():
        card = read_card(folder)
        vit = build_from_card(card, folder=folder)
        load_part(vit, state, source=str(file))
        return _with_card(vit.eval(), card=card, place=folder)
    config = read_json(folder / "config.json")
    mode = {} if "register_tokens" in state else PLAIN_MODE
    opened = open_state(state, path=file, num_heads=config.get("num_attention_heads"), mode=mode)
    return replace(opened, place=folder)


def fits_our_network(config: Mapping[str, Any], folder: Path) -> bool:
    """Whether a Hugging Face folder of DINOv2 is one file of weights that our own network computes the same with."""
    ours = config.get("hidden_act", "gelu") == "gelu" and config.get("layer_norm_eps", LAYER_NORM_EPS) == LAYER_NORM_EPS
    return ours and weights_file(folder) is not None


def weights_file(folder: Path) -> Path | None:
    """The one file of weights of a Hugging Face folder; None where they are in several, or none."""
    files = [folder / entry for entry in ("model.safetensors", "pytorch_model.bin")]
    return next((file for file in files if file.is_file()), None)


def _open_folder(folder: Path) -> Opened:
    if is_ours(folder):
        return open_ours(folder)
    if (folder / "config.json").is_file():
        said = read_json(folder / "config.json")
        if said.get("model_type") not in TRANSFORMERS_MODELS or not fits_our_network(said, folder):
            raise WeightsError(
                f"{folder}: model_type {said.get('model_type')!r} of its config.json, or another activation, norm or "
                f"split of its weights than {' and '.join(TRANSFORMERS_MODELS)} have.\n{POSSIBLE}"
            )
        return open_dinov2_folder(folder)
    if (folder / BACKBONE_FILE).is_file():
        return _open_file(folder / BACKBONE_FILE)
    raise WeightsError(f"{folder}: a folder, but of no vision transformer of DINOv2.\n{POSSIBLE}")


def _open_file(path: Path) -> Opened:
    if path.name == BACKBONE_FILE and _has_card(path.parent):
        return _open_with_card(path.parent)
    if path.suffix not in (".safetensors", *PICKLES):
        raise WeightsError(f"{path}: not a file of weights.\n{POSSIBLE}")
    return open_state(read_weights(path).part("backbone"), path=path)


def _has_card(folder: Path) -> bool:
    return (folder / CARD_NAME).is_file() and (folder / BACKBONE_FILE).is_file()


def _open_with_card(folder: Path) -> Opened:
    return _with_card(load_exported(folder)[0], card=read_card(folder), place=folder)


def _with_card(vit: DinoVisionTransformer, *, card: BackboneCard, place: Path) -> Opened:
    return Opened(
        vit=vit, place=place, mean=three(card.mean), std=three(card.std), input_size=card.resolution_px, card=card
    )
