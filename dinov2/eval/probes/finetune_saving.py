"""What was tuned leaves as safetensors, and comes back.

In: a backbone, what a fit learnt, a folder. Out: `tuned.safetensors` (what the mode can change) with the mode and the
network it belongs to in its header; of a head or decoder `head.safetensors`; of a whole vision transformer of this
package also `backbone/`, which `--backbone` takes.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dinov2.backbone_card import CARD_NAME
from dinov2.checkpoint.export import BACKBONE_FILE
from dinov2.errors import WeightsError
from dinov2.eval.backbones import Backbone
from dinov2.eval.backbones.ours import DinoBackbone
from dinov2.eval.probes.adapters import ALPHA, RANK, Mode, merge, prepare, restore

TUNED_NAME, HEAD_NAME, BACKBONE_FOLDER = "tuned.safetensors", "head.safetensors", "backbone"


def save_tuned(
    folder: Path,
    *,
    backbone: Backbone,
    tuned: Mapping[str, Tensor],
    head: Mapping[str, Tensor],
    mode: Mode,
    rank: int = RANK,
    alpha: float = ALPHA,
) -> list[Path]:
    """Writes what was learnt; with low-rank additions the network itself is merged at the end.  -> files and folders"""
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / HEAD_NAME]
    save_file(_plain(head), written[0], metadata={"format": "pt"})
    if not tuned:
        return written
    about = {
        "format": "pt",
        "mode": mode,
        "rank": str(rank),
        "alpha": str(alpha),
        "backbone": backbone.traits.name,
        "fingerprint": backbone.traits.fingerprint,
    }
    restore(backbone, tuned)
    if mode == "full" and isinstance(backbone, DinoBackbone):
        return [*written, _whole(backbone, folder)]  # the same numbers, in the form that opens as a backbone
    save_file(_plain(tuned), folder / TUNED_NAME, metadata=about)
    written.append(folder / TUNED_NAME)
    if isinstance(backbone, DinoBackbone):
        merge(backbone)
        written.append(_whole(backbone, folder))
    return written


def load_tuned(backbone: Backbone, path: Path) -> Mode:
    """Puts what `save_tuned` wrote into a backbone of the same weights as it was tuned from.  -> its mode

    Raises WeightsError where the file is none of these, or is of another backbone.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary
        mode: Mode = about["mode"]
        rank, alpha = int(about["rank"]), float(about["alpha"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise WeightsError(f"{path}: not what `dinov2 eval finetune` or `segment` wrote ({error}).") from error
    if about["fingerprint"] != backbone.traits.fingerprint:
        raise WeightsError(
            f"{path}: was tuned from {about['backbone']}, whose weights are not those of {backbone.traits.name}."
        )
    prepare(backbone, mode=mode, rank=rank, alpha=alpha)
    restore(backbone, tensors)
    return mode


def _whole(backbone: DinoBackbone, folder: Path) -> Path:
    """The transformer under its public names; with the card of the folder that it came from, if it came from one."""
    target = folder / BACKBONE_FOLDER
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    save_file(_plain(backbone.vit.state_dict()), target / BACKBONE_FILE, metadata={"format": "pt"})
    card = Path(backbone.traits.name) / CARD_NAME
    if not card.is_file():
        return target / BACKBONE_FILE
    shutil.copyfile(card, target / CARD_NAME)
    return target


def _plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: value.detach().to("cpu", torch.float32 if value.is_floating_point() else value.dtype).contiguous()
        for name, value in state.items()
    }
