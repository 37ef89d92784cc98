"""A checkpoint gets its name: the moment from which it counts.

In: a folder with the files of all processes, and the records of what each wrote. Out: `<step>/` with `facts.json`,
the text files `latest` and `best`, and fewer old checkpoints. Done by the main process alone. Killed at any point, it
leaves either the checkpoint or no checkpoint, never half of one under its name.
"""

import datetime
import hashlib
import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dinov2.checkpoint.files import FACTS, PARTIAL, remove_folder, sync_folder, write_durably
from dinov2.checkpoint.reading import BEST, LATEST, newest_sound, read_facts, steps_in
from dinov2.checkpoint.retention import Retention, best_first, reasons_to_keep
from dinov2.checkpoint.writer import FileRecord
from dinov2.errors import CheckpointError

FORMAT = 1
VISIBLE_SECONDS = 60.0  # a network file system may show a file of another node late


@dataclass(frozen=True, kw_only=True)
class Commit:
    """What makes one checkpoint whole once its tensors are on disk."""

    folder: Path  # RUN/checkpoints
    step: int
    facts: Mapping[str, Any]  # must not change any more
    files: Mapping[str, str]
    score: float | None
    retention: Retention
    scores: dict[int, float | None]  # of the checkpoints seen so far; filled here

    @property
    def partial(self) -> Path:
        """Where the tensors are written."""
        return self.folder / f"{PARTIAL}{self.step}"

    @property
    def final(self) -> Path:
        """Where the checkpoint will lie."""
        return self.folder / str(self.step)

    def __call__(self, records: list[FileRecord]) -> None:
        """Names the checkpoint, moves `latest` and `best`, and removes what is no longer kept."""
        write_facts(self.partial, self.step, records=records, facts=self.facts, files=self.files, score=self.score)
        for step in set(steps_in(self.folder)) - self.scores.keys():  # of an earlier process of this run
            self.scores[step] = read_facts(self.folder / str(step)).get("score")
        present = {step: self.scores[step] for step in steps_in(self.folder)} | {self.step: finite(self.score)}
        # A run that went back to an earlier step and saves again must not lose what it just wrote to a later one.
        kept = set(reasons_to_keep(present, retention=self.retention)) | {self.step}
        ranked = best_first({step: present[step] for step in kept}, mode=self.retention.mode)
        pointers = {LATEST: self.step} | ({BEST: ranked[0]} if ranked else {})
        for name, step in pointers.items():  # written before anything gets its name: a full disk is found in time
            write_durably(self.folder / f"{PARTIAL}{name}", f"{step}\n")
        if self.final.exists():
            remove_folder(self.final)
        self.partial.rename(self.final)
        sync_folder(self.folder)
        self.scores[self.step] = finite(self.score)
        for name in pointers:
            (self.folder / f"{PARTIAL}{name}").replace(self.folder / name)
        sync_folder(self.folder)
        for step in present.keys() - kept:
            remove_folder(self.folder / str(step))


def catch_up_latest(folder: Path) -> None:
    """A run that was killed between the two renames of its last checkpoint left `latest` one behind."""
    newest, _ = newest_sound(folder)
    latest = folder / LATEST
    if newest is None or (latest.is_file() and latest.read_text().strip() == newest.name):
        return
    write_durably(folder / f"{PARTIAL}{LATEST}", f"{newest.name}\n")
    (folder / f"{PARTIAL}{LATEST}").replace(latest)
    sync_folder(folder)


def write_facts(
    partial: Path,
    step: int,
    *,
    records: list[FileRecord],
    facts: Mapping[str, Any],
    files: Mapping[str, str],
    score: float | None,
) -> None:
    """`facts.json` and the text files beside the tensors, synchronised."""
    wait_until_visible(partial, records)
    for name, text in files.items():
        data = write_durably(partial / name, text)
        records.append(FileRecord(name, len(data), hashlib.sha256(data).hexdigest()))
    own = {
        "format": FORMAT,
        "step": step,
        "score": finite(score),
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    listed = {one.name: {"bytes": one.num_bytes, "sha256": one.sha256} for one in sorted(records, key=lambda r: r.name)}
    text = json.dumps(own | dict(facts) | {"files": listed}, indent=1)
    write_durably(partial / FACTS, text + "\n")
    sync_folder(partial)


def wait_until_visible(folder: Path, records: list[FileRecord]) -> None:
    """Returns when the main process sees what all processes wrote.

    Raises CheckpointError where it does not: the folder is then not the same one for all of them.
    """
    ends = time.monotonic() + VISIBLE_SECONDS
    while absent := [one for one in records if not _is_visible(folder / one.name, one.num_bytes)]:
        if time.monotonic() > ends:
            raise CheckpointError(
                f"{folder}: {len(absent)} of {len(records)} files that the processes wrote are not here "
                f"({absent[0].name} is the first). The run folder must lie on a file system that all nodes share; "
                "choose another --output-dir."
            )
        time.sleep(0.2)


def finite(score: float | None) -> float | None:
    """The score, or None where it says nothing."""
    return score if score is not None and math.isfinite(score) else None


def _is_visible(path: Path, num_bytes: int) -> bool:
    try:
        return path.stat().st_size == num_bytes
    except OSError:
        return False
