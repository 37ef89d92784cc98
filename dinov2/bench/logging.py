"""What the loggers cost a step.

In: which loggers, the length of a realistic step. Out: for each, processor seconds for one logged step (of all threads
of this process and of those that the logger starts, until it is closed; an upper bound of what the training can lose
to them), the time in which the training's own thread hands the numbers over, both as a share of a realistic step, and
the median step of a real tiny run with and without it. The same for the files that every run writes, and the machine's
figures in them, which the training's thread does itself.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import torch
from rich.table import Table

from dinov2.bench.loader import draw_films
from dinov2.bench.machine import machine_facts
from dinov2.bench.progress import announced
from dinov2.errors import TrainingError
from dinov2.train.events import StepReport
from dinov2.train.log import JsonLines, read_lines
from dinov2.train.loggers.courier import Courier
from dinov2.train.loggers.logger import Numbers, Place
from dinov2.train.loggers.loggers import LOGGERS, points
from dinov2.train.loggers.system import System

NUM_FILMS = 32
LAST_CHARACTERS = 2000  # of a run that failed
STEP_SECONDS = 1.44  # RAD-DINO: 2,560 A100 hours (model card) over 64 GPUs and 100,000 steps
RUN = (
    "student.arch=vit_custom", "student.patch_size=8", "student.embed_dim=64", "student.depth=2", "student.num_heads=2",
    "crops.global_crops_size=64", "crops.local_crops_size=32", "crops.local_crops_number=2",
    "dino.head_n_prototypes=256", "dino.head_hidden_dim=64", "dino.head_bottleneck_dim=32",
    "train.batch_size_per_gpu=8", "train.num_workers=0", "optim.warmup_steps=1", "optim.freeze_last_layer_steps=1",
    "teacher.warmup_teacher_temp_steps=1", "checkpoint.self_test=false", "monitors.every_steps=0",
    "logging.every_steps=1", "runtime.device=cpu", "runtime.precision=fp32",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this measurement."""
    parser.add_argument("--loggers", nargs="+", choices=tuple(LOGGERS), default=list(LOGGERS), help="default: all")
    parser.add_argument("--steps", type=int, default=40, help="of each tiny run (default 40)")
    parser.add_argument("--points", type=int, default=200, help="logged steps that are timed alone (default 200)")
    parser.add_argument("--every-steps", type=int, default=10, help="logging.every_steps of the share (default 10)")
    parser.add_argument(
        "--step-seconds", type=float, default=STEP_SECONDS, help=f"a realistic step (default {STEP_SECONDS}, RAD-DINO)"
    )


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """A row for each logger.  Raises TrainingError where a run fails."""
    names: list[str] = arguments.loggers
    os.environ.setdefault("WANDB_MODE", "offline")
    with tempfile.TemporaryDirectory() as temporary, announced("bench logging", total=3 + 2 * len(names)) as tell:
        folder = Path(temporary)
        tell("drawing films")
        (folder / "films").mkdir()
        draw_films(folder / "films", count=NUM_FILMS)
        tell("a run without loggers")
        plain = _train(folder, "", steps=arguments.steps)
        report = report_of(folder / "run_", total=arguments.steps)
        each = arguments.every_steps * arguments.step_seconds
        tell("the files of every run")
        rows = [_row("files", cost_of_files(folder, report=report, count=arguments.points), each=each, seconds=plain)]
        for name in names:
            tell(f"{name} alone")
            place = Place(
                folder=folder / f"alone_{name}", project="bench", run_name=name, tracking_uri="", settings={"a": "b"}
            )
            row = cost_of(name, place=place, report=report, count=arguments.points)
            tell(f"a run with {name}")
            rows.append(_row(name, row, each=each, seconds=_train(folder, name, steps=arguments.steps)))
    settings = {"every_steps": arguments.every_steps, "step_seconds": arguments.step_seconds, "steps": arguments.steps}
    return {
        "machine": machine_facts(torch.device("cpu")),
        "settings": settings,
        "num_points": len(points(report)),
        "plain_seconds_per_step": plain,
        "rows": rows,
    }


