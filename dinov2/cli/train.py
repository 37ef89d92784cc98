"""`dinov2 train`: a run on this process, or on all processes that torchrun started."""

import argparse
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from dinov2.cli import COMMANDS, INTERRUPTED
from dinov2.cli.console import stdout

if TYPE_CHECKING:
    from dinov2.train.events import Event, StepReport
    from dinov2.train.run_folder import RunFolder

EXAMPLES = """examples:
  dinov2 train --config-file cpu_smoke --output-dir runs/first train.dataset_path=pictures/manifest.parquet
  torchrun --nproc-per-node 4 -m dinov2 train --config-file vitb14_cxr --output-dir runs/b14 train.batch_size_per_gpu=40

A run folder that holds a checkpoint is continued. Ctrl-C or SIGTERM saves a checkpoint first (exit code 130)."""


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
    """Loads the configuration, opens the world and the folder, and shows what the run says."""
    from dinov2.config.load import load_config
    from dinov2.config.presets import find_config
    from dinov2.distributed import open_world
    from dinov2.train import loop
    from dinov2.train.run_folder import open_run_folder
    from dinov2.train.signals import stop_on_signals

    loaded = load_config(find_config(arguments.config_file), overrides=arguments.overrides)
    with (
        open_world(device=loaded.config.runtime.device) as world,
        open_run_folder(arguments.output_dir, is_main=world.is_main) as folder,
        stop_on_signals() as stop,
    ):
        speaker = _Speaker(folder, quiet=not world.is_main)
        for message in loaded.messages:
            speaker.say(message)
        events = loop.run(loaded.config, folder=folder, world=world, resume=not arguments.no_resume, stop=stop)
        return _show(events, speaker=speaker, folder=folder)


class _Speaker:
    """Lines on the screen and in the run's log; only the main process speaks."""

    def __init__(self, folder: "RunFolder", *, quiet: bool) -> None:
        self._quiet = quiet
        self._log = logging.getLogger("dinov2")
        self._log.setLevel(logging.INFO)
        if not quiet:
            handler = logging.FileHandler(folder.log_file)
            handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
            self._log.addHandler(handler)

    def say(self, text: str, *, style: str | None = None) -> None:
        """One line."""
        if not self._quiet:
            stdout.print(text, style=style, markup=False)
            self._log.info(text)


def _show(events: "Iterator[Event]", *, speaker: _Speaker, folder: "RunFolder") -> int:
    from dinov2.train.events import Ended, Exported, Message, Saved, StepReport

    code = 0
    for event in events:
        match event:
            case Message(text=text, warning=warning):
                speaker.say(text, style="yellow" if warning else None)
            case StepReport():
                speaker.say(step_line(event))
            case Saved(step=step, path=path):
                speaker.say(f"step {step}: checkpoint {path}", style="dim")
            case Exported(step=step, path=path):
                speaker.say(f"step {step}: exported {path} (read back: features equal)", style="dim")
            case Ended(step=step, total_steps=total, interrupted=interrupted):
                code = INTERRUPTED if interrupted else 0
                _say_what_next(speaker, folder=folder, step=step, total=total, interrupted=interrupted)
    return code


def step_line(report: "StepReport") -> str:
    """One line of progress: cross-entropies are shown against ln K, the value of a uniform (collapsed) solution."""
    import math

    metrics, timing = report.metrics, report.timing
    words = [f"step {report.step}/{report.total_steps}", f"{timing['pictures_per_second']:.1f} img/s"]
    words.append(f"wait {100 * timing['data_wait_seconds'] / timing['seconds_per_step']:.0f}%")
    words.append(f"loss {metrics['total_loss']:.4f}")
    for name, prototypes in report.prototypes.items():
        if (value := metrics.get(f"{name}_cross_entropy")) is not None:
            words.append(f"{name} {value:.3f}/{math.log(prototypes):.3f}")
    if "koleo_loss" in metrics:
        words.append(f"koleo {metrics['koleo_loss']:.3f}")
    if "teacher_entropy" in metrics:
        words.append(f"teacher entropy {metrics['teacher_entropy']:.3f}")
    if metrics["skipped"]:
        words.append("SKIPPED (overflow)")
    words.append(f"lr {metrics['lr']:.2e}")
    words.append(f"left {_duration(timing['seconds_left'])}")
    return "  ".join(words)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _say_what_next(speaker: _Speaker, *, folder: "RunFolder", step: int, total: int, interrupted: bool) -> None:
    if interrupted:
        speaker.say(
            f"stopped at step {step} of {total}; the checkpoint is whole. Run the same command again to continue."
        )
        return
    speaker.say(f"done: {total} steps.")
    speaker.say(f"  metrics    {folder.metrics_file}")
    speaker.say(f"  backbone   {folder.exports / str(step)}/backbone.safetensors")
    speaker.say("next:")
    speaker.say(f"  dinov2 export --checkpoint {folder.path} --output-dir exported")
    speaker.say(f"  python -c \"import dinov2; print(dinov2.load_backbone('{folder.exports / str(step)}'))\"")
