"""How commands speak: progress on standard error, results on standard output.

Where standard error is no terminal (a log file of a cluster), progress is a plain line every half minute and one at
the end.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

stderr = Console(stderr=True, highlight=False)
stdout = Console(highlight=False, soft_wrap=True)
SECONDS_PER_LINE = 30.0
WIDE = 400  # characters


def print_table(table: Table) -> None:
    """A rich table on standard output; a pipe or a file has no width that its lines must fit into."""
    if stdout.is_terminal:
        stdout.print(table, soft_wrap=False)
    else:
        with (wide := Console(width=WIDE, highlight=False)).capture() as captured:
            wide.print(table)
        lines = captured.get().splitlines()
        print("\n".join(line.rstrip() for line in lines))


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Count, rate, elapsed and remaining time, and the task's `status`, as a bar or as plain lines."""
    with _Reporter() as reporter:
        yield reporter


class _Rate(ProgressColumn):
    """Steps per second since the start, those that were done before left out."""

    def render(self, task: Task) -> Text:
        rate = _rate(task)
        return Text(f"{rate:.1f}/s" if rate else "", style="progress.data.speed")


class _Reporter(Progress):
    """A bar on a terminal, lines elsewhere."""

    def __init__(self) -> None:
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[status]}", markup=False),
            console=stderr,
            disable=not stderr.is_terminal or stderr.is_dumb_terminal,
        )
        self._ended = threading.Event()
        self._clock = threading.Thread(target=self._speak_now_and_then, daemon=True)

    def start(self) -> None:
        super().start()
        if self.disable:
            self._clock.start()

    def stop(self) -> None:
        super().stop()
        if self.disable and not self._ended.is_set():
            self._ended.set()
            self._clock.join()
            self._speak()

    def add_task(
        self,
        description: str,
        start: bool = True,
        total: float | None = 100.0,
        completed: int = 0,
        visible: bool = True,
        **fields: Any,
    ) -> TaskID:
        fields = {"status": "", "before": completed} | fields
        return super().add_task(description, start, total, completed, visible, **fields)

    def _speak_now_and_then(self) -> None:
        while not self._ended.wait(SECONDS_PER_LINE):
            self._speak()

    def _speak(self) -> None:
        for task in self.tasks:
            stderr.print(_line(task), markup=False, soft_wrap=True)


def _rate(task: Task) -> float:
    done = task.completed - task.fields.get("before", 0)
    return done / task.elapsed if task.elapsed and done > 0 else 0.0


def _line(task: Task) -> str:
    """films 120 of 4000 (3%), 12.5/s, 0:00:10 so far, 0:05:10 left; pictures 110, modality 10"""
    rate = _rate(task)
    parts = [f"{task.description} {task.completed:.0f}"]
    if task.total:
        parts[0] += f" of {task.total:.0f} ({task.completed / task.total:.0%})"
    if rate:
        parts.append(f"{rate:.1f}/s")
    parts.append(f"{_clock(task.elapsed or 0)} so far")
    if rate and task.total and task.completed < task.total:
        parts.append(f"{_clock((task.total - task.completed) / rate)} left")
    status = str(task.fields.get("status", ""))
    return ", ".join(parts) + (f"; {status}" if status else "")


def _clock(seconds: float) -> str:
    return time.strftime("%H:%M:%S", time.gmtime(seconds)) if seconds < 86400 else f"{seconds / 86400:.1f} days"
