"""How long training waits for a checkpoint: written in the background against in the foreground.

In: an architecture, a folder, a number of processes. Out: seconds that `save` takes, seconds until the checkpoint is
whole, and how much slower matrix products are while it is written. The state is a real one: student, teacher, centres
and AdamW's moments; with several processes it is sharded over them (FSDP2). Both ways take turns in the same processes,
so that their ratio holds on a busy machine too.
"""

import argparse
import multiprocessing
import shutil
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from rich.table import Table
from torch import Tensor

from dinov2.bench.machine import machine_facts
from dinov2.checkpoint.store import CheckpointStore, Retention
from dinov2.config.load import load_config
from dinov2.config.schema import Config
from dinov2.distributed import Layout, Meshes, World, shard_part
from dinov2.ssl import Networks, build_networks

WAYS = {"background": True, "foreground": False}
SIDE = {"cpu": 512, "cuda": 4096}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this measurement."""
    parser.add_argument("--arch", default="vit_base", help="default vit_base")
    parser.add_argument("--patch-size", type=int, default=14)
    parser.add_argument("--prototypes", type=int, default=65536, help="of each head (default 65536)")
    parser.add_argument("--processes", type=int, default=1, help="the state is sharded over them (default 1)")
    parser.add_argument("--rounds", type=int, default=3, help="measured saves each way, after one that is not")
    parser.add_argument("--idle-seconds", type=float, default=2.0, help="of products before each save (default 2)")
    parser.add_argument("--folder", type=Path, help="where to write (default: the system's temporary folder)")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """A row for each way; medians over the rounds of the slowest process."""
    device = "cuda" if arguments.device != "cpu" and torch.cuda.is_available() else "cpu"
    config = state_config(arguments.arch, patch_size=arguments.patch_size, prototypes=arguments.prototypes)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        words = vars(arguments) | {"device": device, "folder": folder, "config": config}
        measured = _in_processes(words) if arguments.processes > 1 else _process(words, 0)
    settings = {key: value for key, value in vars(arguments).items() if key not in ("json", "folder")}
    return {"machine": machine_facts(torch.device(device)), "settings": settings, **measured}


def table(result: dict[str, Any]) -> Table:
    """The rows as a table."""
    settings, machine, rows = result["settings"], result["machine"], result["rows"]
    shown = Table(
        title=f"checkpoint of {settings['arch']}, {result['bytes'] / 1e9:.2f} GB, {settings['processes']} process(es) "
        f"on {machine['device']}, torch {machine['torch']}",
        caption=f"training waits {rows['foreground']['blocked'] / rows['background']['blocked']:.1f} times as long "
        f"for a save in the foreground; the first one in the background, which allocates the copy, took "
        f"{rows['background']['first']:.2f} s",
    )
    headings = ("way", "training waits (s)", "until whole (s)", "MB/s", "products meanwhile")
    for heading in headings:
        shown.add_column(heading, justify="left" if heading == "way" else "right")
    for way, row in rows.items():
        share = f"{row['products']:.0%} of the idle rate" if row["products"] is not None else "none"
        numbers = (f"{row['blocked']:.3f}", f"{row['whole']:.2f}", f"{result['bytes'] / 1e6 / row['whole']:.0f}")
        shown.add_row(way, *numbers, share)
    return shown


def _in_processes(words: dict[str, Any]) -> dict[str, Any]:
    """What the first of several processes measured; each takes the slowest one's time."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(words["processes"], mp_context=context) as pool:
        futures = [pool.submit(_process, words, rank) for rank in range(words["processes"])]
        measured = [future.result() for future in futures]
    return measured[0]


def _process(words: dict[str, Any], rank: int) -> dict[str, Any]:
    """One process of the measurement."""
    settings = argparse.Namespace(**words)
    device = torch.device(settings.device, rank) if settings.device == "cuda" else torch.device("cpu")
    if settings.device == "cuda":
        torch.cuda.set_device(device)
    if settings.processes > 1:
        backend = "cpu:gloo,cuda:nccl" if settings.device == "cuda" else "gloo"
        meeting = f"file://{settings.folder}/meeting"
        dist.init_process_group(backend, init_method=meeting, rank=rank, world_size=settings.processes)
    try:
        return _measure(settings, device=device)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _measure(settings: argparse.Namespace, *, device: torch.device) -> dict[str, Any]:
    tensors = real_state(settings.config, device=device, shard=settings.processes > 1)
    facts = {"config": asdict(settings.config)}
    seconds: dict[str, dict[str, list[float]]] = {
        way: {"blocked": [], "whole": [], "products": [], "idle": []} for way in WAYS
    }
    stores = {
        way: CheckpointStore(Path(settings.folder) / way, retention=Retention(keep_last=1), asynchronous=asynchronous)
        for way, asynchronous in WAYS.items()
    }
    for step in range(settings.rounds + 1):
        for way, store in stores.items():
            measured = _one_save(store, step, tensors=tensors, facts=facts, idle_seconds=settings.idle_seconds)
            for name, value in measured.items():
                seconds[way][name].append(value)
    for store in stores.values():
        store.close()
        shutil.rmtree(store.folder, ignore_errors=True)
    return {
        "bytes": sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()),
        "rows": {way: _row(times) for way, times in seconds.items()},
    }


