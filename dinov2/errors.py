"""What a user of this package may catch.

Every error here is something the user can act on: its message says what, where and what to do. The command line
prints it as one message without a traceback and exits with `exit_code`. Anything else that escapes is a fault of ours
(exit code 1, with traceback).
"""


class Dinov2Error(Exception):
    """Base of all errors that are raised on purpose.

    `everywhere` is set where every process of a run raises the same at the same moment, so that one of them tells it.
    """

    exit_code = 2
    everywhere = False


class ConfigError(Dinov2Error):
    """A configuration that cannot be run; `faults` lists every fault found, not only the first."""

    def __init__(self, message: str, *, faults: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.faults = faults


class DicomRejected(Dinov2Error):
    """One input file that does not become a picture; `reason` is a code of `dinov2.preprocess.reasons`."""

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class ManifestError(Dinov2Error):
    """A manifest, folder or dataset string that does not name usable pictures."""


class DataError(Dinov2Error):
    """Pictures that cannot be read while training, in a share above `data.max_unreadable_share`."""


class WeightsError(Dinov2Error):
    """Weights that do not fit the architecture, or a file that holds none."""


class CheckpointError(Dinov2Error):
    """A checkpoint that cannot be written or does not belong to this run."""


class LaunchError(Dinov2Error):
    """Half a distributed launch, a device that is not there, or a run folder that is taken."""


class TrainingError(Dinov2Error):
    """A training that cannot go on: a loss term or a gradient is not finite."""


class ProcessLost(Dinov2Error):
    """Another process of the run ended or went silent; names it.

    The same command continues from the last checkpoint.
    """

    exit_code = 3


class PictureError(Dinov2Error):
    """A picture or film that cannot be put to a backbone: another depth or number of channels, damaged, or absent."""
