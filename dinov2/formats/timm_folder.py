"""A backbone as timm has it: tensors under timm's names, and a `config.json` like those of timm's hub folders.

In: a `Source`. Out: `model.safetensors`, `config.json`, `backbone_card.json`, and `not_in_timm.safetensors` with what
timm has no place for; read back by timm and compared. `timm.create_model("local-dir:FOLDER", pretrained=True)` loads
it.
"""

import json
import logging
import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dinov2.backbone_card import BackboneCard
from dinov2.errors import WeightsError
from dinov2.formats.file_card import card_of_files
from dinov2.formats.source import Dtype, Source, Written
from dinov2.formats.timm_names import timm_architecture, to_timm
from dinov2.formats.writers import written_whole
from dinov2.models.architecture import REGISTERS_MODE
from dinov2.models.libraries import library_errors, library_part
from dinov2.models.timm_names import NOT_IN_TIMM
from dinov2.models.vision_transformer import DinoVisionTransformer

log = logging.getLogger(__name__)

WEIGHTS, CONFIG = "model.safetensors", "config.json"
LIMITS: dict[Dtype, float] = {"float32": 1e-5, "float16": 2e-2, "bfloat16": 2e-1}
"""The largest difference from our float32 features that is let pass at the table's size, of features of about 1."""


def write_timm(
    source: Source, folder: Path, *, dtype: Dtype = "float32", licence: str = "", with_heads: bool = False
) -> Written:
    """Writes the files and reads them back with timm; see `dinov2.formats.writers.Writer`.

    Raises WeightsError, also where timm has no such network, and for heads: timm's networks have none.
    """
    if with_heads:
        raise WeightsError("--format timm --include heads: timm has no projection heads. Use --format dinov2 for them.")
    vit = source.backbone
    architecture, arguments = timm_architecture(vit, source=source.origin or source.card.arch)
    if find_spec("timm"):
        library_part("torchvision", wanted_by="--format timm")  # what timm fails by where it is of another torch
    create = library_part("timm", "create_model", wanted_by="--format timm")
    card = card_of_files(source, heads=(), dtype=dtype, licence=licence)
    number = getattr(torch, dtype)  # before names: a sum is then that of the terms that are kept
    theirs, rest = to_timm({name: value.detach().to(number) for name, value in vit.state_dict().items()})
    config = _config(vit, card, architecture=architecture, arguments=arguments)
    with written_whole(folder) as partial:
        for name, tensors in ((WEIGHTS, theirs), (NOT_IN_TIMM, rest)):
            save_file(
                {key: tensor.contiguous() for key, tensor in tensors.items()}, partial / name, metadata={"format": "pt"}
            )
        (partial / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
        card.write(partial)
        checks = _read_back(partial, vit, create=create, dtype=dtype)
    load = f"import timm; print(timm.create_model({json.dumps(f'local-dir:{folder}')}, pretrained=True))"
    return Written(
        folder=folder,
        files=tuple(sorted(folder.iterdir())),
        checks=checks,
        next_step=f"python -c {shlex.quote(load)}",
    )


def _config(
    vit: DinoVisionTransformer, card: BackboneCard, *, architecture: str, arguments: dict[str, Any]
) -> dict[str, Any]:
    """What timm reads: the architecture, and how pictures are made ready for it."""
    licence = card.provenance.get("licence")
    config: dict[str, Any] = {
        "architecture": architecture,
        "num_classes": 0,
        "num_features": vit.embed_dim,
        "global_pool": "token",
        "pretrained_cfg": {
            "custom_load": False,
            "input_size": [vit.patch_embed.in_chans, *vit.patch_embed.img_size],
            "fixed_input_size": True,
            "interpolation": "bicubic",
            "crop_pct": card.resolution_px / (card.short_side_px or card.resolution_px),
            "crop_mode": "center",
            "mean": list(card.mean),
            "std": list(card.std),
            "num_classes": 0,
            "pool_size": None,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        }
        | ({"license": licence} if licence else {}),
    }
    return config | ({"model_args": arguments} if arguments else {})


@torch.inference_mode()
def _read_back(folder: Path, vit: DinoVisionTransformer, *, create: Any, dtype: Dtype) -> tuple[str, ...]:
    name = f"local-dir:{folder}"
    with library_errors(WEIGHTS, hint="timm could not load it; nothing was written."):
        network = create(name, pretrained=True).float().eval()
        network.load_state_dict(load_file(folder / WEIGHTS), strict=True)  # every name and shape
        any_size = create(name, pretrained=True, dynamic_img_size=True).float().eval()
    rows, columns = vit.patch_embed.patches_resolution
    own, largest = _difference(network, vit, grid=(rows, columns))
    limit = LIMITS[dtype] * max(1.0, largest)
    if not own <= limit:
        raise WeightsError(
            f"{WEIGHTS}: timm's features differ from ours by {own:g}, above {limit:.1g}; nothing was written."
        )
    other, _ = _difference(any_size, vit, grid=(max(rows // 2, 2), columns + 1))
    check = f"{WEIGHTS}: timm loads it strictly and gives our features to {own:.1g} at {_pixels(vit, (rows, columns))}"
    mode = {"interpolate_offset": vit.interpolate_offset, "interpolate_antialias": vit.interpolate_antialias}
    why = "" if mode == REGISTERS_MODE else "; timm resamples positions in its own way (antialiased)"
    return (
        check,
        f"with dynamic_img_size=True, at {_pixels(vit, (max(rows // 2, 2), columns + 1))}: to {other:.1g}{why}",
    )


def _difference(network: Any, vit: DinoVisionTransformer, *, grid: tuple[int, int]) -> tuple[float, float]:
    """The largest between timm's tokens and ours, and the typical size of ours (root of the mean square)."""
    rows, columns = vit.patch_embed.patch_size
    shape = (1, vit.patch_embed.in_chans, grid[0] * rows, grid[1] * columns)
    pictures = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    ours = vit.forward_features(pictures)
    wanted = torch.cat([ours["x_norm_clstoken"][:, None], ours["x_norm_regtokens"], ours["x_norm_patchtokens"]], dim=1)
    theirs: Tensor = network.forward_features(pictures)  # [1, 1 + R + N, D], normed
    return float((theirs - wanted).abs().max()), float(wanted.square().mean().sqrt())


def _pixels(vit: DinoVisionTransformer, grid: tuple[int, int]) -> str:
    rows, columns = vit.patch_embed.patch_size
    return f"{grid[0] * rows} x {grid[1] * columns} pixels"
