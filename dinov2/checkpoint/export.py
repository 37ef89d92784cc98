"""A teacher leaves its run: safetensors under the public names, a card, and the proof that they say the same.

In: the teacher's parts and the run's configuration. Out: `backbone.safetensors`, `dino_head.safetensors`,
`ibot_head.safetensors` (where there is one) and `backbone_card.json`, read back and compared before the folder gets
its name.
"""

import copy
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from dinov2 import __version__
from dinov2.backbone_card import BackboneCard, read_card
from dinov2.checkpoint.files import PARTIAL, share_files
from dinov2.config.schema import Config
from dinov2.errors import CheckpointError, WeightsError
from dinov2.layers import DINOHead
from dinov2.layers.attention import use_attention
from dinov2.models.registry import ARCHITECTURES, architecture_arguments
from dinov2.models.vision_transformer import DinoVisionTransformer
from dinov2.ssl.networks import backbone_of, needed_heads

BACKBONE_FILE = "backbone.safetensors"
LARGEST_DIFFERENCE = 1e-5


def card_of_run(
    config: Config, teacher: Mapping[str, nn.Module], *, facts: Mapping[str, Any], more: Mapping[str, Any] = {}
) -> BackboneCard:
    """The card of a run's teacher or student from the facts of a checkpoint, or the same facts of the run under way.

    So an export during the run and one made of its checkpoint later say the same. Facts of an older version, which
    know less, give a card that says less. `more` goes into its provenance.
    """
    about = dict(facts.get("about") or {})
    preprocessing = about.pop("preprocessing", None) or {}
    seen = {"pictures_seen": facts["position"]} if "position" in facts else {}
    named = {name: facts[name] for name in ("global_batch", "precision") if name in facts}
    provenance = about | seen | named | dict(more)
    return make_card(config, teacher, step=facts["step"], provenance=provenance, preprocessing=preprocessing)


def make_card(
    config: Config,
    teacher: Mapping[str, nn.Module],
    *,
    step: int,
    provenance: Mapping[str, Any],
    preprocessing: Mapping[str, Any] = {},
) -> BackboneCard:
    """The card of a run's teacher at a step."""
    architecture = architecture_arguments(config.student, img_size=config.crops.global_crops_size)
    heads = {
        name: {
            "in_dim": backbone_of(teacher).embed_dim,
            "out_dim": section.head_n_prototypes,
            "nlayers": section.head_nlayers,
            "hidden_dim": section.head_hidden_dim,
            "bottleneck_dim": section.head_bottleneck_dim,
        }
        for name, section in needed_heads(dino=config.dino, ibot=config.ibot).items()
    }
    return BackboneCard(
        arch=config.student.arch,
        architecture=architecture,
        resolution_px=config.crops.global_crops_size,
        in_chans=config.student.in_chans,
        mean=config.data.mean,
        std=config.data.std,
        heads=heads,
        step=step,
        preprocessing=dict(preprocessing),
        provenance={"dinov2": __version__, "torch": torch.__version__, "config": asdict(config)} | dict(provenance),
    )


def export_teacher(teacher: Mapping[str, nn.Module], *, card: BackboneCard, folder: Path) -> Path:
    """Writes the parts of a teacher and reads them back.

    Raises CheckpointError where the folder cannot be written or what was read back computes something else.
    """
    partial = folder.with_name(f"{PARTIAL}{folder.name}")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        write_parts(teacher, card=card, folder=partial)
        check_export(teacher, partial)
        share_files(partial)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise CheckpointError(f"{folder}: the export could not be written ({error}).") from error
    return folder


def write_parts(
    parts: Mapping[str, nn.Module], *, card: BackboneCard, folder: Path, dtype: torch.dtype = torch.float32
) -> None:
    """One file per part, and the card, into a folder that is there; nothing is checked.

    Raises OSError and SafetensorError where they cannot be written.
    """
    for name, module in parts.items():
        tensors = {key: value.detach().to("cpu", dtype).contiguous() for key, value in module.state_dict().items()}
        save_file(tensors, folder / f"{name}.safetensors", metadata={"format": "pt"})
    card.write(folder)


@torch.no_grad()
def check_export(teacher: Mapping[str, nn.Module], folder: Path) -> float:
    """Largest difference between what the teacher and the files compute, on random pictures of two sizes.

    Both compute in float32 on the CPU, so equal weights and architecture give equal numbers.
    Raises CheckpointError above `LARGEST_DIFFERENCE`.
    """
    backbone, heads = load_exported(folder)
    source = {name: copy.deepcopy(module).to("cpu", torch.float32).eval() for name, module in teacher.items()}
    original = backbone_of(source)
    use_attention(original, "sdpa")  # the only kernel that every CPU has
    generator = torch.Generator().manual_seed(0)
    largest = 0.0
    for grid in (4, 6):
        side = grid * backbone.patch_embed.patch_size[0]
        pictures = torch.randn(2, backbone.patch_embed.in_chans, side, side, generator=generator)
        ours, theirs = (model.forward_features(pictures) for model in (backbone, original))
        pairs = [(ours[key], theirs[key]) for key in ("x_norm_clstoken", "x_norm_patchtokens")]
        pairs += [
            (head(ours["x_norm_clstoken"]), source[name](theirs["x_norm_clstoken"])) for name, head in heads.items()
        ]
        largest = max(largest, *(float((a - b).abs().max()) for a, b in pairs))
    if not largest <= LARGEST_DIFFERENCE:
        raise CheckpointError(
            f"{folder}: features of the files differ from the teacher's by {largest:g}; the export is not usable."
        )
    return largest


def load_exported(folder: Path) -> tuple[DinoVisionTransformer, dict[str, DINOHead]]:
    """Backbone and heads of an exported folder, in evaluation mode, loaded strictly.  Raises WeightsError."""
    card = read_card(folder)
    backbone = build_from_card(card, folder=folder)
    _load_strictly(backbone, folder / BACKBONE_FILE)
    heads = {}
    for name, arguments in card.heads.items():
        heads[name] = DINOHead(**arguments)
        _load_strictly(heads[name], folder / f"{name}.safetensors")
    return backbone.eval(), {name: head.eval() for name, head in heads.items()}


def build_from_card(card: BackboneCard, *, folder: Path) -> DinoVisionTransformer:
    """The network that a card of `folder` describes, with random weights.  Raises WeightsError."""
    try:
        return ARCHITECTURES[card.arch](**card.architecture)
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"{folder}: its card describes no architecture of this version ({card.arch}: {error})."
        ) from error


def _load_strictly(module: nn.Module, path: Path) -> None:
    try:
        module.load_state_dict(load_file(path), strict=True)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise WeightsError(f"{path}: does not fit its card ({error}).") from error
