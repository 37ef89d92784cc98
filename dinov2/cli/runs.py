"""`dinov2 runs`: what became of the runs of a folder, as a table, as JSON or as CSV."""

import argparse
import csv
import json
import math
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dinov2.cli import COMMANDS
from dinov2.cli.configs import value_text
from dinov2.cli.console import print_table, stdout

if TYPE_CHECKING:
    from dinov2.launch import RunReport

EXAMPLES = """examples:
  dinov2 runs sweeps/first
  dinov2 runs runs --sort-by ibot_cross_entropy --metric total_loss ibot_cross_entropy teacher_entropy
  dinov2 runs runs/a runs/b --csv > runs.csv

States: finished, running, waiting (in the queue, or planned by a sweep and not begun), stopped (the same command
continues it), failed (with its last words). Numbers are the newest of training_metrics.json. --json and --csv hold
every number and every setting that differs."""
SHOWN = ("total_loss", "dino_global_cross_entropy", "ibot_cross_entropy")
STYLES = {"finished": "green", "running": "cyan", "failed": "red", "stopped": "yellow", "waiting": "dim"}
NUM_SETTINGS = 6  # columns of settings in the table
LONGEST_CELL = 40
MOST_NAMED = 4  # runs in the command that is told next
OF_NO_INTEREST = ("train.output_dir",)


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the sub-command."""
    parser = commands.add_parser(
        "runs",
        help=COMMANDS["runs"],
        description="State, step, speed, last numbers and differing settings of every run in the folders.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="a run, or a folder of runs")
    parser.add_argument(
        "--sort-by",
        metavar="NAME",
        help="a metric, a setting, step or pictures_per_second; least first (default: name)",
    )
    parser.add_argument("--descending", action="store_true", help="most first")
    parser.add_argument("--metric", nargs="+", metavar="NAME", help=f"numbers to show (default: {', '.join(SHOWN)})")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="a list of objects")
    form.add_argument("--csv", action="store_true", help="a row per run")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Reads the folders and prints what they hold."""
    from dinov2.launch import read_runs

    reports = read_runs(arguments.folders)
    differing = differing_settings(reports)
    reports = _sorted(reports, by=arguments.sort_by, descending=arguments.descending)
    if arguments.metric:
        _check_names(arguments.metric, reports)
    if arguments.json:
        print(json.dumps([_as_object(report, differing) for report in reports], indent=1))
    elif arguments.csv:
        _write_csv(reports, differing=differing)
    else:
        _show(reports, differing=differing, metrics=arguments.metric or _default_metrics(reports))
    return 0


def differing_settings(reports: "Sequence[RunReport]") -> list[str]:
    """Keys whose value is not the same in every run that has settings, in their order."""
    begun = [report.settings for report in reports if report.settings]
    # A run that has not begun knows only what its sweep planned for it.
    keys = dict.fromkeys(key for settings in begun for key in settings)
    texts = {key: {value_text(settings[key]) for settings in begun if key in settings} for key in keys}
    return [key for key, found in texts.items() if key not in OF_NO_INTEREST and len(found) > 1]


def _default_metrics(reports: "Sequence[RunReport]") -> list[str]:
    """The usual ones that there are, and the score that checkpoints are chosen by."""
    chosen = [str(report.settings.get("checkpoint.select_by") or "") for report in reports]
    present = {name for report in reports for name in report.numbers}
    return [name for name in dict.fromkeys([*SHOWN, *chosen]) if name in present]


def _check_names(names: Sequence[str], reports: "Sequence[RunReport]") -> None:
    """Raises ConfigError for a metric that no run has."""
    from dinov2.errors import ConfigError

    present = sorted({name for report in reports for name in report.numbers})
    for name in names:
        if present and name not in present:
            raise ConfigError(f"{name}: no run has this number. There are: {', '.join(present)}.")


