"""`dinov2.Encoder` against transformers' Dinov2Model and the processor of the `rad_dino` package; what importing costs.

In: an architecture, sizes, number formats. Out: a row for every encoding, preprocessing and import. Both sides have the
same weights and pictures, in one process, and take turns, so that ratios hold on a busy machine too. How far apart the
two results are stands beside every ratio.
"""

import argparse
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.table import Table

from dinov2.bench.case import add_ceiling_arguments
from dinov2.bench.ceilings import give_back, matrix_rate
from dinov2.bench.encoder_import import STATEMENTS, measure_imports
from dinov2.bench.encoder_pair import (
    PATCH,
    STD,
    Pair,
    flops_per_picture,
    open_pair,
    take_turns,
    write_pair,
)
from dinov2.bench.machine import device_of, machine_facts
from dinov2.bench.preprocess import draw_film
from dinov2.bench.progress import Tell, announced
from dinov2.errors import ConfigError
from dinov2.models.libraries import quiet_transformers
from dinov2.models.vision_transformer import SIZES
from dinov2.ssl.precision import DTYPES

SUBJECTS = ("encode", "preprocess", "import")
USUAL = {"cpu": ("fp32", "bf16"), "cuda": ("fp32", "bf16", "fp16")}
LEVELS = 255 * STD  # grey levels in one unit of what a network is given
FILMS = {"grey": "L", "RGB": "RGB"}  # modes of Pillow
CPU = torch.device("cpu")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `dinov2 bench encoder`."""
    parser.add_argument("--only", nargs="+", choices=SUBJECTS, default=SUBJECTS, help="of the three (default: all)")
    parser.add_argument("--arch", choices=tuple(SIZES), default="vit_base", help="patch 14 (default vit_base)")
    parser.add_argument("--size", type=int, default=518, help="side of the pictures, pixels (default 518)")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8], metavar="B", help="pictures (default 1 8)")
    text = "of fp32, bf16, and on a GPU fp16 (default: all of them)"
    parser.add_argument("--precision", nargs="+", choices=tuple(DTYPES), metavar="WORD", help=text)
    parser.add_argument("--repeats", type=int, default=5, help="turns of everything that is compared (default 5)")
    parser.add_argument("--height", type=int, default=3056, help="of the film, pixels (default 3056)")
    parser.add_argument("--width", type=int, default=2500, help="of the film, pixels (default 2500)")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="that encodes")
    add_ceiling_arguments(parser)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measures.

    Raises:
        ConfigError: sizes or number formats that cannot be measured.
        WeightsError: transformers is not installed.
    """
    device = device_of(arguments.device)
    formats = arguments.precision or USUAL[device.type]
    _check(arguments, formats=formats, device=device)
    busy = os.getloadavg()[0]
    result: dict[str, Any] = {
        "machine": machine_facts(device) | {"load_before": busy},
        "settings": {"arch": arguments.arch, "size": arguments.size, "patch": PATCH, "repeats": arguments.repeats}
        | {"film": [arguments.height, arguments.width], "device": device.type},
        "encode": [],
        "preprocess": [],
        "import": [],
        "matrix_flops_per_second": {},
        "flops_per_picture": None,
    }
    parts = {"encode": 1 + len(formats) * (1 + len(arguments.batch)), "preprocess": 1, "import": 1}
    with announced("bench encoder", total=sum(parts[name] for name in arguments.only)) as tell:
        if "import" in arguments.only:
            tell("importing, in new processes")
            result["import"] = measure_imports(STATEMENTS, repeats=arguments.repeats)
        if set(arguments.only) == {"import"}:
            return result
        with quiet_transformers(), tempfile.TemporaryDirectory() as name:
            folder = write_pair(Path(name), arch=arguments.arch, size=arguments.size)
            if "encode" in arguments.only:
                tell("counting FLOPs")
                result["flops_per_picture"] = flops_per_picture(arguments.arch, size=arguments.size)
                for precision in formats:
                    _encode(result, folder, precision, arguments=arguments, device=device, tell=tell)
            if "preprocess" in arguments.only:
                tell(f"films of {arguments.height} x {arguments.width}")
                pair = open_pair(folder, device=CPU, dtype=torch.float32)
                result["preprocess"] = _preprocess(pair, arguments=arguments)
    return result


def table(result: dict[str, Any]) -> Table:
    """Each measurement beside what it is compared with."""
    machine, settings = result["machine"], result["settings"]
    rates = ", ".join(f"{name} {rate / 1e12:.2f}" for name, rate in result["matrix_flops_per_second"].items())
    shown = Table(
        title=f"dinov2.Encoder, {settings['arch']}/{settings['patch']} at {settings['size']} pixels, against "
        f"transformers and the processor of rad_dino\non {machine['device']}, {machine['threads']} threads, torch "
        f"{machine['torch']}; load before: {machine['load_before']:.1f}",
        caption="medians; ratio: how many times as fast, turn by turn"
        + (f"; the machine's matrix products: {rates} TFLOP/s" if rates else ""),
    )
    for column in ("what", "ours", "beside it", "ratio", "share", "apart"):
        shown.add_column(column, justify="left" if column == "what" else "right")
    for row in result["encode"]:
        share = f"{row['share_of_matrix_rate']:.0%} ({row['share_theirs']:.0%})"
        shown.add_row(f"encode {row['batch']} in {row['precision']}", *_pair(row), share, f"{row['apart']:.1e}")
    for row in result["preprocess"]:
        height, width = settings["film"]
        shown.add_row(f"preprocess {height} x {width}, {row['film']}", *_pair(row), "", f"{row['apart']:.2f} levels")
    for row in result["import"]:
        alone = "with torch" if row["torch"] else "without torch"
        shown.add_row(row["statement"], _words(row["seconds"]), "", "", "", alone)
    return shown


