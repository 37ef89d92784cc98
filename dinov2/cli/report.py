"""`dinov2 report`: runs as one HTML page."""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.filesize import decimal

from dinov2.cli import COMMANDS
from dinov2.cli.console import progress_bar, stdout

if TYPE_CHECKING:
    from dinov2.report import Written

EXAMPLES = """examples:
  dinov2 report runs/b14                       runs/b14/report.html
  dinov2 report sweeps/first --films 2         every run of a folder: sweeps/first/report.html
  dinov2 report runs/b14 runs/l14 --output both.html
  dinov2 report runs/b14 --every 60            until the run is over, or Ctrl-C

The page needs nothing else and asks for nothing from the network; send it as it is. Several runs, or a folder of runs,
are drawn over the same axes. A run that is still being written is shown as far as it is."""
LEAST_SECONDS = 2.0
SUFFIXES = (".html", ".htm")
NAME = "report.html"


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the sub-command."""
    parser = commands.add_parser(
        "report",
        help=COMMANDS["report"],
        description="Write one HTML page about a run, or about several side by side.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run, or a folder of runs")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="F.html",
        help=f"the page to write (default: {NAME} in the folder named; here, where several are named)",
    )
    parser.add_argument(
        "--every", type=float, metavar="SECONDS", help="write it again so often while a run goes on; it reloads itself"
    )
    parser.add_argument(
        "--films", type=int, metavar="N", help="films to show of each run (default: 12 of one run, 4 of several)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Writes the page, once or until the runs are over."""
    from dinov2.errors import ConfigError

    if arguments.every is not None and not arguments.every >= LEAST_SECONDS:
        raise ConfigError(f"--every {arguments.every:g}: give {LEAST_SECONDS:g} seconds or more.")
    if arguments.films is not None and arguments.films < 0:
        raise ConfigError(f"--films {arguments.films}: give 0 or more.")
    if arguments.output is None:
        arguments.output = _default_output(arguments.runs)
    if arguments.output.is_dir():
        raise ConfigError(f"--output {arguments.output}: a folder; give the page a name, such as report.html in it.")
    if arguments.output.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"--output {arguments.output}: what is written is a page; give it a name that ends in .html.")
    if arguments.every is None:
        _write(arguments)
    else:
        _follow(arguments)
    return 0


def _default_output(runs: Sequence[Path]) -> Path:
    """In the one folder that was named, a run or a folder of runs; of several in the working folder."""
    return runs[0] / NAME if len(runs) == 1 else Path(NAME)


def _follow(arguments: argparse.Namespace) -> None:
    """Writes the page again and again until the runs are over; one that is interrupted stays as it was last."""
    from dinov2.report import settle

    try:
        written = _write(arguments)
        if not written.is_over:
            stdout.print(f"again every {arguments.every:g} s until no run is running or waiting; Ctrl-C ends it sooner")
        while not written.is_over:
            time.sleep(arguments.every)
            written = _write(arguments)
    except KeyboardInterrupt:
        settle(arguments.output)
        raise
    stdout.print("no run is running or waiting any more; the page stays as it is", markup=False)


def _write(arguments: argparse.Namespace) -> "Written":
    from dinov2.report import write_report

    with progress_bar() as bar:
        line = bar.add_task("report", total=None, status="")
        written = write_report(
            arguments.runs,
            output=arguments.output,
            films=arguments.films,
            refresh_seconds=arguments.every,
            on_progress=lambda done, total, what: bar.update(line, completed=done, total=total, status=what),
        )
    runs = "1 run" if written.num_runs == 1 else f"{written.num_runs} runs"
    warnings = "no warning" if not written.num_warnings else f"{written.num_warnings} to look at"
    stdout.print(
        f"{written.path}: {runs}, {written.num_looks} looks, {warnings}, {decimal(written.num_bytes)}. "
        "Open it in a browser.",
        markup=False,
    )
    return written
