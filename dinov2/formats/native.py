"""Our own format: safetensors under the public names of DINOv2, and a card that builds the networks around them.

In: a `Source`. Out: `backbone.safetensors`, `backbone_card.json`, and with the heads `dino_head.safetensors`,
`ibot_head.safetensors`, `centers.safetensors`.
"""

import copy
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dinov2.checkpoint.export import check_export, write_parts
from dinov2.errors import CheckpointError, WeightsError
from dinov2.formats.file_card import card_of_files
from dinov2.formats.source import Dtype, Source, Written
from dinov2.formats.writers import written_whole
from dinov2.models.folders import CENTERS_FILE
from dinov2.models.key_maps import CENTERS
from dinov2.models.vision_transformer import DinoVisionTransformer

PUBLIC_SHAPES = {"dino_loss.center": (1, -1), "ibot_patch_loss.center": (1, 1, -1)}


def write_dinov2(
    source: Source, folder: Path, *, dtype: Dtype = "float32", licence: str = "", with_heads: bool = False
) -> Written:
    """Writes the files and reads them back, strictly; see `dinov2.formats.writers.Writer`.

    `centers.safetensors` holds the running centres as the public checkpoints do: `dino_loss.center` [1, K] and
    `ibot_patch_loss.center` [1, 1, K], always in float32.
    """
    heads = dict(source.heads) if with_heads else {}
    centers = dict(source.centers) if with_heads else {}
    parts: dict[str, nn.Module] = {"backbone": source.backbone, **heads}
    rounded = _rounded(parts, dtype)
    card = card_of_files(source, heads=heads, dtype=dtype, licence=licence)
    with written_whole(folder) as partial:
        write_parts(rounded, card=card, folder=partial, dtype=getattr(torch, dtype))
        if centers:
            _write_centers(centers, folder=partial)
        try:
            largest = check_export(rounded, partial)
        except CheckpointError as error:
            raise WeightsError(f"{folder}: was not written. {error}") from error
    checks = [f"read back with strict names by dinov2: features differ by at most {largest:.1g} at two sizes"]
    if dtype != "float32":
        checks.append(_what_rounding_does(source.backbone, rounded["backbone"], dtype=dtype))
    if centers:
        checks.append("read back: the centres are the same bits")
    return Written(
        folder=folder,
        files=tuple(sorted(folder.iterdir())),
        checks=tuple(checks),
        next_step=f'python -c "import dinov2; print(dinov2.load_backbone({str(folder)!r}))"',
    )


def _rounded(parts: Mapping[str, nn.Module], dtype: Dtype) -> dict[str, nn.Module]:
    """The modules with the values that `dtype` can hold, in float32.  Raises WeightsError where one cannot be held."""
    if dtype == "float32":
        return dict(parts)
    rounded = {}
    for name, module in parts.items():
        rounded[name] = copy.deepcopy(module).to(getattr(torch, dtype)).float()
        lost = [
            key
            for key, value in rounded[name].state_dict().items()
            if not bool(value.isfinite().all()) and bool(module.state_dict()[key].isfinite().all())
        ]
        if lost:
            raise WeightsError(
                f"{name}: {', '.join(lost[:3])} holds values beyond {dtype}'s range. Give --dtype bfloat16 or float32."
            )
    return rounded


def _write_centers(centers: Mapping[str, Tensor], *, folder: Path) -> None:
    public = {
        name: centers[ours].detach().float().reshape(PUBLIC_SHAPES[name]).contiguous()
        for name, ours in CENTERS.items()
        if ours in centers
    }
    save_file(public, folder / CENTERS_FILE, metadata={"format": "pt"})
    back = load_file(folder / CENTERS_FILE)
    if back.keys() != public.keys() or not all(torch.equal(back[name], public[name]) for name in public):
        raise WeightsError(f"{folder / CENTERS_FILE}: reads back differently. The disk is at fault.")


@torch.no_grad()
def _what_rounding_does(exact: DinoVisionTransformer, rounded: nn.Module, *, dtype: Dtype) -> str:
    """How far the CLS token of a random picture moves, beside how large it is."""
    side = exact.patch_embed.img_size[0]
    picture = torch.randn(1, exact.patch_embed.in_chans, side, side, generator=torch.Generator().manual_seed(0))
    before, after = exact(picture), rounded(picture)
    moved = float((after - before).norm() / before.norm())
    return f"rounding to {dtype} moves the CLS token of a random picture by {moved:.1g} of its length"