def table(result: dict[str, Any]) -> Table:
    """The rows as a table."""
    settings, machine = result["settings"], result["machine"]
    shown = Table(
        title=f"{result['num_points']} curves, on {machine['device']}, {machine['cores']} cores",
        caption=f"share: of {settings['step_seconds']:g} s a step, logged every {settings['every_steps']} steps; the "
        f"processor time counts in full, as if the training had to wait for it.\nRuns: median step, logged at every "
        f"step; {1000 * result['plain_seconds_per_step']:.1f} ms without a logger.",
    )
    for heading in ("logger", "processor ms", "handing over ms", "share of a step", "tiny run ms"):
        shown.add_column(heading, justify="left" if heading == "logger" else "right")
    for row in result["rows"]:
        times = (1000 * row[key] for key in ("processor_seconds", "hand_over_seconds", "run_seconds_per_step"))
        processor, hand_over, run_ms = times
        shown.add_row(row["logger"], f"{processor:.2f}", f"{hand_over:.4f}", f"{row['share']:.3%}", f"{run_ms:.1f}")
    return shown


def cost_of(name: str, *, place: Place, report: StepReport, count: int) -> dict[str, float]:
    """Means over `count` logged steps."""
    _, kind = LOGGERS[name]
    logger = kind(place, after_step=0)
    values = points(report)
    logger.numbers(1, values)
    started = _spent()
    for step in range(2, count + 2):
        logger.numbers(step, values)
    logger.close("finished")
    processor = (_spent() - started) / count
    courier = Courier(name, lambda _: logger, after_step=0)  # never started: only what handing over takes
    started = time.perf_counter()
    for step in range(count):
        courier.put(Numbers(step=step, values=points(report)))
    return {"processor_seconds": processor, "hand_over_seconds": (time.perf_counter() - started) / count}


def cost_of_files(folder: Path, *, report: StepReport, count: int) -> dict[str, float]:
    """Means over `count` logged steps of what every run does, all of it in the training's thread."""
    system = System(torch.device("cpu"), workload=None)
    with (
        JsonLines(folder / "metrics.json", keep_until_step=0) as metrics,
        JsonLines(folder / "timing.json", keep_until_step=0) as timing,
    ):
        processor, started = _spent(), time.perf_counter()
        for step in range(count):
            metrics.write(step, report.metrics)
            timing.write(step, report.timing | system.figures(seconds=1.0))
        seconds, processor = time.perf_counter() - started, _spent() - processor
    return {"processor_seconds": processor / count, "hand_over_seconds": seconds / count}


def _row(name: str, costs: dict[str, float], *, each: float, seconds: float) -> dict[str, Any]:
    """`each`: seconds between two logged steps; `seconds`: of a step of the tiny run."""
    share = (costs["processor_seconds"] + costs["hand_over_seconds"]) / each
    return {"logger": name} | costs | {"share": share, "run_seconds_per_step": seconds}


def _spent() -> float:
    """Processor seconds of this process, and of those that it has started."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = time.process_time() + ended.ru_utime + ended.ru_stime
    for child in psutil.Process().children(recursive=True):  # by a clock of hundredths of a second
        times = child.cpu_times()
        spent += times.user + times.system
    return float(spent)


def report_of(run: Path, *, total: int) -> StepReport:
    """The last logged step of a run."""
    lines = (read_lines(run / name)[-1] for name in ("training_metrics.json", "logs/timing.json"))
    metrics, timing = ({key: float(value) for key, value in line.items() if key != "step"} for line in lines)
    return StepReport(step=total, total_steps=total, metrics=metrics, timing=timing, prototypes={})


def _train(folder: Path, logger: str, *, steps: int) -> float:
    """Median seconds of a step of a real run; the first three, in which all begins, are left out."""
    words = [sys.executable, "-m", "dinov2", "train", "--config-file", "ssl_default_config"]
    words += ["--output-dir", str(folder / f"run_{logger}"), f"train.dataset_path={folder / 'films'}", *RUN]
    words += [f"optim.total_steps={steps}", f"logging.loggers=[{logger}]"]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    if done.returncode:
        raise TrainingError(f"dinov2 bench logging: the run failed.\n{(done.stdout + done.stderr)[-LAST_CHARACTERS:]}")
    lines = read_lines(folder / f"run_{logger}" / "logs/timing.json")
    return float(statistics.median(line["seconds_per_step"] for line in lines[3:]))
