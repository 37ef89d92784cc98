"""A written transformers folder, read back by transformers itself and compared.

In: a folder, the `Source` it was written from, what was `fit` for it. Out: a `Compared`, or WeightsError.

Tensors must be the same bits. Features of random pictures must agree at the position table's own size, and at another
size where both resample the table in transformers' way; how far this network's own way of resampling is from that is
measured, not judged.
"""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from dinov2.errors import WeightsError
from dinov2.formats.opened import three
from dinov2.formats.source import Dtype, Source
from dinov2.formats.transformers_form import CHANNELS, Fitted, processor_config, transformers_mode
from dinov2.models.key_maps import from_transformers
from dinov2.models.libraries import library_errors, library_part, quiet_transformers
from dinov2.models.vision_transformer import DinoVisionTransformer

LARGEST_DIFFERENCE = 1e-5
WANTED_BY = "the format transformers"
MODE_NAMES = {
    (True, False): "by scale, with an offset of {offset}",
    (True, True): "by scale, with an offset of {offset} and antialiasing",
    (False, False): "to the size itself, without antialiasing",
    (False, True): "to the size itself, with antialiasing",
}


@dataclass(frozen=True, kw_only=True)
class Compared:
    """How transformers' features differ from ours: largest differences of normed tokens."""

    library: str  # name and version
    num_tensors: int
    table_px: int  # side of the pictures that the position table is for
    at_table: float  # from the network that was written
    from_source: float | None  # from the source itself; None where its very tensors were written
    other_px: int
    same_mode: float  # at `other_px`, both resampling the table as transformers does
    own_mode: float | None  # at `other_px`, ours as it was trained; None where that is transformers' way
    mode: str  # this network's way
    their_mode: str


def read_back(folder: Path, *, source: Source, fitted: Fitted, dtype: Dtype) -> Compared:
    """Loads `folder` as its users will, and compares.

    Raises:
        WeightsError: transformers is absent or cannot load it, names are left over, or tensors, features or pictures
            differ.
    """
    with quiet_transformers():
        model = _load_model(folder)
        _check_tensors(model, fitted)
        compared = _compare(model, source=source, fitted=fitted, rounded=dtype != "float32")
        _check_processor(folder, fitted)
    return compared


def _load_model(folder: Path) -> nn.Module:
    """The model in float32, whatever the format of its file."""
    auto_model = library_part("transformers", "AutoModel", wanted_by=WANTED_BY)
    with library_errors(str(folder), hint="transformers cannot read what was written."):
        model, report = auto_model.from_pretrained(str(folder), output_loading_info=True)
    left = {key: sorted(report[key]) for key in ("missing_keys", "unexpected_keys", "mismatched_keys") if report[key]}
    if left:
        raise WeightsError(f"{folder}: transformers does not use the names as they were written: {left}.")
    loaded: nn.Module = model.float().eval()
    return loaded


def _check_tensors(model: nn.Module, fitted: Fitted) -> None:
    theirs, ours = from_transformers(dict(model.state_dict())), fitted.backbone.state_dict()
    other = [name for name in ours if name not in theirs or not torch.equal(theirs[name], ours[name])]
    if other or theirs.keys() != ours.keys():
        more = sorted(theirs.keys() - ours.keys())
        raise WeightsError(f"what transformers reads back differs in {', '.join((other + more)[:3])}; not usable.")


@torch.no_grad()
def _compare(model: nn.Module, *, source: Source, fitted: Fitted, rounded: bool) -> Compared:
    ours, table_px = fitted.backbone, fitted.backbone.patch_embed.img_size[0]
    other_px = _other_size(ours)
    in_their_mode = _with_mode(ours, transformers_mode(ours))
    channels = source.backbone.patch_embed.in_chans
    at_table, at_other = (_pictures(side, channels=channels) for side in (table_px, other_px))
    theirs = _their_tokens(model, at_table)
    difference = _bounded(theirs, _tokens(ours, at_table), what=f"at {table_px} px")
    from_source = None
    if rounded or fitted.changes:
        exact = _tokens(source.backbone, at_table)
        from_source = _largest(theirs, exact) if rounded else _bounded(theirs, exact, what=f"at {table_px} px")
    theirs = _their_tokens(model, at_other)
    same_mode = _bounded(theirs, _tokens(in_their_mode, at_other), what=f"at {other_px} px")
    is_same = mode_of(ours) == mode_of(in_their_mode)
    transformers = library_part("transformers", wanted_by=WANTED_BY)
    return Compared(
        library=f"transformers {transformers.__version__}",
        num_tensors=len(ours.state_dict()),
        table_px=table_px,
        at_table=difference,
        from_source=from_source,
        other_px=other_px,
        same_mode=same_mode,
        own_mode=None if is_same else _largest(theirs, _tokens(ours, at_other)),
        mode=mode_of(ours),
        their_mode=mode_of(in_their_mode),
    )


