"""Checkpoints on disk: whole or not there, readable at any number of processes.

In: named tensors and plain facts of a step. Out: `checkpoints/<step>/` with the tensors
(torch.distributed.checkpoint), `facts.json` and text files; `checkpoints/latest` and `checkpoints/best`, which hold a
step. A checkpoint is written beside its place and renamed when everything is on disk, so a folder that bears a step's
number is whole.

In the background, training waits only until the tensors are copied; the processes agree over a group of their own, so
that nothing they say is mixed with what training says.
"""

import datetime
import json
import shutil
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor

from dinov2.checkpoint.commit import Commit, catch_up_latest, write_facts
from dinov2.checkpoint.environment import environment
from dinov2.checkpoint.faults import checkpoint_error
from dinov2.checkpoint.files import PARTIAL, remove_leftovers
from dinov2.checkpoint.reading import (
    find_checkpoint,
    load_tensors,
    newest_sound,
    read_facts,
    steps_in,
    tensor_names,
)
from dinov2.checkpoint.retention import KEEP_ALL, Retention
from dinov2.checkpoint.self_test import agreed_differences
from dinov2.checkpoint.writer import DurableWriter, FileRecord, Stager
from dinov2.errors import CheckpointError

__all__ = [
    "KEEP_ALL",
    "CheckpointStore",
    "Retention",
    "find_checkpoint",
    "load_tensors",
    "read_facts",
    "tensor_names",
]


@dataclass(frozen=True)
class _Saving:
    """A save under way, or one whose end nobody has asked for."""

    path: Path
    done: "Future[None]"


