"""What all processes agree on between two steps.

In: what each has seen: signals, files that cannot be read, a checkpoint that could not be written. Out: the same
`Agreed` on every one, so that all go on, stop or fail together; or an error that every process raises.
"""

from dataclasses import dataclass

from dinov2.distributed import agree_on, gather_values
from dinov2.errors import CheckpointError, DataError
from dinov2.train.run import Run
from dinov2.train.signals import StopRequest, signal_name


@dataclass(frozen=True)
class Agreed:
    """What holds for all processes."""

    stop: str | None = None  # the signal that one of them got


def agree_between_steps(this: Run, *, stop: StopRequest) -> Agreed:
    """One small exchange; a second one only where there is something to tell.

    Raises CheckpointError or DataError, on every process alike.
    """
    replaced = [bad for batch in this.batches for bad in batch.replaced]
    new = {bad.path: bad.reason for bad in replaced if bad.path not in this.unreadable.files}
    failure = this.store.failure()
    level, failed, unreadable = agree_on([stop.level, int(failure is not None), int(bool(new))], world=this.world)
    if failed:
        error = failure or _failure_elsewhere(this)
        error.everywhere = True
        raise error
    if unreadable:
        _tell_all(this, new)
    return Agreed(stop=signal_name(level))


def _tell_all(this: Run, new: dict[str, str]) -> None:
    try:
        for files in gather_values(new, world=this.world):
            this.unreadable.merge(files)
    except DataError as error:
        error.everywhere = True
        raise


def _failure_elsewhere(this: Run) -> CheckpointError:
    """This process has not heard of it yet: it hears of it while it waits for the save to end."""
    try:
        this.store.wait()
    except CheckpointError as error:
        return error
    return CheckpointError(f"{this.folder.checkpoints}: another process could not write its part of a checkpoint.")