def mode_of(backbone: DinoVisionTransformer) -> str:
    """How a network resamples its position table, in words."""
    name = MODE_NAMES[bool(backbone.interpolate_offset), backbone.interpolate_antialias]
    return name.format(offset=f"{backbone.interpolate_offset:g}")


def _with_mode(backbone: DinoVisionTransformer, mode: dict[str, Any]) -> DinoVisionTransformer:
    """Another way of resampling the same tensors."""
    other = copy.copy(backbone)  # shares them
    other.interpolate_offset, other.interpolate_antialias = mode["interpolate_offset"], mode["interpolate_antialias"]
    return other


def _other_size(backbone: DinoVisionTransformer) -> int:
    """A smaller picture, in pixels: 196 for 518, as local crops have it."""
    grid = backbone.patch_embed.patches_resolution[0]
    smaller = max(1, round(grid * 14 / 37))
    return (smaller if smaller != grid else grid + 1) * backbone.patch_embed.patch_size[0]


def _pictures(side: int, *, channels: int) -> Tensor:
    """[1, C, side, side], the same in every run; grey where the source takes one channel."""
    return torch.randn(1, channels, side, side, generator=torch.Generator().manual_seed(0))


def _tokens(backbone: DinoVisionTransformer, pictures: Tensor) -> Tensor:
    """CLS, registers, patches after the norm.  [1, C, rows, columns] -> [1, 1 + R + N, D]"""
    if backbone.patch_embed.in_chans != pictures.shape[1]:
        pictures = pictures.expand(-1, CHANNELS, -1, -1)
    found = backbone.forward_features(pictures)
    cls = found["x_norm_clstoken"].unsqueeze(1)
    return torch.cat([cls, found["x_norm_regtokens"], found["x_norm_patchtokens"]], dim=1)


def _their_tokens(model: nn.Module, pictures: Tensor) -> Tensor:
    tokens: Tensor = model(pixel_values=pictures.expand(-1, CHANNELS, -1, -1)).last_hidden_state
    return tokens


def _largest(theirs: Tensor, ours: Tensor) -> float:
    return float((theirs - ours).abs().max())


def _bounded(theirs: Tensor, ours: Tensor, *, what: str) -> float:
    """The largest difference; rounding of float32 grows with the features, so the bound does beyond 1."""
    largest, bound = _largest(theirs, ours), LARGEST_DIFFERENCE * max(1.0, float(ours.abs().max()))
    if not largest <= bound:
        raise WeightsError(
            f"transformers' features differ from ours by {largest:.2g} {what}, more than {bound:.1g}; not usable."
        )
    return largest


def _check_processor(folder: Path, fitted: Fitted) -> None:
    """Of a picture of the right size the middle comes out, normalised; another is cut to the same size."""
    auto_processor = library_part("transformers", "AutoImageProcessor", wanted_by=WANTED_BY)
    with library_errors(str(folder), hint="transformers cannot read what was written."):
        processor = auto_processor.from_pretrained(str(folder))
        said = processor_config(fitted.card)
        side, edge = said["crop_size"]["height"], said["size"]["shortest_edge"]
        rng = np.random.default_rng(0)
        fitting, wide = (rng.integers(0, 256, (edge, width), dtype=np.uint8) for width in (edge, edge + edge // 2))
        pixels = processor(Image.fromarray(fitting), return_tensors="pt")["pixel_values"]
        cut = processor(Image.fromarray(wide), return_tensors="pt")["pixel_values"]
    mean, std = (torch.tensor(three(values)).view(1, CHANNELS, 1, 1) for values in (fitted.card.mean, fitted.card.std))
    first = (edge - side) // 2
    middle = torch.from_numpy(fitting[first : first + side, first : first + side])
    expected = (middle / 255 - mean) / std
    is_right = pixels.shape == expected.shape == cut.shape and _largest(pixels, expected) <= LARGEST_DIFFERENCE
    if not is_right:
        raise WeightsError(
            f"{folder}: transformers' image processor gives {tuple(cut.shape)} and other values than "
            f"{(1, CHANNELS, side, side)}, normalised as the card says; not usable."
        )
