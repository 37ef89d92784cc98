"""`dinov2 checkpoint ls`: the checkpoints of a run, why each is kept, and whether it is all there.

In: a run folder. Out: a table, or JSON. Sizes and the list of tensors are looked at; `verify` reads the bytes.
"""

import argparse
import datetime
import json
from pathlib import Path
from typing import Any

from dinov2.cli.console import print_table, stdout
from dinov2.cli.manifest.action import Action


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="the --output-dir of a `dinov2 train`")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def ls(arguments: argparse.Namespace) -> int:
    """Prints a line per checkpoint."""
    from dinov2.checkpoint.files import PARTIAL
    from dinov2.checkpoint.reading import checkpoints_folder

    folder = checkpoints_folder(arguments.run_folder)
    rows = rows_of(folder)
    half_made = sorted(path.name for path in folder.glob(f"{PARTIAL}[0-9]*"))
    if arguments.json:
        print(json.dumps({"folder": str(folder), "checkpoints": rows, "being_written": half_made}, indent=1))
        return 0
    if rows:
        _print_table(folder, rows)
    else:
        stdout.print(f"{folder}: no checkpoint yet.", markup=False)
    for name in half_made:
        stdout.print(f"{name}: being written now, or left by a run that was killed (it goes at the next start)")
    damaged = [row["step"] for row in rows if row["wrong"]]
    if rows:
        chosen = damaged[-1] if damaged else rows[-1]["step"]
        stdout.print(f"next: dinov2 checkpoint {'verify' if damaged else 'show'} {folder / str(chosen)}", markup=False)
    return 0


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """A dictionary per checkpoint, by step."""
    from dinov2.checkpoint.reading import read_facts, steps_in, what_is_wrong
    from dinov2.checkpoint.retention import reasons_to_keep
    from dinov2.errors import CheckpointError

    rows = []
    for step in steps_in(folder):
        try:
            facts = read_facts(folder / str(step))
        except CheckpointError:
            if not (folder / str(step)).exists():
                continue  # removed by its run since it was listed
            facts = {}
        size = sum(one["bytes"] for one in facts.get("files", {}).values())
        row = {"step": step, "time": facts.get("time"), "bytes": size, "score": facts.get("score"), "facts": facts}
        rows.append(row | {"wrong": what_is_wrong(folder / str(step))})
    retention = _retention(rows[-1]["facts"] if rows else {})
    reasons = reasons_to_keep({row["step"]: row["score"] for row in rows}, retention=retention)
    for row in rows:
        del row["facts"]
        row["kept"] = list(reasons.get(row["step"], ()))
    return rows


def _retention(facts: dict[str, Any]) -> Any:
    """What the newest checkpoint's configuration keeps."""
    from dinov2.checkpoint.retention import KEEP_ALL, Retention

    section = facts.get("config", {}).get("checkpoint")
    if section is None:
        return KEEP_ALL
    return Retention(
        keep_last=section["keep_last"],
        keep_every_steps=section.get("keep_every_steps", 0),
        keep_best=section.get("keep_best", 0),
        mode=section.get("select_mode", "max"),
    )


def _print_table(folder: Path, rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    table = Table(title=str(folder))
    for heading, justify in (("step", "right"), ("written", "left"), ("GB", "right"), ("score", "right")):
        table.add_column(heading, justify="right" if justify == "right" else "left", no_wrap=True)
    table.add_column("kept because")
    table.add_column("state", overflow="fold")
    for row in rows:
        table.add_row(
            f"{row['step']:,}",
            local_time(row["time"]),
            f"{row['bytes'] / 1e9:.2f}" if row["bytes"] else "",
            "" if row["score"] is None else f"{row['score']:.4g}",
            ", ".join(row["kept"]),
            (row["wrong"] or "all there").removeprefix(f"{folder / str(row['step'])}: "),
        )
    print_table(table)


def local_time(text: str | None) -> str:
    """An ISO time in the reader's own time zone."""
    return datetime.datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S") if text else ""


LS = Action(
    name="ls",
    words="list a run's checkpoints: step, time, size, score, why each is kept, and whether it is all there",
    examples="""examples:
  dinov2 checkpoint ls runs/first
  dinov2 checkpoint ls runs/first --json""",
    add_arguments=_add_arguments,
    run=ls,
)
