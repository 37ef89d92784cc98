"""How every probe ends: its result is scored, written and shown, and the next command named.

In: an `Outcome`. Out: the files of a result in --output-dir, a table on standard output.
"""

import argparse
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dinov2.cli.console import print_table, progress_bar, stdout

if TYPE_CHECKING:
    from dinov2.eval.outcome import Outcome
    from dinov2.eval.tables import Sheet


def finish(outcome: "Outcome", arguments: argparse.Namespace, *, beside: "Sequence[Outcome]" = ()) -> int:
    """Write and show; -> the exit code.

    Raises ConfigError where nothing was predicted or results beside it do not fit, Dinov2Error where the folder cannot
    be written.
    """
    from dinov2.eval.tables import write_result

    with progress_bar() as bar:
        task = bar.add_task("scores and intervals", total=None)
        written = write_result(
            outcome,
            arguments.output_dir,
            beside=beside,
            draws=arguments.draws,
            seed=arguments.seed,
            say=lambda text: bar.update(task, advance=1, status=text),
        )
    show(written.sheet)
    stdout.print(f"written: {written.folder}; look at {written.page}", markup=False)
    folder = shlex.quote(str(written.folder))
    stdout.print(f"next: dinov2 eval compare {folder} OTHER_RESULT", markup=False)
    return 0


def show(sheet: "Sheet") -> None:
    """A table and what is to be remarked of it."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(sheet.title), title_justify="left", title_style="bold")
    for i, name in enumerate(sheet.header):
        table.add_column(escape(name), justify="left" if i == 0 else "right", overflow="fold")
    for i, row in enumerate(sheet.rows):
        mean = row[0] == "mean of classes"
        table.add_row(*map(escape, row), style="bold" if mean else None, end_section=i + 2 == len(sheet.rows))
    print_table(table)
    for remark in sheet.remarks:
        stdout.print(f"- {remark}", markup=False)
