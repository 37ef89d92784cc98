"""Seconds and memory of the training step on random crops, ours and the plain form of it.

In: sizes and number formats. Out: seconds per step, FLOPs, the share of the machine's matrix-product rate, peak memory.
The default is the case whose public figure is known: ViT-S/14, 8 pictures, 2x224 + 8x98 crops, 8,192 prototypes, shared
head, Sinkhorn. Both forms run in one process, taking turns; memory is measured in a process per form and format.
"""

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from dinov2.batch import Batch, Views
from dinov2.bench.machine import machine_facts, matrix_rate, peak_memory
from dinov2.bench.plain_step import PlainStep, padded_patches
from dinov2.config.load import load_config
from dinov2.config.schema import Config
from dinov2.distributed import World
from dinov2.optim.schedules import build_schedule, schedule_at
from dinov2.ssl.precision import DTYPES
from dinov2.train.build import build_tools
from dinov2.train.step import train_step

FORMS = ("ours", "plain")
NUM_WARM_UP = 2
MASKED_SHARE = 0.5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this measurement."""
    parser.add_argument("--precision", nargs="+", choices=sorted(DTYPES), default=["fp32", "bf16"])
    parser.add_argument("--form", nargs="+", choices=FORMS, default=list(FORMS), help="plain: as public code does it")
    parser.add_argument("--arch", default="vit_small")
    parser.add_argument("--patch-size", type=int, default=14)
    parser.add_argument("--batch-size", type=int, default=8, help="pictures")
    parser.add_argument("--global-size", type=int, default=224, help="pixels")
    parser.add_argument("--local-size", type=int, default=98, help="pixels")
    parser.add_argument("--local-crops", type=int, default=8)
    parser.add_argument("--prototypes", type=int, default=8192)
    parser.add_argument("--steps", type=int, default=3, help=f"measured steps, after {NUM_WARM_UP} that are not")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """A row per number format and form."""
    device = torch.device("cuda" if arguments.device != "cpu" and torch.cuda.is_available() else "cpu")
    rows = [row for name in arguments.precision for row in _measure(arguments, precision=name, device=device)]
    settings = {key: value for key, value in vars(arguments).items() if key != "json"}
    return {"machine": machine_facts(device), "settings": settings, "rows": rows}


def table(result: dict[str, Any]) -> Table:
    """The rows as a table."""
    machine = result["machine"]
    title = f"training step on {machine['device']}, {machine['threads']} threads, torch {machine['torch']}"
    shown = Table(title=title)
    headings = ("format", "form", "s/step", "img/s", "TFLOP", "GFLOP/s", "share", "GiB", "speed-up")
    for column in headings:
        shown.add_column(column, justify="right", no_wrap=True)
    for row in result["rows"]:
        shown.add_row(
            row["precision"],
            row["form"],
            f"{row['seconds_per_step']:.2f}",
            f"{row['pictures_per_second']:.2f}",
            f"{row['flops_per_step'] / 1e12:.3f}",
            f"{row['matrix_rate'] / 1e9:.0f}",
            f"{100 * row['share_of_matrix_rate']:.0f} %",
            f"{row['peak_memory_bytes'] / 2**30:.2f}",
            f"{row['speed_up']:.2f}" if row["speed_up"] else "",
        )
    return shown


def bench_config(arguments: argparse.Namespace, *, precision: str, device: torch.device) -> Config:
    """The configuration that is measured."""
    words = {
        "student.arch": arguments.arch,
        "student.patch_size": arguments.patch_size,
        "train.batch_size_per_gpu": arguments.batch_size,
        "train.centering": "sinkhorn_knopp",
        "crops.global_crops_size": arguments.global_size,
        "crops.local_crops_size": arguments.local_size,
        "crops.local_crops_number": arguments.local_crops,
        "dino.head_n_prototypes": arguments.prototypes,
        "runtime.precision": precision,
        "runtime.device": device.type,
        "student.drop_path_rate": 0.0,
    }
    return load_config(None, overrides=[f"{key}={value}" for key, value in words.items()]).config


def random_views(config: Config, *, device: torch.device) -> Views:
    """Noise crops and masks with the public share of masked patches."""
    generator = torch.Generator().manual_seed(0)
    crops, count = config.crops, config.train.batch_size_per_gpu
    patches = (crops.global_crops_size // config.student.patch_size) ** 2
    masks = torch.zeros(2 * count, patches, dtype=torch.bool)
    low, high = config.ibot.mask_ratio_min_max
    masked = range(int(2 * count * MASKED_SHARE))
    for place, row in enumerate(masked):
        ratio = low + (high - low) * (place + 0.5) / len(masked)
        masks[row, torch.randperm(patches, generator=generator)[: int(ratio * patches)]] = True
    batch = Batch(
        global_crops=_noise(2 * count, crops.global_crops_size, generator=generator),
        local_crops=_noise(crops.local_crops_number * count, crops.local_crops_size, generator=generator),
        masks=masks,
        positions=torch.arange(count),
    )
    return batch.to(device).views(mean=config.data.mean, std=config.data.std)


def build_form(form: str, config: Config, *, device: torch.device) -> Callable[[Views, int], Any]:
    """A function that does one step of a form on given views."""
    tools = build_tools(config, world=World(rank=0, size=1, local_rank=0, device=device))
    global_batch = config.train.batch_size_per_gpu
    schedule = build_schedule(config.optim, config.teacher, train=config.train, global_batch=global_batch)
    if form == "ours":
        return lambda views, step: train_step(
            tools, [views], plan=schedule_at(step, schedule=schedule), num_micro_batches=1
        )
    rows = padded_patches(
        config.ibot.mask_ratio_min_max,
        num_patches=(config.crops.global_crops_size // config.student.patch_size) ** 2,
        num_masked_crops=int(2 * global_batch * MASKED_SHARE),
    )
    plain = PlainStep(tools.networks, precision=tools.precision, padded_patches=rows, clip_grad=config.optim.clip_grad)
    return lambda views, step: plain(views, plan=schedule_at(step, schedule=schedule))


def _measure(arguments: argparse.Namespace, *, precision: str, device: torch.device) -> list[dict[str, Any]]:
    config = bench_config(arguments, precision=precision, device=device)
    views = random_views(config, device=device)
    steps = {form: build_form(form, config, device=device) for form in arguments.form}
    with FlopCounterMode(display=False) as counter:
        steps[arguments.form[0]](views, 0)
    seconds: dict[str, list[float]] = {form: [] for form in steps}
    for step in range(NUM_WARM_UP + arguments.steps):
        for form, do in steps.items():
            seconds[form].append(_seconds(do, views, step, device=device))
    medians = {form: statistics.median(times[NUM_WARM_UP:]) for form, times in seconds.items()}
    rate = matrix_rate(device=device, dtype=DTYPES[precision])
    return [
        {
            "precision": precision,
            "form": form,
            "seconds_per_step": median,
            "seconds_all": seconds[form],
            "pictures_per_second": arguments.batch_size / median,
            "flops_per_step": counter.get_total_flops(),
            "matrix_rate": rate,
            "share_of_matrix_rate": counter.get_total_flops() / median / rate,
            "peak_memory_bytes": _memory_of(form, arguments, precision=precision, device=device),
            "speed_up": medians["plain"] / median if form == "ours" and "plain" in medians else None,
        }
        for form, median in medians.items()
    ]


def _memory_of(form: str, arguments: argparse.Namespace, *, precision: str, device: torch.device) -> float:
    """Peak bytes of two steps in a process of their own."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as alone:
        return alone.submit(_two_steps, form, arguments, precision, device).result()


def _two_steps(form: str, arguments: argparse.Namespace, precision: str, device: torch.device) -> float:
    config = bench_config(arguments, precision=precision, device=device)
    views, do = random_views(config, device=device), build_form(form, config, device=device)
    for step in range(2):
        do(views, step)
    return peak_memory(device)


def _seconds(do: Callable[[Views, int], Any], views: Views, step: int, *, device: torch.device) -> float:
    started = time.perf_counter()
    do(views, step)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def _noise(count: int, side: int, *, generator: torch.Generator) -> torch.Tensor:
    return torch.randint(0, 256, (count, side, side), generator=generator, dtype=torch.uint8)
