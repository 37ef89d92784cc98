"""What went wrong with a checkpoint, in one message.

In: whatever torch or the operating system raised, on whichever process. Out: a CheckpointError that says what happened,
where, and what to do.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist
import torch.distributed.checkpoint as dcp

from dinov2.errors import CheckpointError

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)
SIGNS_OF_A_LOST_PROCESS = ("Connection closed by peer", "Timed out", "Connection reset", "timed out", "Broken pipe")


@contextmanager
def as_checkpoint_error(what: str) -> Iterator[None]:
    """Anything that fails inside becomes a CheckpointError that begins with `what`."""
    try:
        yield
    except CheckpointError:
        raise
    except (OSError, RuntimeError, ValueError, dcp.CheckpointException) as error:
        raise checkpoint_error(what, error) from error


def checkpoint_error(what: str, error: BaseException) -> CheckpointError:
    """One message; torch wraps what went wrong on each process, so the cause is dug out.

    An interruption by the user that torch wrapped is raised again as what it is.
    """
    if isinstance(error, CheckpointError):
        return error
    where, cause = _cause(error)
    if isinstance(cause, KeyboardInterrupt | SystemExit):
        raise cause
    if isinstance(cause, CheckpointError):
        return cause
    if isinstance(cause, OSError) and cause.errno in DISK_FULL:
        return CheckpointError(
            f"{what}: the disk is full{where} ({cause.strerror}). Earlier checkpoints are whole; free some space and "
            "run the same command again to continue from the last of them."
        )
    if isinstance(cause, OSError) and cause.errno in NOT_ALLOWED:
        return CheckpointError(
            f"{what}: not allowed{where} ({cause}). Earlier checkpoints are whole; make the folder accessible and run "
            "the same command again to continue from the last of them."
        )
    if any(sign in str(cause) for sign in SIGNS_OF_A_LOST_PROCESS):
        return CheckpointError(
            f"{what}: another process of the run ended, or its storage did not answer in time"
            f"{where} ({_first_line(cause)}). Earlier checkpoints are whole; run the same command again to continue "
            "from the last of them; raise runtime.exchange_timeout_seconds if the storage is slow."
        )
    return CheckpointError(f"{what}{where}: {cause if isinstance(cause, OSError) else _first_line(cause)}")


def _cause(error: BaseException) -> tuple[str, BaseException]:
    """Which process failed first (words, empty where there is one process) and with what."""
    if not isinstance(error, dcp.CheckpointException):
        return "", _first_os_error(error) or _full_disk_by_message(error) or error
    found = [
        (rank, _first_os_error(failure[0]) or _full_disk_by_message(failure[0]))
        for rank, failure in sorted(error.failures.items())
    ]
    rank, cause = next((pair for pair in found if pair[1] is not None), (found[0][0], None))
    where = f" on process {rank}" if dist.is_initialized() and dist.get_world_size() > 1 else ""
    return where, cause or error.failures[rank][0]


def _first_os_error(error: BaseException) -> OSError | CheckpointError | None:
    current: BaseException | None = error
    while current is not None:
        if isinstance(current, OSError | CheckpointError):
            return current
        current = current.__cause__ or current.__context__
    return None


def _full_disk_by_message(error: BaseException) -> OSError | None:
    """torch's zip writer reports a full disk as a RuntimeError about the file's position."""
    signs = ("PytorchStreamWriter failed", "unexpected pos", "iostream error")
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) if any(sign in str(error) for sign in signs) else None


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
