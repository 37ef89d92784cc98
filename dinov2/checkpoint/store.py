"""Checkpoints on disk: whole or not there, readable at any number of processes.

In: named tensors and plain facts of a step. Out: `checkpoints/<step>/` with the tensors
(torch.distributed.checkpoint) and `facts.json`. A checkpoint is written beside its place and renamed when everything
is on disk, so a folder that bears a step's number is whole.
"""

import errno
import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from dinov2.errors import CheckpointError

FACTS = "facts.json"


@dataclass(frozen=True, kw_only=True)
class CheckpointStore:
    """The checkpoints of one run; `keep_last` whole ones are kept, 0 keeps all."""

    folder: Path
    keep_last: int

    def steps(self) -> list[int]:
        """Steps of the whole checkpoints, ascending."""
        if not self.folder.is_dir():
            return []
        return sorted(int(p.name) for p in self.folder.iterdir() if p.name.isdigit() and (p / FACTS).is_file())

    def path(self, step: int) -> Path:
        """Where the checkpoint of a step lies."""
        return self.folder / str(step)

    def save(self, step: int, *, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Path:
        """Writes one checkpoint; called by every process of the run with the same step.

        Raises CheckpointError where it cannot be written; earlier checkpoints are untouched then.
        """
        partial, final = self.folder / f".partial-{step}", self.path(step)
        is_main = not dist.is_initialized() or dist.get_rank() == 0
        if is_main:
            shutil.rmtree(partial, ignore_errors=True)
        _wait_for_all()
        try:
            with _as_checkpoint_error(f"{final}: the checkpoint of step {step} could not be written"):
                partial.mkdir(parents=True, exist_ok=True)
                dcp.save(dict(tensors), checkpoint_id=partial, no_dist=not dist.is_initialized())
                if is_main:
                    _write_durably(partial / FACTS, json.dumps({"step": step} | dict(facts), indent=1))
                    shutil.rmtree(final, ignore_errors=True)
                    partial.rename(final)
                    _sync_folder(self.folder)
                    self._drop_old()
        except CheckpointError:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        _wait_for_all()
        return final

    def _drop_old(self) -> None:
        if self.keep_last > 0:
            for step in self.steps()[: -self.keep_last]:
                shutil.rmtree(self.path(step), ignore_errors=True)


def read_facts(checkpoint: Path) -> dict[str, Any]:
    """The plain facts that were saved with a checkpoint.  Raises CheckpointError where the folder holds none."""
    try:
        facts: dict[str, Any] = json.loads((checkpoint / FACTS).read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"{checkpoint}: not a checkpoint of this package ({error}). Expected RUN/checkpoints/STEP."
        ) from error
    return facts


def tensor_names(checkpoint: Path) -> frozenset[str]:
    """Names of the tensors in a checkpoint."""
    with _as_checkpoint_error(f"{checkpoint}: the checkpoint cannot be read"):
        metadata = dcp.FileSystemReader(checkpoint).read_metadata().state_dict_metadata
    return frozenset(name for name, kind in metadata.items() if isinstance(kind, TensorStorageMetadata))


def load_tensors(checkpoint: Path, *, into: Mapping[str, Tensor]) -> None:
    """Fills the given tensors in place from a checkpoint that was written by any number of processes.

    Raises CheckpointError where one is absent or has another shape (both shapes are named).
    """
    with _as_checkpoint_error(f"{checkpoint}: the checkpoint cannot be read"):
        metadata = dcp.FileSystemReader(checkpoint).read_metadata().state_dict_metadata
    faults = []
    for name, tensor in into.items():
        stored = metadata.get(name)
        if not isinstance(stored, TensorStorageMetadata):
            faults.append(f"{name}: absent from the checkpoint, {list(tensor.shape)} in this run")
        elif stored.size != tensor.shape:
            faults.append(f"{name}: {list(stored.size)} in the checkpoint, {list(tensor.shape)} in this run")
    if faults:
        shown = "\n  ".join(faults[:10])
        more = f"\n  ... and {len(faults) - 10} more" if len(faults) > 10 else ""
        raise CheckpointError(
            f"{checkpoint}: {len(faults)} tensors do not fit this run:\n  {shown}{more}\n"
            "Use the configuration that wrote it (config.yaml in the run folder), or another --output-dir."
        )
    with _as_checkpoint_error(f"{checkpoint}: the checkpoint cannot be read"):
        dcp.load(dict(into), checkpoint_id=checkpoint, no_dist=not dist.is_initialized())


def find_checkpoint(path: Path) -> Path:
    """`RUN` (its newest checkpoint) or `RUN/checkpoints/STEP` -> the checkpoint's folder."""
    if (path / FACTS).is_file():
        return path
    for folder in (path / "checkpoints", path):
        store = CheckpointStore(folder=folder, keep_last=0)
        if store.steps():
            return store.path(store.steps()[-1])
    raise CheckpointError(f"{path}: no checkpoint here. Give a run folder of `dinov2 train`, or RUN/checkpoints/STEP.")


@contextmanager
def _as_checkpoint_error(what: str) -> Iterator[None]:
    """Storage faults as one message; torch wraps what went wrong on each process, so the cause is dug out."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # one process is meant
            yield
    except CheckpointError:
        raise
    except (OSError, RuntimeError, ValueError, dcp.CheckpointException) as error:
        cause = _first_os_error(error)
        if cause is not None and cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise CheckpointError(
                f"{what}: the disk is full ({cause.strerror}). Earlier checkpoints are whole; free some space and "
                "run the same command again to continue from the last of them."
            ) from error
        raise CheckpointError(f"{what}: {cause or error}") from error


def _first_os_error(error: BaseException) -> OSError | None:
    if isinstance(error, dcp.CheckpointException):
        candidates = [failure[0] for failure in error.failures.values()]
    else:
        candidates = [error]
    for candidate in candidates:
        current: BaseException | None = candidate
        while current is not None:
            if isinstance(current, OSError):
                return current
            current = current.__cause__ or current.__context__
    return _full_disk_by_message(candidates)


def _full_disk_by_message(candidates: list[BaseException]) -> OSError | None:
    """torch's zip writer reports a full disk as a RuntimeError about the file's position."""
    if any(
        "PytorchStreamWriter failed" in str(c) or "unexpected pos" in str(c) or "iostream error" in str(c)
        for c in candidates
    ):
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return None


def _wait_for_all() -> None:
    if dist.is_initialized():
        dist.barrier()


def _write_durably(path: Path, text: str) -> None:
    with path.open("w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())


def _sync_folder(folder: Path) -> None:
    """A rename is durable once its folder is."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
