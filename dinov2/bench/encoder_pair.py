"""The same weights twice: in `dinov2.Encoder`, and in what the `rad_dino` package makes of them with transformers.

In: an architecture and a side. Out: a folder that both open, both of them opened, and what is measured taking turns.
"""

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from dinov2.bench.ceilings import settle
from dinov2.bench.conversion import Spent
from dinov2.encoder import Encoder
from dinov2.models.libraries import library_part
from dinov2.models.vision_transformer import SIZES

PATCH = 14  # pixels
MEAN, STD = 0.5307, 0.2583  # of RAD-DINO's processor, for each of three channels
NUM_WARM_UP = 1  # turn, after the comparison of results, which both have computed already
WANTED_BY = "dinov2 bench encoder"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Both, on one device, in one number format."""

    ours: Encoder
    model: Any  # transformers' Dinov2Model
    processor: Any  # the PIL one, as the rad_dino package asks for it

    def encode_ours(self, pixels: Tensor) -> Tensor:
        """[B, 3, S, S] -> [B, 1 + N, D], CLS first."""
        cls, patches = self.ours.encode(pixels)
        return torch.cat([cls.unsqueeze(1), patches], dim=1)

    def encode_theirs(self, pixels: Tensor) -> Tensor:
        """The same by transformers."""
        return torch.as_tensor(self.model(pixel_values=pixels).last_hidden_state)


def write_pair(folder: Path, *, arch: str, size: int) -> Path:
    """A folder as RAD-DINO's, with random weights, written by transformers.  Raises WeightsError without it."""
    model = _library("Dinov2Model")(_config(arch, size=size))
    model.save_pretrained(folder)
    said = {
        "image_processor_type": "BitImageProcessor",
        **dict.fromkeys(("do_convert_rgb", "do_resize", "do_center_crop", "do_rescale", "do_normalize"), True),
        "size": {"shortest_edge": size},
        "crop_size": {"height": size, "width": size},
        "resample": 3,
        "rescale_factor": 1 / 255,
        "image_mean": [MEAN] * 3,
        "image_std": [STD] * 3,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(said, indent=1))
    return folder


def open_pair(folder: Path, *, device: torch.device, dtype: torch.dtype) -> Pair:
    """Both ways to open it."""
    return Pair(
        ours=Encoder.from_pretrained(folder, device=device, dtype=dtype),
        model=_library("Dinov2Model").from_pretrained(folder).eval().to(device, dtype),
        processor=_library("AutoImageProcessor").from_pretrained(folder, use_fast=False),
    )


def flops_per_picture(arch: str, *, size: int) -> float:
    """FLOPs of one forward pass, counted by torch on tensors without memory, attention as plain products."""
    config = _config(arch, size=size, attn_implementation="eager")
    with torch.device("meta"):
        model, pixels = _library("Dinov2Model")(config).eval(), torch.empty(1, 3, size, size)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(pixel_values=pixels)
    return float(counter.get_total_flops())


def take_turns(
    ours: Callable[[], Any], theirs: Callable[[], Any], *, repeats: int, device: torch.device
) -> dict[str, Any]:
    """Seconds of both, who begins changing every turn; the first turn warms up and is not given."""
    turns: list[tuple[Spent, Spent]] = []
    for number in range(NUM_WARM_UP + repeats):
        if number % 2:
            second, first = _spent(theirs, device=device), _spent(ours, device=device)
        else:
            first, second = _spent(ours, device=device), _spent(theirs, device=device)
        turns.append((first, second))
    return _summary(turns[NUM_WARM_UP:], on_cpu=device.type == "cpu")


def _summary(turns: list[tuple[Spent, Spent]], *, on_cpu: bool) -> dict[str, Any]:
    ours, theirs = ([spent.clock for spent in side] for side in zip(*turns, strict=True))
    return {
        "ours_seconds": statistics.median(ours),
        "theirs_seconds": statistics.median(theirs),
        "ours_seconds_all": ours,
        "theirs_seconds_all": theirs,
        "ratio": statistics.median(beside.clock / own.clock for own, beside in turns),
        "ratio_by_core": statistics.median(beside.core / own.core for own, beside in turns) if on_cpu else None,
    }


def _spent(work: Callable[[], Any], *, device: torch.device) -> Spent:
    settle(device)
    core, clock = time.process_time(), time.perf_counter()
    work()
    settle(device)
    return Spent(core=time.process_time() - core, clock=time.perf_counter() - clock)


def _config(arch: str, *, size: int, **words: Any) -> Any:
    sizes = SIZES[arch]
    return _library("Dinov2Config")(
        hidden_size=sizes["embed_dim"],
        num_hidden_layers=sizes["depth"],
        num_attention_heads=sizes["num_heads"],
        mlp_ratio=int(sizes["mlp_ratio"]),
        use_swiglu_ffn=arch == "vit_giant2",
        image_size=size,
        patch_size=PATCH,
        **words,
    )


def _library(name: str) -> Any:
    return library_part("transformers", name, wanted_by=WANTED_BY)
