"""What the actions of `dinov2 manifest` have in common: their form, and how a manifest is shown.

In: a manifest. Out: counts on standard output.
"""

import argparse
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from dinov2.cli.console import progress_bar, stdout

if TYPE_CHECKING:
    from dinov2.manifest import Manifest

T = TypeVar("T")
NUM_LISTED = 20  # values of a column, and faults of a kind, that are written out


@dataclass(frozen=True)
class Action:
    """One word after `dinov2 manifest`."""

    name: str
    words: str
    examples: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def show_counts(manifest: "Manifest") -> None:
    """Rows by dataset, split, view and flag, and patients."""
    import pyarrow.compute as pc

    table = manifest.table
    for column in ("dataset", "split", "view", "flags"):
        if column not in table.column_names:
            continue
        values = table.column(column).drop_null().cast("string")
        if column == "flags":
            values = pc.list_flatten(pc.split_pattern(values, pattern=","))
        counts = [(one["values"], one["counts"]) for one in pc.value_counts(values).to_pylist() if one["values"]]
        if counts:
            counts.sort(key=lambda one: (-one[1], one[0]))
            listed = ", ".join(f"{value} {count:,}" for value, count in counts[:NUM_LISTED])
            stdout.print(f"  {column}: {listed}{', ...' if len(counts) > NUM_LISTED else ''}", markup=False)
    patients = table.select(["dataset", "patient"]).filter(pc.is_valid(table.column("patient")))
    num_patients = patients.group_by(["dataset", "patient"]).aggregate([]).num_rows
    if num_patients:
        stdout.print(f"  patients: {num_patients:,}")


def write_and_show(manifest: "Manifest", path: Path) -> None:
    """Write a manifest and say what is in it."""
    manifest.write(path)
    stdout.print(f"{path}: {len(manifest):,} pictures.", markup=False)
    show_counts(manifest)


def with_progress(items: Iterable[T], *, words: str, total: int | None) -> Iterator[T]:
    """The items, counted by a bar."""
    with progress_bar() as bar:
        task = bar.add_task(words, total=total, status="")
        for item in items:
            yield item
            bar.advance(task)
