"""Does the loader keep up? A real `dinov2 train` of a few steps on synthetic films, in a process of its own.

In: sizes, a number format, a number of workers. Out: pictures a second, and the share of the time in which the step
waited for a batch, from the run's own logs/timing.json. The first steps, in which workers start and kernels are
compiled, are left out.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from dinov2.bench.case import Case, Form, add_case_arguments, add_form_arguments, case_of, config_of, config_words
from dinov2.bench.loader import draw_films
from dinov2.bench.machine import device_of, machine_facts
from dinov2.bench.progress import announced
from dinov2.errors import ConfigError, TrainingError
from dinov2.train.log import read_lines

NUM_FILMS = 64  # drawn; the run goes over them again and again
MOST_WORKERS = 16
LAST_WORDS = 12  # lines of a run that failed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this measurement."""
    add_case_arguments(parser)
    add_form_arguments(parser, precision=["bf16"])
    parser.add_argument("--steps", type=int, default=30, help="of the training (default 30)")
    parser.add_argument("--warm-up", type=int, default=10, help="of these, not measured (default 10)")
    parser.add_argument(
        "--workers", type=int, help=f"of the loader (default: the cores less one, {MOST_WORKERS} at most)"
    )


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Trains with the first of the given settings; rates of the steps after the warm-up.

    Raises:
        ConfigError: fewer steps than are left out, or sizes that do not fit each other.
        TrainingError: the training failed; with its last words.
    """
    device, case = device_of(arguments.device), case_of(arguments)
    cores = len(os.sched_getaffinity(0))
    workers = arguments.workers if arguments.workers is not None else min(max(cores - 1, 1), MOST_WORKERS)
    if not 0 <= arguments.warm_up < arguments.steps or workers < 0:
        raise ConfigError(
            f"--steps {arguments.steps} --warm-up {arguments.warm_up} --workers {workers}: give more steps than "
            "are left out, and no negative number."
        )
    form = Form(
        precision=arguments.precision[0],
        attention=arguments.attention[0],
        compile=arguments.compile[0],
        checkpointing=arguments.checkpointing[0],
    )
    config_of(case, form, device=device)  # a wrong size is told before anything is drawn
    with tempfile.TemporaryDirectory() as name, announced("bench feed", total=2) as tell:
        folder = Path(name)
        tell(f"drawing {NUM_FILMS} films")
        (folder / "films").mkdir()
        draw_films(folder / "films", count=NUM_FILMS)
        tell(f"training for {arguments.steps} steps")
        words = [*config_words(case, form, device=device), *_training_words(folder, arguments, workers=workers)]
        _train(folder, words)
        lines = [line for line in read_lines(folder / "run/logs/timing.json") if line["step"] > arguments.warm_up]
    seconds, waited = (sum(line[key] for line in lines) for key in ("seconds_per_step", "data_wait_seconds"))
    return {
        "machine": machine_facts(device),
        "settings": asdict(case) | asdict(form) | {"workers": workers, "device": device.type},
        "num_steps": len(lines),
        "seconds_per_step": seconds / len(lines),
        "data_wait_seconds": waited / len(lines),
        "data_wait_share": waited / seconds,
        "pictures_per_second": case.batch_size * len(lines) / seconds,
    }


def table(result: dict[str, Any]) -> Table:
    """One row."""
    machine, settings = result["machine"], result["settings"]
    case = Case(**{name: settings[name] for name in asdict(Case())})
    shown = Table(
        title=f"a training of {case}, {settings['precision']},\nfed by {settings['workers']} workers on "
        f"{machine['device']}, {machine['cores']} cores",
        caption="waits: share of the time in which the step waited for a batch",
    )
    for column in ("steps", "s/step", "waits s/step", "waits", "pictures/s"):
        shown.add_column(column, justify="right")
    numbers = (f"{result['seconds_per_step']:.3f}", f"{result['data_wait_seconds']:.3f}")
    shares = (f"{result['data_wait_share']:.1%}", f"{result['pictures_per_second']:.2f}")
    shown.add_row(str(result["num_steps"]), *numbers, *shares)
    return shown


def _training_words(folder: Path, arguments: argparse.Namespace, *, workers: int) -> list[str]:
    """What the training is told besides its case; it logs every step and saves only at its end."""
    return [
        f"train.dataset_path={folder / 'films'}",
        f"train.num_workers={workers}",
        "augmentation.preset=cxr",
        f"optim.total_steps={arguments.steps}",
        "optim.warmup_steps=1",
        "optim.freeze_last_layer_steps=0",
        "teacher.warmup_teacher_temp_steps=1",
        "evaluation.eval_period_iterations=0",
        f"checkpoint.every_steps={arguments.steps}",
        "checkpoint.self_test=false",
        "logging.every_steps=1",
    ]


def _train(folder: Path, words: list[str]) -> None:
    defaults = folder / "defaults.yaml"
    defaults.write_text("{}\n")  # all that differs from the defaults is said in words
    command = [sys.executable, "-m", "dinov2", "train", "--config-file", str(defaults)]
    command += ["--output-dir", str(folder / "run"), *words]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        told = "\n".join(done.stdout.splitlines()[-LAST_WORDS:])
        raise TrainingError(f"the training that was to be measured ended with exit code {done.returncode}:\n{told}")
