"""A run of the training in this process: as `dinov2 train` makes it, without the start of an interpreter each time."""

from collections.abc import Iterator
from pathlib import Path

from dinov2.config.schema import Config
from dinov2.data.board import WorkerBoard
from dinov2.distributed import open_world
from dinov2.distributed.pulse import PulseLimits, open_pulse
from dinov2.train import loop
from dinov2.train.events import Event, Message, StepReport
from dinov2.train.run_folder import open_run_folder
from dinov2.train.signals import StopRequest

PATIENT = PulseLimits(lost_seconds=60, stall_seconds=600, slow_data_seconds=600)


def events_of(config: Config, run: Path, *, stop_after: int | None = None) -> Iterator[Event]:
    """Everything that a run on the CPU says; it is asked to stop once it has reported the step `stop_after`."""
    stop = StopRequest()
    board = WorkerBoard(0)
    with (
        open_world({}, device="cpu") as world,
        open_pulse(world, limits=PATIENT, say=print, data_details=board.words) as pulse,
        open_run_folder(run, is_main=True) as folder,
    ):
        for event in loop.run(config, folder=folder, world=world, stop=stop, pulse=pulse, board=board):
            if isinstance(event, StepReport) and event.step == stop_after:
                stop.level = 1
            yield event


def finished(config: Config, run: Path, *, stop_after: int | None = None) -> tuple[str, list[StepReport]]:
    """What the run said in words, and its logged steps."""
    events = list(events_of(config, run, stop_after=stop_after))
    words = "\n".join(event.text for event in events if isinstance(event, Message))
    return words, [event for event in events if isinstance(event, StepReport)]
