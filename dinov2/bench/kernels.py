"""The pieces of a step side by side: attention by name, losses, Sinkhorn, the optimiser, the teacher's average, norms.

In: sizes and a number format. Out: for every way to do a piece its time, its rate, the share of the ceiling that bounds
it (matrix products or copies of memory, both measured here), and the memory it took. What cannot run here is listed
with the reason.
"""

import argparse
import gc
import statistics
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from dinov2.bench.case import Case, add_case_arguments, add_ceiling_arguments, case_of
from dinov2.bench.ceilings import copy_rate, matrix_rate, seconds_of
from dinov2.bench.kernel_trials import SUBJECTS, Trial, trials
from dinov2.bench.machine import device_of, machine_facts
from dinov2.bench.progress import announced
from dinov2.distributed import keep_freed_memory
from dinov2.errors import ConfigError
from dinov2.forecast.live import LiveBytes, storages
from dinov2.ssl.precision import DTYPES

FEWEST, MOST = 3, 1000  # measured runs of a kernel


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this measurement."""
    add_case_arguments(parser)
    add_ceiling_arguments(parser)
    parser.add_argument("--precision", nargs="+", choices=sorted(DTYPES), default=["bf16"], help="default bf16")
    parser.add_argument("--only", nargs="+", choices=SUBJECTS, default=list(SUBJECTS), help="these pieces alone")
    parser.add_argument(
        "--seconds", type=float, default=1.0, help=f"a kernel runs, at least {FEWEST} times (default 1)"
    )
    parser.add_argument("--compiled", action="store_true", help="also the losses as torch compiles them")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """A row per number format, piece and kernel."""
    if arguments.seconds <= 0:
        raise ConfigError(f"--seconds {arguments.seconds}: expected a number above 0.")
    device, case = device_of(arguments.device), case_of(arguments)
    keep_freed_memory(device)  # as in a training
    rows: list[dict[str, Any]] = []
    rates = {}
    with announced("bench kernels", total=len(arguments.precision) * (1 + len(arguments.only))) as tell:
        copied = copy_rate(device=device, seconds=arguments.ceiling_seconds)
        for precision in arguments.precision:
            tell(f"matrix products in {precision}")
            rates[precision] = matrix_rate(device=device, dtype=DTYPES[precision], seconds=arguments.ceiling_seconds)
            for subject in arguments.only:
                tell(f"{subject}, {precision}")
                tried = trials(subject, case, dtype=DTYPES[precision], device=device, compiled=arguments.compiled)
                for trial in tried:
                    measured = _measure(trial, device=device, seconds=arguments.seconds)
                    rows.append({"precision": precision} | _row(trial, measured, rate=rates[precision], copied=copied))
                gc.collect()
    return {
        "machine": machine_facts(device),
        "ceilings": {"matrix_flops_per_second": rates, "copy_bytes_per_second": copied},
        "settings": asdict(case) | {"preset": arguments.preset, "device": device.type},
        "rows": rows,
    }


def table(result: dict[str, Any]) -> Table:
    """The rows as a table, a line between pieces."""
    machine, ceilings = result["machine"], result["ceilings"]
    case = Case(**{name: result["settings"][name] for name in asdict(Case())})
    rates = ", ".join(f"{name} {rate / 1e12:.2f}" for name, rate in ceilings["matrix_flops_per_second"].items())
    shown = Table(
        title=f"pieces of a training step of {case}\non {machine['device']}, {machine['threads']} threads, "
        f"torch {machine['torch']}",
        caption=f"ceilings: matrix products {rates} TFLOP/s, copies "
        f"{ceilings['copy_bytes_per_second'] / 1e9:.0f} GB/s; share: of the one that bounds the piece; MiB: the most "
        "it held besides what it was given",
    )
    for column in ("format", "piece", "kernel", "passes", "ms", "rate", "share", "MiB"):
        shown.add_column(column, justify="left" if column in ("piece", "kernel", "passes") else "right")
    before = None
    for row in result["rows"]:
        piece = (row["precision"], row["subject"], row["shape"])
        if before is not None and piece != before:
            shown.add_section()
        name = f"{row['subject']}: {row['shape']}" if piece != before else ""
        shown.add_row(row["precision"] if name else "", name, row["kernel"], *_cells(row))
        before = piece
    return shown


def _cells(row: dict[str, Any]) -> list[str]:
    if row["seconds"] is None:
        return [f"cannot run: {row['reason'].partition(';')[0]}", *[""] * 4]
    rate = row["flops_per_second"] / 1e12 if row["flops_per_second"] else row["bytes_per_second"] / 1e9
    unit = "TFLOP/s" if row["flops_per_second"] else "GB/s"
    return [
        row["passes"],
        f"{1000 * row['seconds']:.2f}",
        f"{rate:.3g} {unit}",
        f"{row['share_of_ceiling']:.0%}",
        f"{row['peak_bytes'] / 2**20:.0f}",
    ]


def _row(trial: Trial, measured: dict[str, Any], *, rate: float, copied: float) -> dict[str, Any]:
    about = {name: getattr(trial, name) for name in ("subject", "shape", "kernel", "passes", "flops", "bytes")}
    seconds = measured["seconds"]
    if seconds is None:
        rates = dict.fromkeys(("flops_per_second", "bytes_per_second", "share_of_ceiling"))
        return about | measured | rates
    done = {"flops_per_second": trial.flops / seconds, "bytes_per_second": trial.bytes / seconds}
    share = done["flops_per_second"] / rate if trial.flops else done["bytes_per_second"] / copied
    return about | measured | done | {"share_of_ceiling": share}


def _measure(trial: Trial, *, device: torch.device, seconds: float) -> dict[str, Any]:
    """Seconds of a run (median) and the most bytes it held; or why there are none."""
    if trial.work is None:
        return {"seconds": None, "peak_bytes": None, "num_runs": 0, "reason": trial.reason}
    try:
        trial.work()  # whatever is prepared at the first call
        peak = _peak(trial.work, given=trial.given, device=device)
        times: list[float] = []
        while len(times) < FEWEST or (sum(times) < seconds and len(times) < MOST):
            times.append(seconds_of(trial.work, device=device))
    except (RuntimeError, NotImplementedError) as error:  # torch and xformers refuse a shape, a format or a device so
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return {"seconds": None, "peak_bytes": None, "num_runs": 0, "reason": reason}
    return {"seconds": statistics.median(times), "peak_bytes": peak, "num_runs": len(times), "reason": ""}


def _peak(work: Callable[[], Any], *, given: tuple[Tensor, ...], device: torch.device) -> int:
    """The most bytes of tensors that one run held at a time, besides those that it was given."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return int(torch.cuda.max_memory_allocated(device) - before)
    with LiveBytes(weights=storages(iter(given))) as live:
        work()
    return int(live.timeline().sum(axis=1).max(initial=0))