def _pair(row: dict[str, Any]) -> list[str]:
    ratio = f"{row['ratio']:.2f}"
    if row["ratio_by_core"] is not None:
        ratio += f" (by core {row['ratio_by_core']:.2f})"
    return [_words(row["ours_seconds"]), _words(row["theirs_seconds"]), ratio]


def _words(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.1f} ms"


def _encode(
    result: dict[str, Any],
    folder: Path,
    precision: str,
    *,
    arguments: argparse.Namespace,
    device: torch.device,
    tell: Tell,
) -> None:
    """One number format at every batch size; the machine's own rate before and after, whichever was better."""
    tell(f"matrix products in {precision}")
    dtype, seconds = DTYPES[precision], arguments.ceiling_seconds
    rate = matrix_rate(device=device, dtype=dtype, seconds=seconds)
    pair = open_pair(folder, device=device, dtype=dtype)
    generator, size = torch.Generator().manual_seed(0), arguments.size
    rows = []
    for batch in arguments.batch:
        tell(f"{precision}, batches of {batch}")
        pixels = torch.randn(batch, 3, size, size, generator=generator).to(device, dtype)
        rows.append(
            {"precision": precision, "batch": batch} | compare_encoding(pair, pixels, repeats=arguments.repeats)
        )
    rate = max(rate, matrix_rate(device=device, dtype=dtype, seconds=seconds))
    result["matrix_flops_per_second"][precision] = rate
    for row in rows:
        flops = result["flops_per_picture"] * row["batch"]
        row["share_of_matrix_rate"] = flops / row["ours_seconds"] / rate
        row["share_theirs"] = flops / row["theirs_seconds"] / rate
    result["encode"] += rows
    del pair
    give_back(device)


@torch.inference_mode()
def compare_encoding(pair: Pair, pixels: torch.Tensor, *, repeats: int) -> dict[str, Any]:
    """Seconds of both on the same pixels, and the largest difference of any token's value."""
    apart = (pair.encode_ours(pixels).float() - pair.encode_theirs(pixels).float()).abs().max()
    turns = take_turns(
        lambda: pair.ours.encode(pixels),
        lambda: pair.model(pixel_values=pixels),
        repeats=repeats,
        device=pixels.device,
    )
    return turns | {"apart": float(apart)}


def _preprocess(pair: Pair, *, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    grey = np.rint(255 * draw_film((arguments.height, arguments.width), seed=0)).astype(np.uint8)
    film = Image.fromarray(grey)
    return [
        {"film": name} | compare_preprocessing(pair, film.convert(mode), repeats=arguments.repeats)
        for name, mode in FILMS.items()
    ]


def compare_preprocessing(pair: Pair, film: Image.Image, *, repeats: int) -> dict[str, Any]:
    """Seconds of both on one film, and the largest difference in grey levels of 8 bits."""

    def theirs() -> torch.Tensor:
        return torch.as_tensor(pair.processor(film, return_tensors="pt")["pixel_values"])

    apart = (pair.ours.preprocess(film).cpu().float() - theirs()).abs().max()
    turns = take_turns(lambda: pair.ours.preprocess(film), theirs, repeats=repeats, device=CPU)
    return turns | {"apart": LEVELS * float(apart)}


def _check(arguments: argparse.Namespace, *, formats: Sequence[str], device: torch.device) -> None:
    for name in ("size", "repeats", "height", "width"):
        if getattr(arguments, name) < 1:
            raise ConfigError(f"--{name} {getattr(arguments, name)}: expected 1 or more.")
    if min(arguments.batch) < 1:
        raise ConfigError(f"--batch {min(arguments.batch)}: expected 1 or more.")
    if arguments.size % PATCH:
        below = arguments.size // PATCH * PATCH
        raise ConfigError(
            f"--size {arguments.size}: no multiple of the patch, {PATCH}. Give {below} or {below + PATCH}."
        )
    if min(arguments.height, arguments.width) < arguments.size:
        raise ConfigError(
            f"--height {arguments.height} --width {arguments.width}: a film has at least --size {arguments.size}."
        )
    if arguments.device == "cuda" and device.type != "cuda":
        raise ConfigError("--device cuda: torch sees no GPU here. Leave the option out.")
    unusual = [name for name in formats if name not in USUAL[device.type]]
    if unusual:
        raise ConfigError(f"--precision {unusual[0]}: measured on a GPU only. Give {' or '.join(USUAL[device.type])}.")