def _sorted(reports: "Sequence[RunReport]", *, by: str | None, descending: bool) -> "list[RunReport]":
    """Runs without the number come last either way."""
    from dinov2.errors import ConfigError

    if by is None:
        return sorted(reports, key=lambda report: str(report.path), reverse=descending)
    keys: dict[Path, Any] = {report.path: _value(report, by) for report in reports}
    if all(key is None for key in keys.values()):
        names = sorted({name for report in reports for name in report.numbers})
        raise ConfigError(
            f"--sort-by {by}: no run has it. Give step, pictures_per_second, a setting, or one of: {', '.join(names)}."
        )
    have = [report for report in reports if keys[report.path] is not None]
    numeric = all(isinstance(keys[report.path], int | float) for report in have)
    if numeric:
        have.sort(key=lambda report: float(keys[report.path]), reverse=descending)
    else:
        have.sort(key=lambda report: str(keys[report.path]), reverse=descending)
    return [*have, *(report for report in reports if keys[report.path] is None)]


def _value(report: "RunReport", name: str) -> Any:
    if name == "step":
        return report.step
    for source in (report.numbers, report.timing, report.settings):
        if name in source:
            return source[name]
    return None


def _as_object(report: "RunReport", differing: Sequence[str]) -> dict[str, Any]:
    return {
        "run": str(report.path),
        "state": report.state,
        "words": report.words,
        "step": report.step,
        "total_steps": report.total_steps,
        "pictures_per_second": report.pictures_per_second,
        "metrics": dict(report.numbers),
        "settings": {key: report.settings.get(key) for key in differing},
    }


def _write_csv(reports: "Sequence[RunReport]", *, differing: Sequence[str]) -> None:
    metrics = list(dict.fromkeys(name for report in reports for name in report.numbers))
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["run", "state", "words", "step", "total_steps", "pictures_per_second", *metrics, *differing])
    for report in reports:
        speed = report.pictures_per_second
        first = [report.path, report.state, report.words, report.step, report.total_steps, speed]
        numbers = [report.numbers.get(name) for name in metrics]
        writer.writerow([*first, *numbers, *(_setting(report, key) for key in differing)])


def _show(reports: "Sequence[RunReport]", *, differing: Sequence[str], metrics: Sequence[str]) -> None:
    from rich.markup import escape
    from rich.table import Table

    home = _common_folder(reports)
    columns = differing[:NUM_SETTINGS]
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("run", overflow="fold")
    table.add_column("state")
    for name in ("step", "img/s", *metrics):
        table.add_column(name, justify="right")
    for key in columns:
        table.add_column(key, overflow="fold")
    for report in reports:
        state = f"[{STYLES[report.state]}]{report.state}[/]"
        step = f"{report.step}/{report.total_steps}" if report.total_steps else str(report.step)
        speed = "" if report.pictures_per_second is None else f"{report.pictures_per_second:.1f}"
        numbers = [_number(report.numbers.get(name)) for name in metrics]
        settings = [escape(_setting(report, key)[:LONGEST_CELL]) for key in columns]
        table.add_row(escape(str(report.path.relative_to(home))), state, step, speed, *numbers, *settings)
    stdout.print(f"{home}", markup=False)
    print_table(table)
    for report in reports:
        if report.words and report.state in ("failed", "waiting"):
            stdout.print(f"{report.state}  {report.path.relative_to(home)}: {report.words}", markup=False)
    if len(differing) > NUM_SETTINGS:
        stdout.print(f"{len(differing) - NUM_SETTINGS} more settings differ: --json or --csv", markup=False)
    _say_what_next(reports)


def _say_what_next(reports: "Sequence[RunReport]") -> None:
    """A page of those that have numbers; before there are any, the first one's log."""
    begun = [shlex.quote(str(report.path)) for report in reports if report.numbers]
    if begun:
        named = " ".join(begun[:MOST_NAMED]) + (" ..." if len(begun) > MOST_NAMED else "")
        stdout.print(f"next: dinov2 report {named}", markup=False)
    else:
        stdout.print(f"next: none has a number yet; {reports[0].path / 'logs'} holds what they say", markup=False)


def _common_folder(reports: "Sequence[RunReport]") -> Path:
    first = reports[0].path.parent
    for candidate in (first, *first.parents):
        if all(report.path.is_relative_to(candidate) for report in reports):
            return candidate
    return Path()


def _setting(report: "RunReport", key: str) -> str:
    """Empty where that version did not have it."""
    return value_text(report.settings[key]) if key in report.settings else ""


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if math.isfinite(value) and 1e-3 <= abs(value) < 1e5 else f"{value:.4g}"