class CheckpointStore:
    """The checkpoints of one run.

    Every process of the run makes it at the same moment, calls `save`, `wait` and `self_test` with the same words at
    the same moment, and closes it before the process group. The main process is the one that names, moves and removes;
    it also removes what a killed run left half made, so there must be one store to a folder.
    """

    def __init__(
        self,
        folder: Path,
        *,
        retention: Retention = KEEP_ALL,
        asynchronous: bool = False,
        timeout_seconds: int = 600,
    ) -> None:
        """`timeout_seconds` is the longest wait for the slowest process."""
        self.folder = folder
        self.retention = retention
        self.asynchronous = asynchronous
        self._group: dist.ProcessGroup | None = None
        if dist.is_initialized():
            self._group = dist.new_group(backend="gloo", timeout=datetime.timedelta(seconds=timeout_seconds))
        self._is_main = self._group is None or dist.get_rank(self._group) == 0
        self._stager: Stager | None = None
        self._saving: _Saving | None = None
        self._finished: deque[Path] = deque()
        self._scores: dict[int, float | None] = {}
        if self._is_main:
            remove_leftovers(folder)
            catch_up_latest(folder)
        if self._group is not None:
            dist.barrier(group=self._group)  # nobody writes before the old is gone

    def steps(self) -> list[int]:
        """Steps of the whole checkpoints, ascending."""
        return steps_in(self.folder)

    def path(self, step: int) -> Path:
        """Where the checkpoint of a step lies."""
        return self.folder / str(step)

    def newest_sound(self) -> tuple[Path | None, list[str]]:
        """The newest checkpoint that is all there, and words for each newer one that is not; reads no tensor."""
        return newest_sound(self.folder)

    def save(
        self,
        step: int,
        *,
        tensors: Mapping[str, Tensor],
        facts: Mapping[str, Any],
        files: Mapping[str, str] = {},
        score: float | None = None,
    ) -> Path:
        """Begins to write one checkpoint, after the one under way is whole; returns where it will lie.

        `tensors` are plain and the same on every process, or DTensors; they may change as soon as this returns. `files`
        (name -> text) lie beside them; `score` is what `keep_best` compares. A store that is not asynchronous returns
        when the checkpoint is whole. Raises CheckpointError on every process where this or the save before cannot be
        written; earlier checkpoints are untouched then.
        """
        if wrong := [name for name in files if "/" in name or name.startswith((".", "__")) or name == "facts.json"]:
            raise ValueError(f"names of text files in a checkpoint: {wrong} are taken or no plain names")
        self.wait()
        commit = Commit(
            folder=self.folder,
            step=step,
            facts=_as_they_are(facts),
            files=dict(files),
            score=score,
            retention=self.retention,
            scores=self._scores,
        )
        what = f"{commit.final}: the checkpoint of step {step} could not be written"
        self._begin(what, path=commit.final, partial=commit.partial, tensors=tensors, commit=commit)
        if not self.asynchronous:
            self.wait()
        return commit.final

    def failure(self) -> CheckpointError | None:
        """Why the last save failed, as far as this process knows; None while it is under way or where it is whole.

        Never waits. What it tells is raised by the next `wait` or `save`.
        """
        if self._saving is None or not self._saving.done.done():
            return None
        error = self._saving.done.exception()
        return error if isinstance(error, CheckpointError) else None

    def finished(self) -> list[Path]:
        """Checkpoints that became whole since the last call; never waits."""
        return [self._finished.popleft() for _ in range(len(self._finished))]

    def wait(self) -> None:
        """Returns when the save under way is whole.  Raises CheckpointError, on every process, where it failed."""
        saving, self._saving = self._saving, None
        if saving is not None:
            saving.done.result()

    def self_test(self, *, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Writes a checkpoint as `save` does, reads it back, compares every value, and removes it.

        Raises CheckpointError on every process, so that a storage that cannot keep a checkpoint is found at step 0.
        """
        self.wait()
        trial = self.folder / f"{PARTIAL}self-test"

        plain = _as_they_are(facts)

        def commit(records: list[FileRecord]) -> None:
            write_facts(trial, 0, records=records, facts=plain, files={}, score=None)

        what = f"{trial}: the checkpoint that is written to try out the storage could not be written"
        self._begin(what, path=trial, partial=trial, tensors=tensors, commit=commit)
        try:
            self.wait()
            differences = agreed_differences(trial, tensors=tensors, group=self._group)
        finally:
            if self._is_main:
                shutil.rmtree(trial, ignore_errors=True)
        self._finished.clear()
        if differences:
            raise CheckpointError(
                f"{self.folder}: what was written to try out the storage reads back differently: {differences}. "
                "Its storage cannot be trusted with a run; choose another --output-dir."
            )

    def close(self) -> None:
        """Returns when nothing is under way any more, whether it became whole or not, and lets go of everything."""
        if self._saving is not None:
            wait([self._saving.done])
        if self._stager is not None:
            self._stager.close()
            self._stager = None
        if self._group is not None and dist.is_initialized():
            dist.destroy_process_group(self._group)
        self._group = None

    def _begin(
        self,
        what: str,
        *,
        path: Path,
        partial: Path,
        tensors: Mapping[str, Tensor],
        commit: Callable[[list[FileRecord]], None],
    ) -> None:
        saving = _Saving(path, Future())
        written: Future[Any]
        if self.asynchronous:
            if self._stager is None:
                self._stager = Stager()
            stager = self._stager
            writer = DurableWriter(partial, commit=commit, fault=lambda: stager.fault)
            written = dcp.async_save(
                dict(tensors),
                storage_writer=writer,
                process_group=self._group,
                async_stager=stager,
                no_dist=self._group is None,
            )
        else:
            written = _now(dict(tensors), writer=DurableWriter(partial, commit=commit), group=self._group)
        self._saving = saving
        written.add_done_callback(lambda future: self._end(future, saving, what=what, partial=partial))

    def _end(self, written: "Future[Any]", saving: _Saving, *, what: str, partial: Path) -> None:
        """Runs in the background, when torch is through on this process."""
        error = written.exception()
        if error is None:
            self._finished.append(saving.path)
            saving.done.set_result(None)
            return
        try:
            if self._is_main:  # every process has stopped writing, or is lost
                shutil.rmtree(partial, ignore_errors=True)
            raise checkpoint_error(what, error) from error
        except BaseException as told:
            saving.done.set_exception(told)


def _as_they_are(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What `facts.json` will hold, however the run's own facts change while it is written."""
    plain: dict[str, Any] = json.loads(json.dumps(dict(facts)))
    return plain | {"environment": environment()}


def _now(tensors: dict[str, Tensor], *, writer: DurableWriter, group: dist.ProcessGroup | None) -> "Future[Any]":
    """A save in the foreground, as the future of one that is through."""
    future: Future[Any] = Future()
    try:
        future.set_result(dcp.save(tensors, storage_writer=writer, process_group=group, no_dist=group is None))
    except (Exception, dcp.CheckpointException) as error:
        future.set_exception(error)
    return future
