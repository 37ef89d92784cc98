"""What every submission may say about the cluster, and the wait for its tasks.

In: words. Out: `Resources`; or the numbers of the tasks that failed.
"""

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from dinov2.cli.console import progress_bar

if TYPE_CHECKING:
    from dinov2.launch import Array

NUM_LISTED = 20  # failed tasks that are written out


def add_cluster_options(parser: argparse.ArgumentParser, *, default_time: str) -> None:
    """Those that mean the same to every command; each is left to the cluster's default where it is not given."""
    parser.add_argument("--cluster", choices=("slurm", "local"), default="slurm", help="(default: slurm)")
    parser.add_argument("--partition", metavar="P", help="as in sbatch")
    parser.add_argument("--account", metavar="A", help="as in sbatch")
    parser.add_argument("--qos", metavar="Q", help="as in sbatch")
    parser.add_argument("--time", metavar="T", help=f"longest run of a task, as in sbatch (default: {default_time})")
    parser.add_argument("--parallel", type=count, metavar="MAX", help="tasks that run at the same time")
    parser.add_argument(
        "--slurm",
        nargs="+",
        action="extend",
        metavar="KEY=VALUE",
        help="further options of sbatch, such as constraint=ib or exclusive",
    )


def count(text: str) -> int:
    """A whole number above 0."""
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"expected a whole number, 1 or more, not {text!r}")


def refuse_here(arguments: argparse.Namespace, names: tuple[str, ...]) -> None:
    """Raises ConfigError for options that processes of this machine cannot be given."""
    from dinov2.errors import ConfigError

    given = [name for name in names if getattr(arguments, name) is not None]
    if arguments.cluster == "local" and given:
        listed = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise ConfigError(f"--cluster local knows no {listed}; leave it out.")


def wait_with_bar(array: "Array") -> tuple[int, ...]:
    """The numbers of the tasks that failed, once all have ended."""
    from dinov2.launch import watch

    failed: tuple[int, ...] = ()
    with progress_bar() as bar:
        line = bar.add_task("tasks", total=len(array.jobs), status="")
        for progress in watch(array):
            failed = progress.failed
            status = f"{len(progress.running)} running, {len(progress.waiting)} waiting, {len(failed)} failed"
            bar.update(line, completed=len(progress.done) + len(failed), status=status)
    return failed


def listed(failed: tuple[int, ...], *, words_of: Callable[[int], str]) -> str:
    """A line per failed task, the first of them where there are many."""
    lines = "\n".join(f"  {words_of(number)}" for number in failed[:NUM_LISTED])
    return lines + (f"\n  and {len(failed) - NUM_LISTED} more" if len(failed) > NUM_LISTED else "")
