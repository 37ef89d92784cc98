"""`dinov2 train`: a run on this process, or on all processes that torchrun started."""

import argparse
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from dinov2.cli import COMMANDS, INTERRUPTED
from dinov2.cli.console import stderr, stdout
from dinov2.cli.train_table import StepTable, open_table, step_line

if TYPE_CHECKING:
    from dinov2.config.load import LoadedConfig
    from dinov2.train.events import Ended, Event, StepReport
    from dinov2.train.run_folder import RunFolder
    from dinov2.train.signals import StopRequest

EXAMPLES = """examples:
  dinov2 train --config-file cpu_smoke --output-dir runs/first train.dataset_path=pictures/manifest.parquet
  torchrun --nproc-per-node 4 -m dinov2 train --config-file vitb14_cxr --output-dir runs/b14 train.batch_size_per_gpu=40

A run folder that holds a checkpoint is continued. Ctrl-C, SIGTERM, SIGUSR1 and SIGUSR2 save a checkpoint first (exit
code 130); in a SLURM job the last two, and preemption, also put the job back into the queue."""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the sub-command."""
    parser = commands.add_parser(
        "train",
        help=COMMANDS["train"],
        description="Train; metrics, checkpoints and the exported teacher appear in the run folder.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config-file", required=True, metavar="F", help="a YAML file, or the name of a shipped one such as cpu_smoke"
    )
    parser.add_argument("--output-dir", required=True, metavar="RUN", type=Path, help="the run folder")
    parser.add_argument("--no-resume", action="store_true", help="start anew; what is in the run folder is kept aside")
    parser.add_argument("overrides", nargs="*", metavar="a.b=c", help="settings that win over the file")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Trains; an error is told while signals are still held back, for torchrun ends the others after the first."""
    from dinov2.errors import Dinov2Error
    from dinov2.train.signals import stop_on_signals

    with stop_on_signals() as stop:
        try:
            return _train(arguments, stop=stop)
        except Dinov2Error as error:
            log = logging.getLogger("dinov2")
            if log.handlers:  # there is a run folder: `dinov2 runs` reads the last words there
                log.error(str(error))
            if not error.everywhere or _is_main_process():
                print(f"dinov2 train: {error}", file=sys.stderr, flush=True)
            return error.exit_code


def _is_main_process() -> bool:
    """By the variables of whatever started this one; needed before and after there is a world."""
    return (os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or "0") == "0"


