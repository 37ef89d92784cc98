"""How long `dinov2 report` takes for a long run, and how large its page is.

In: how many steps, looks and films. Out: seconds of the whole command in a new process, its peak memory, bytes of the
page. The run is made up (`report_run`); a line is logged every step unless told otherwise, ten times as many as usual.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from dinov2.bench.machine import machine_facts
from dinov2.bench.progress import announced
from dinov2.bench.report_run import Size, write_run
from dinov2.errors import ConfigError

MOST_SECONDS, MOST_BYTES = 20.0, 15_000_000  # for a run of 100,000 steps with 64 looks at 12 films


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `dinov2 bench report`."""
    parser.add_argument("--steps", type=int, default=100_000, help="of the run (default 100000)")
    parser.add_argument("--log-every", type=int, default=1, help="steps from line to line (default 1)")
    parser.add_argument("--looks", type=int, default=64, help="of the monitors (default 64)")
    parser.add_argument("--films", type=int, default=12, help="that every look shows (default 12)")
    parser.add_argument("--grid", type=int, default=37, help="patches a side (default 37: 518 px of patch 14)")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Makes a run up and reports it in a new process.  Raises ConfigError for counts that make no run."""
    if min(arguments.steps, arguments.log_every, arguments.grid) < 1 or min(arguments.looks, arguments.films) < 0:
        raise ConfigError("--steps, --log-every and --grid: give 1 or more; --looks and --films: 0 or more.")
    size = Size(
        num_steps=arguments.steps,
        every=arguments.log_every,
        num_looks=arguments.looks,
        num_films=arguments.films,
        grid=arguments.grid,
    )
    with tempfile.TemporaryDirectory() as name, announced("bench report", total=2) as tell:
        tell("making a run up")
        folder, page = write_run(Path(name) / "run", size=size), Path(name) / "page.html"
        tell("dinov2 report")
        words = [sys.executable, "-m", "dinov2", "report", str(folder), "--output", str(page)]
        before, begun = _processor_seconds(), time.perf_counter()
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - begun
        if done.returncode:
            raise ConfigError(f"dinov2 report ended with exit code {done.returncode}: {done.stderr.strip()[-500:]}")
        return {
            "machine": machine_facts(torch.device("cpu")),
            "settings": vars(size),
            "seconds": seconds,
            "processor_seconds": _processor_seconds() - before,
            "peak_bytes": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024,
            "page_bytes": page.stat().st_size,
            "log_bytes": sum((folder / file).stat().st_size for file in ("training_metrics.json", "logs/timing.json")),
        }


def table(result: dict[str, Any]) -> Table:
    """What it took beside what it may take."""
    size = result["settings"]
    shown = Table(
        title=f"dinov2 report of {size['num_steps']:,} steps, a line every {size['every']}, {size['num_looks']} "
        f"looks at {size['num_films']} films of {size['grid']} x {size['grid']} patches"
    )
    for column in ("what", "measured", "at most"):
        shown.add_column(column, justify="left" if column == "what" else "right")
    shown.add_row("whole command", f"{result['seconds']:.1f} s", f"{MOST_SECONDS:.0f} s")
    shown.add_row("its processor time", f"{result['processor_seconds']:.1f} s", "")
    shown.add_row("page", f"{result['page_bytes'] / 1e6:.1f} MB", f"{MOST_BYTES / 1e6:.0f} MB")
    shown.add_row("peak memory", f"{result['peak_bytes'] / 2**20:.0f} MiB", "")
    shown.add_row("lines read", f"{result['log_bytes'] / 1e6:.0f} MB", "")
    return shown


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
