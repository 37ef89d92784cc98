"""Where a training stands, on the screen: a table that is redrawn on a terminal, a line a step elsewhere.

In: `StepReport`s. Out: text. Every cross-entropy stands beside ln K, the value of a uniform (collapsed) solution.
"""

import math
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from dinov2.cli.console import stdout

if TYPE_CHECKING:
    from dinov2.train.events import StepReport

NUM_WARNINGS = 3
NARROW = 90  # characters, below which the two halves stand below each other
NEAR_UNIFORM = 0.99  # of ln K
WAITS_LONG = 0.1  # share of a step
HEADLINES = {"monitor/rankme": ("RankMe", ".1f"), "monitor/mean_cosine": ("mean cosine", ".3f")}
Rows = list[tuple[str, str, str]]
"""name, value, what stands beside it"""


class StepTable:
    """The newest step, the last look of the monitors, the last warnings."""

    def __init__(self, *, title: str) -> None:
        self._title = title
        self._report: StepReport | None = None
        self._scores: dict[str, float] = {}
        self._scores_step = 0
        self._warnings: deque[str] = deque(maxlen=NUM_WARNINGS)
        self._live = Live(console=stdout, auto_refresh=False, get_renderable=self._drawn, transient=False)

    def show(self, report: "StepReport") -> None:
        """Draws a step."""
        self._report = report
        if scores := {name: value for name, value in report.metrics.items() if "/" in name}:
            self._scores, self._scores_step = scores, report.step
        if not self._live.is_started:
            self._live.start()
        self._live.refresh()

    def warn(self, text: str) -> None:
        """Keeps a warning on the screen until newer ones push it out."""
        self._warnings.append(text)

    def stop(self) -> None:
        """The table stays where it is; what is printed then stands below it."""
        self._live.stop()

    def _drawn(self) -> RenderableType:
        if self._report is None:
            return Text()
        report = self._report
        halves = [_rows(losses(report)), _rows([*pace(report), *scores(self._scores, step=self._scores_step)])]
        body: RenderableType = Group(*halves)
        if stdout.width >= NARROW:
            beside = Table.grid(padding=(0, 4))
            beside.add_row(*halves)
            body = beside
        parts: list[RenderableType] = [_progress(report), Text(), body]
        for text in self._warnings:
            parts.append(Text(f"! {text}", style="yellow", overflow="ellipsis", no_wrap=True))
        width = min(stdout.width, 2 * NARROW)
        return Panel(Group(*parts), title=Text(self._title, style="bold"), title_align="left", width=width)


@contextmanager
def open_table(how: str, *, title: str) -> Iterator[StepTable | None]:
    """The table where `logging.console` and the terminal want one, else None."""
    fits = stdout.file.isatty() and stdout.is_terminal and not stdout.is_dumb_terminal  # FORCE_COLOR makes no terminal
    if how == "lines" or (how == "auto" and not fits):
        yield None
        return
    table = StepTable(title=title)
    try:
        yield table
    finally:
        table.stop()


def losses(report: "StepReport") -> Rows:
    """What is minimised, and what it would be if nothing were learnt."""
    metrics = report.metrics
    rows = [("loss", f"{metrics['total_loss']:.4f}", "SKIPPED" if metrics["skipped"] else "")]
    for name, prototypes in report.prototypes.items():
        if (value := metrics.get(f"{name}_cross_entropy")) is not None:
            uniform = math.log(prototypes)
            beside = f"of ln K {uniform:.3f}" + ("  uniform" if value >= NEAR_UNIFORM * uniform else "")
            rows.append((name.replace("_", " "), f"{value:.3f}", beside))
    if "koleo_loss" in metrics:
        rows.append(("koleo", f"{metrics['koleo_loss']:.3f}", ""))
    if "teacher_entropy" in metrics:
        most = math.log(report.prototypes["dino_global"])
        rows.append(("teacher entropy", f"{metrics['teacher_entropy']:.3f}", f"of ln K {most:.3f}"))
    rows.append(("learning rate", f"{metrics['lr']:.2e}", ""))
    return rows


def pace(report: "StepReport") -> Rows:
    """How fast it goes, and what it uses."""
    timing = report.timing
    share = timing["data_wait_seconds"] / timing["seconds_per_step"]
    rows = [
        ("speed", f"{timing['pictures_per_second']:,.1f}", f"films/s, {timing['seconds_per_step']:.2f} s a step"),
        ("waits for films", f"{share:.0%}", "raise train.num_workers?" if share > WAITS_LONG else "of a step"),
    ]
    if "gpu_memory_gib" in timing:
        rows.append(("GPU memory", f"{timing['gpu_memory_gib']:.1f}", "GiB at most"))
    if "memory_gib" in timing:
        rows.append(("memory", f"{timing['memory_gib']:.1f}", f"GiB, {timing['cpu_share']:.0%} of the cores"))
    if "matrix_share" in timing:
        rows.append(("matrix rate", f"{timing['matrix_share']:.0%}", "of what the device reaches"))
    return rows


def scores(values: dict[str, float], *, step: int) -> Rows:
    """The few of the last look that there is room for."""
    probes = [name for name in values if name.endswith("/val/macro_auroc")]
    rows = [(f"{name.partition('/')[0]} AUROC", f"{values[name]:.4f}", f"at step {step:,}") for name in probes]
    for name, (title, form) in HEADLINES.items():
        if name in values:
            rows.append((title, format(values[name], form), f"at step {step:,}"))
    return rows


def step_line(report: "StepReport") -> str:
    """One line of progress."""
    metrics, timing = report.metrics, report.timing
    words = [f"step {report.step}/{report.total_steps}", f"{timing['pictures_per_second']:.1f} img/s"]
    words.append(f"wait {100 * timing['data_wait_seconds'] / timing['seconds_per_step']:.0f}%")
    words.append(f"loss {metrics['total_loss']:.4f}")
    for name, prototypes in report.prototypes.items():
        if (value := metrics.get(f"{name}_cross_entropy")) is not None:
            words.append(f"{name} {value:.3f}/{math.log(prototypes):.3f}")
    if "koleo_loss" in metrics:
        words.append(f"koleo {metrics['koleo_loss']:.3f}")
    if "teacher_entropy" in metrics:
        words.append(f"teacher entropy {metrics['teacher_entropy']:.3f}")
    if metrics["skipped"]:
        words.append("SKIPPED")
    words.append(f"lr {metrics['lr']:.2e}")
    words.append(f"left {duration(timing['seconds_left'])}")
    return "  ".join(words)


def duration(seconds: float) -> str:
    """h:mm:ss, or m:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _rows(rows: Rows) -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(justify="right", style="bold", no_wrap=True)
    table.add_column(style="dim", no_wrap=True)
    for name, value, beside in rows:
        alarming = "uniform" in beside or beside == "SKIPPED" or beside.endswith("?")
        table.add_row(name, value, Text(beside, style="yellow" if alarming else "dim"))
    return table


def _progress(report: "StepReport") -> Table:
    """A bar over the whole run."""
    line = Table.grid(padding=(0, 1), expand=True)
    line.add_column(no_wrap=True)
    line.add_column(ratio=1)
    line.add_column(no_wrap=True)
    line.add_row(
        Text(f"step {report.step:,} of {report.total_steps:,}"),
        ProgressBar(total=report.total_steps, completed=report.step),
        Text(f"{duration(report.timing['seconds_left'])} left"),
    )
    return line
