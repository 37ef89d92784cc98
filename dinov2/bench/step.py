"""Seconds and memory of the training step on random crops.

In: sizes and number formats. Out: seconds per step, FLOPs, the share of the machine's matrix-product rate, peak memory.
The default is the case whose public figure is known: ViT-S/14, 8 pictures, 2x224 + 8x98 crops, 8,192 prototypes,
shared head, Sinkhorn.
"""

import argparse
import statistics
import time
from typing import Any

import torch
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from dinov2.batch import Batch, Views
from dinov2.bench.machine import machine_facts, matrix_rate, peak_memory
from dinov2.config.load import load_config
from dinov2.config.schema import Config
from dinov2.distributed import World
from dinov2.optim.schedules import build_schedule, schedule_at
from dinov2.train.build import build_tools
from dinov2.train.precision import DTYPES
from dinov2.train.step import StepTools, train_step


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this measurement."""
    parser.add_argument(
        "--precision", nargs="+", choices=sorted(DTYPES), default=["fp32", "bf16"], help="number formats, one row each"
    )
    parser.add_argument("--arch", default="vit_small")
    parser.add_argument("--patch-size", type=int, default=14)
    parser.add_argument("--batch-size", type=int, default=8, help="pictures")
    parser.add_argument("--global-size", type=int, default=224, help="pixels")
    parser.add_argument("--local-size", type=int, default=98, help="pixels")
    parser.add_argument("--local-crops", type=int, default=8)
    parser.add_argument("--prototypes", type=int, default=8192)
    parser.add_argument("--steps", type=int, default=5, help="measured steps, after two that are not")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measures every precision; rows are comparable with each other, since they come from one process."""
    device = torch.device("cuda" if arguments.device != "cpu" and torch.cuda.is_available() else "cpu")
    rows = [_measure(arguments, precision=name, device=device) for name in arguments.precision]
    return {
        "machine": machine_facts(device),
        "settings": {k: v for k, v in vars(arguments).items() if k != "json"},
        "rows": rows,
    }


def table(result: dict[str, Any]) -> Table:
    """The rows as a table."""
    machine = result["machine"]
    shown = Table(title=f"training step on {machine['device']}, {machine['threads']} threads, torch {machine['torch']}")
    for column in (
        "precision",
        "s/step (median)",
        "img/s",
        "TFLOP/step",
        "matrix rate, GFLOP/s",
        "share of it",
        "peak memory, GiB",
    ):
        shown.add_column(column, justify="right")
    for row in result["rows"]:
        shown.add_row(
            row["precision"],
            f"{row['seconds_per_step']:.2f}",
            f"{row['pictures_per_second']:.2f}",
            f"{row['flops_per_step'] / 1e12:.3f}",
            f"{row['matrix_rate'] / 1e9:.0f}",
            f"{100 * row['share_of_matrix_rate']:.0f} %",
            f"{row['peak_memory_bytes'] / 2**30:.2f}",
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
    masked = range(int(2 * count * config.ibot.mask_sample_probability))
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


def _measure(arguments: argparse.Namespace, *, precision: str, device: torch.device) -> dict[str, Any]:
    config = bench_config(arguments, precision=precision, device=device)
    tools = build_tools(config, world=World(rank=0, size=1, local_rank=0, device=device))
    views = random_views(config, device=device)
    with FlopCounterMode(display=False) as counter:
        _step(tools, config, views, step=0)
    _step(tools, config, views, step=1)
    seconds = [_timed(tools, config, views, step=2 + i, device=device) for i in range(arguments.steps)]
    median = statistics.median(seconds)
    rate = matrix_rate(device=device, dtype=DTYPES[precision])
    return {
        "precision": precision,
        "seconds_per_step": median,
        "seconds_all": seconds,
        "pictures_per_second": arguments.batch_size / median,
        "flops_per_step": counter.get_total_flops(),
        "matrix_rate": rate,
        "share_of_matrix_rate": counter.get_total_flops() / median / rate,
        "peak_memory_bytes": peak_memory(device),
    }


def _step(tools: StepTools, config: Config, views: Views, *, step: int) -> None:
    schedule = build_schedule(config.optim, config.teacher, train=config.train, global_batch=views.num_pictures)
    train_step(tools, [views], plan=schedule_at(step, schedule=schedule), step=step, num_micro_batches=1)


def _timed(tools: StepTools, config: Config, views: Views, *, step: int, device: torch.device) -> float:
    started = time.perf_counter()
    _step(tools, config, views, step=step)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def _noise(count: int, side: int, *, generator: torch.Generator) -> torch.Tensor:
    return torch.randint(0, 256, (count, side, side), generator=generator, dtype=torch.uint8)