def _one_save(
    store: CheckpointStore, step: int, *, tensors: dict[str, Tensor], facts: dict[str, Any], idle_seconds: float
) -> dict[str, float]:
    """Seconds of one save, and products a second before it and while it is written."""
    device = next(iter(tensors.values())).device
    idle, _ = _products(device, until=lambda spent: spent > idle_seconds)
    _together()
    started = time.perf_counter()
    store.save(step, tensors=tensors, facts=facts)
    blocked = time.perf_counter() - started
    rate = float("nan")
    if not store.finished():
        rate, _ = _products(device, until=lambda _: bool(store.finished()) or store.failure() is not None)
    store.wait()
    whole = time.perf_counter() - started
    return {"blocked": _slowest(blocked), "whole": _slowest(whole), "products": rate, "idle": idle}


def _products(device: torch.device, *, until: Any) -> tuple[float, int]:
    """Matrix products a second, and how many there were."""
    side = SIDE[device.type]
    a, b = (torch.randn(side, side, device=device) for _ in range(2))
    count, started = 0, time.perf_counter()
    while True:
        a @ b
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        count += 1
        spent = time.perf_counter() - started
        if until(spent):
            return count / spent, count


def _row(times: dict[str, list[float]]) -> dict[str, Any]:
    blocked, whole = times["blocked"], times["whole"]
    shares = [rate / idle for rate, idle in zip(times["products"], times["idle"], strict=True)][1:]
    return {
        "blocked": statistics.median(blocked[1:]),
        "whole": statistics.median(whole[1:]),
        "first": blocked[0],
        "products": statistics.median(shares) if all(share == share for share in shares) else None,
        "blocked_all": blocked,
        "whole_all": whole,
    }


def state_config(arch: str, *, patch_size: int, prototypes: int, dataset: str = "") -> Config:
    """A configuration whose state is kept; crops fit the patches."""
    overrides = {
        "student.arch": arch,
        "student.patch_size": patch_size,
        "crops.global_crops_size": 16 * patch_size,
        "crops.local_crops_size": 7 * patch_size,
        "dino.head_n_prototypes": prototypes,
    } | ({"train.dataset_path": dataset} if dataset else {})
    return load_config(None, overrides=[f"{key}={value}" for key, value in overrides.items()]).config


def real_state(config: Config, *, device: torch.device, shard: bool) -> dict[str, Tensor]:
    """Everything that a run of this configuration keeps, after one step of AdamW, under the names of a checkpoint."""
    networks = build_networks(
        student=config.student,
        dino=config.dino,
        ibot=config.ibot,
        img_size=config.crops.global_crops_size,
        attention="sdpa",
        reductions=None,
    ).to(device)
    if shard:
        _shard(networks)
    optimizer = torch.optim.AdamW(networks.student.parameters())
    for parameter in networks.student.parameters():
        parameter.grad = torch.full_like(parameter, 1e-3)
    optimizer.step()
    tensors = {f"networks.{name}": tensor for name, tensor in networks.state_dict().items()}
    for name, parameter in networks.student.named_parameters():
        tensors |= {f"optimizer.{name}.{key}": value for key, value in optimizer.state[parameter].items()}
    return tensors


def _shard(networks: Networks) -> None:
    rank, device = dist.get_rank(), networks.centers()[0].device
    world = World(rank=rank, size=dist.get_world_size(), local_rank=rank, device=device)
    full = torch.float32
    layout = Layout(strategy="FULL_SHARD", param_dtype=full, reduce_dtype=full, buffer_dtype=full)
    meshes = Meshes(world, shard_group_size=None)
    for parts in (networks.student, networks.teacher):
        for part in parts.values():
            shard_part(part, units=(), layout=layout, meshes=meshes)


def _together() -> None:
    if dist.is_initialized():
        dist.barrier()


def _slowest(seconds: float) -> float:
    """The same on every process: what the slowest one took."""
    if not dist.is_initialized():
        return seconds
    told = torch.tensor(seconds)
    dist.all_reduce(told, op=dist.ReduceOp.MAX)
    return float(told)
