"""A started command and every process that came of it, the forked and the orphaned ones too.

In: words of a command. Out: a `Launch`, which knows its ranks and what is left of it. Linux only: it reads /proc.
"""

import contextlib
import os
import subprocess
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from .runs import environment

MARK = "DINOV2_LAUNCH_OF_A_TEST"  # in the environment of every process of one start, however deep


@dataclass(frozen=True)
class Launch:
    """`size` ranks below one launcher; of one rank, the process itself is both."""

    process: subprocess.Popen[str]
    size: int
    mark: str
    out: Path
    error: Path

    @property
    def said(self) -> str:
        """Standard output so far."""
        return self.out.read_text()

    @property
    def complained(self) -> str:
        """Standard error so far."""
        return self.error.read_text()

    def pids(self) -> list[int]:
        """Every living process of this start, the launcher included."""
        numbers = (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())
        return [pid for pid in numbers if _environ(pid).get(MARK) == self.mark and _stat(pid)[:1] != ["Z"]]

    def ranks(self) -> dict[int, int]:
        """Process ids by rank; empty until all have been started."""
        if self.size == 1:
            return {0: self.process.pid} if self.process.poll() is None else {}
        children = [pid for pid in self.pids() if _stat(pid)[1:2] == [str(self.process.pid)]]
        found = {int(rank): pid for pid in children if (rank := _environ(pid).get("RANK"))}
        return found if len(found) == self.size else {}

    def wait(self, *, seconds: float) -> int | None:
        """Exit code of the launcher; None where it is not through by then."""
        try:
            return self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            return None

    def leftovers(self, *, seconds: float) -> list[str]:
        """Processes that are still there after so long, in words; they are killed."""
        deadline = time.monotonic() + seconds
        while (left := self.pids()) and time.monotonic() < deadline:
            time.sleep(0.05)
        words = [f"process {pid} is left over: {_command_line(pid)}" for pid in left]
        for pid in left:
            send(pid, 9)
        return words


def launch(words: list[str], *, size: int, folder: Path) -> Launch:
    """Starts a command in a session of its own; what it says goes to `folder`/<n>.out and .err."""
    folder.mkdir(parents=True, exist_ok=True)
    nth = 1 + sum(1 for _ in folder.glob("*.out"))
    out, error, mark = folder / f"{nth}.out", folder / f"{nth}.err", uuid.uuid4().hex
    with out.open("w") as to_out, error.open("w") as to_error:
        process = subprocess.Popen(
            words, stdout=to_out, stderr=to_error, text=True, env=environment() | {MARK: mark}, start_new_session=True
        )
    return Launch(process, size, mark, out, error)


def send(pid: int, number: int) -> None:
    """A signal, to whoever is still there."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _environ(pid: int) -> dict[str, str]:
    try:
        words = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return {}
    return dict(word.split("=", 1) for word in words if "=" in word)


def _stat(pid: int) -> list[str]:
    """State, parent, ...; empty where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:120]
    except OSError:
        return "(gone meanwhile)"
