"""What a run tells whoever watches it: the values that `train.loop.run` yields."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Message:
    """One sentence for the log; `warning` where the user should look."""

    text: str
    warning: bool = False


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """A logged step."""

    step: int
    total_steps: int
    metrics: dict[str, float]  # as in training_metrics.json
    timing: dict[str, float]  # as in logs/timing.json
    prototypes: dict[str, int]  # cross-entropy name -> number of prototypes, whose logarithm is the uniform value


@dataclass(frozen=True, kw_only=True)
class Saved:
    """A checkpoint is whole on disk."""

    step: int
    path: Path


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A teacher's files are on disk and were read back."""

    step: int
    path: Path


@dataclass(frozen=True, kw_only=True)
class Ended:
    """The run is over, by its length or because it was told to stop."""

    step: int
    total_steps: int
    stopped_by: str | None  # the signal that ended it early
    saved_step: int  # of the newest checkpoint


Event = Message | StepReport | Saved | Exported | Ended