def _is_first_start() -> bool:
    """Whether neither torchrun nor SLURM has started this very run before; then it is to go on, whatever was asked."""
    counts = (os.environ.get(name) for name in ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"))
    return not any(int(count) for count in counts if count)


def _load(arguments: argparse.Namespace) -> "LoadedConfig":
    from dinov2.config.load import load_config
    from dinov2.config.presets import find_config
    from dinov2.errors import Dinov2Error

    try:
        return load_config(find_config(arguments.config_file), overrides=arguments.overrides)
    except Dinov2Error as error:
        error.everywhere = True
        raise


def _train(arguments: argparse.Namespace, *, stop: "StopRequest") -> int:
    """Loads the configuration, opens the world and the folder, and shows what the run says."""
    from dinov2.bench.workload import workload_of
    from dinov2.data.board import WorkerBoard
    from dinov2.distributed import open_world
    from dinov2.distributed.pulse import PulseLimits, open_pulse
    from dinov2.train import loop
    from dinov2.train.run import num_workers
    from dinov2.train.run_folder import open_run_folder

    loaded = _load(arguments)
    config, runtime = loaded.config, loaded.config.runtime
    limits = PulseLimits(
        lost_seconds=runtime.lost_seconds,
        stall_seconds=runtime.stall_seconds,
        slow_data_seconds=runtime.slow_data_seconds,
    )
    speaker = _Speaker()
    board = WorkerBoard(num_workers(config))
    with (
        open_world(device=runtime.device, timeout_seconds=runtime.exchange_timeout_seconds, say=speaker.warn) as world,
        open_pulse(world, limits=limits, say=speaker.warn, data_details=board.words) as pulse,
        open_run_folder(arguments.output_dir, is_main=world.is_main) as folder,
    ):
        if world.is_main:
            aside = folder.set_aside() if arguments.no_resume and _is_first_start() else None
            speaker.open(folder)
            if aside:
                speaker.say(f"--no-resume: what an earlier run left in {folder.path} now lies in {aside}")
        for message in loaded.messages:
            speaker.say(message)
        events = loop.run(
            config,
            folder=folder,
            world=world,
            stop=stop,
            pulse=pulse,
            board=board,
            workload=workload_of(config, world=world),
        )
        with open_table(config.logging.console if world.is_main else "lines", title=str(folder.path)) as speaker.table:
            return _show(events, speaker=speaker, folder=folder, requeue=runtime.requeue)


class _Speaker:
    """Lines on the screen and in the run's log; of several processes only the main one opens the log and speaks.

    On a terminal a table of the newest step stands below the lines.
    """

    def __init__(self) -> None:
        self.is_open = False
        self.table: StepTable | None = None
        self._log = logging.getLogger("dinov2")
        self._log.setLevel(logging.INFO)

    def open(self, folder: "RunFolder") -> None:
        """From now on everything is shown, and written to the run's log."""
        handler = logging.FileHandler(folder.log_file)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self._log.addHandler(handler)
        self.is_open = True

    def say(self, text: str, *, style: str | None = None, whole: bool = False) -> None:
        """One line; on a terminal it is broken between words, unless it is to be copied from there `whole`."""
        if self.is_open:
            stdout.print(text, style=style, markup=False, soft_wrap=whole or not stdout.is_terminal)
            self._log.info(text)

    def message(self, text: str, *, warning: bool) -> None:
        """One line of the run; a warning stays in the table for a while."""
        self.say(text, style="yellow" if warning else None)
        if warning and self.table is not None:
            self.table.warn(text)

    def step(self, report: "StepReport") -> None:
        """A logged step: a line in the log, and on the screen a line or the table."""
        if self.is_open and self.table is not None:
            self.table.show(report)
            self._log.info(step_line(report))
        else:
            self.say(step_line(report))

    def warn(self, text: str) -> None:
        """One line that should be looked at, from whichever process says it."""
        stderr.print(text, style="yellow", markup=False, soft_wrap=True)
        if self.is_open:
            self._log.warning(text)


def _show(events: "Iterator[Event]", *, speaker: _Speaker, folder: "RunFolder", requeue: bool) -> int:
    from dinov2.train.events import Ended, Exported, Message, Saved, StepReport

    code = 0
    for event in events:
        match event:
            case Message(text=text, warning=warning):
                speaker.message(text, warning=warning)
            case StepReport():
                speaker.step(event)
            case Saved(step=step, path=path):
                speaker.say(f"step {step}: checkpoint {path}", style="dim")
            case Exported(step=step, path=path):
                speaker.say(f"step {step}: exported {path} (read back: features equal)", style="dim")
            case Ended():
                code = INTERRUPTED if event.stopped_by else 0
                if speaker.table is not None:
                    speaker.table.stop()  # it stays where it is, and the last lines stand below it
                _say_what_next(speaker, event, folder=folder)
                if event.stopped_by and requeue and speaker.is_open:
                    _put_back(speaker, stopped_by=event.stopped_by)
    return code


def _put_back(speaker: _Speaker, *, stopped_by: str) -> None:
    """In a SLURM job that is being pushed out or has reached the end of its time: back into the queue."""
    from dinov2.launch import puts_back, requeue

    if puts_back(stopped_by):
        speaker.say(requeue())


def _say_what_next(speaker: _Speaker, event: "Ended", *, folder: "RunFolder") -> None:
    step = event.step
    if event.stopped_by:
        speaker.say(
            f"stopped by {event.stopped_by} at step {step} of {event.total_steps}; the checkpoint of step "
            f"{event.saved_step} is whole. Run the same command again to continue."
        )
        return
    best = folder.exports / "best"
    lines = [
        f"done: {step} steps.",
        f"  metrics    {folder.metrics_file}",
        f"  backbone   {folder.exports / str(step)}/backbone.safetensors",
        *([f"  best       {best}/backbone.safetensors"] if best.is_dir() else []),
        "next:",
        f"  dinov2 report {folder.path}",
        f"  dinov2 export --checkpoint {folder.path} --output-dir exported",
        f"  dinov2 eval knn --backbone {folder.path} --dataset LABELLED.parquet --labels ... --output-dir scores",
        f"  python -c \"import dinov2; print(dinov2.load_backbone('{folder.exports / str(step)}'))\"",
    ]
    for line in lines:
        speaker.say(line, whole=True)
