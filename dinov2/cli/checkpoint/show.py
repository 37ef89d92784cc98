"""`dinov2 checkpoint show`: what one checkpoint says of itself.

In: a run (its newest checkpoint) or a checkpoint. Out: progress, environment, parts and settings; as text or JSON.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dinov2.cli.checkpoint.ls import local_time
from dinov2.cli.console import print_table, stdout
from dinov2.cli.manifest.action import Action


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """The argument that names a checkpoint."""
    parser.add_argument(
        "checkpoint",
        type=Path,
        metavar="RUN[/checkpoints/N]",
        help="a run (its newest checkpoint), one checkpoint, or RUN/checkpoints/latest or /best",
    )


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_checkpoint(parser)
    parser.add_argument("--config", action="store_true", help="print the whole configuration as YAML, and nothing else")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def show(arguments: argparse.Namespace) -> int:
    """Prints what a checkpoint says."""
    from dinov2.checkpoint.reading import locate_checkpoint, read_facts, what_is_wrong

    checkpoint = locate_checkpoint(arguments.checkpoint)
    facts = read_facts(checkpoint)
    if arguments.config:
        print(_yaml(facts, checkpoint=checkpoint), end="")
        return 0
    said = description(checkpoint, facts) | {"wrong": what_is_wrong(checkpoint)}
    if arguments.json:
        print(json.dumps(said | {"checkpoint": str(checkpoint)}, indent=1))
        return 0
    stdout.print(str(checkpoint), markup=False, style="bold")
    _print(said)
    if said["wrong"]:
        stdout.print(f"next: dinov2 checkpoint verify {checkpoint}", markup=False)
    else:
        stdout.print(f"next: dinov2 export --checkpoint {checkpoint} --output-dir exported", markup=False)
    return 0


def description(checkpoint: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Everything that `show` tells, as plain values."""
    from dinov2.checkpoint.contents import sizes_by_part
    from dinov2.checkpoint.reading import tensor_metadata
    from dinov2.errors import CheckpointError

    try:
        sizes = sizes_by_part(tensor_metadata(checkpoint))
    except CheckpointError:
        sizes = {}  # `wrong` says so
    config = facts.get("config", {})
    return {
        "step": facts["step"],
        "total_steps": _total_steps(config),
        "pictures_seen": facts.get("position"),
        "time": facts.get("time"),
        "score": facts.get("score"),
        "global_batch": facts.get("global_batch"),
        "processes": facts.get("world_size") or facts.get("environment", {}).get("processes"),
        "precision": facts.get("precision") or config.get("runtime", {}).get("precision"),
        "environment": facts.get("environment", {}),
        "parts": [{"side": side, "part": part, **asdict(size)} for (side, part), size in sizes.items()],
        "file_bytes": sum(one["bytes"] for one in facts.get("files", {}).values()),
        "settings": _changed_settings(config),
    }


def _total_steps(config: dict[str, Any]) -> int | None:
    from dinov2.config.lengths import lengths
    from dinov2.config.load import from_plain
    from dinov2.config.schema import Config
    from dinov2.errors import ConfigError

    try:
        typed = from_plain(Config, config)
    except ConfigError:
        return None
    return lengths(typed.optim, typed.teacher, train=typed.train).total if config else None


def _changed_settings(config: dict[str, Any]) -> dict[str, Any]:
    """Dotted key -> value, where it is not the default."""
    from dinov2.config.schema import Config
    from dinov2.train.resume import flatten

    defaults = flatten(asdict(Config()))
    return {key: value for key, value in flatten(config).items() if defaults.get(key, ...) != value}


def _yaml(facts: dict[str, Any], *, checkpoint: Path) -> str:
    from dinov2.config.load import from_plain, to_yaml
    from dinov2.config.schema import Config
    from dinov2.errors import CheckpointError

    if "config" not in facts:
        raise CheckpointError(f"{checkpoint}: says no configuration. Was it written by `dinov2 train`?")
    return to_yaml(from_plain(Config, facts["config"]))


def _print(said: dict[str, Any]) -> None:
    from rich.table import Table

    for name, words in _lines(said):
        stdout.print(f"  {name:<12} {words}", markup=False)
    if said["parts"]:
        table = Table("part", "tensors", "values (M)", "MB", title="tensors, as whole ones")
        for column in table.columns[1:]:
            column.justify = "right"
        for one in said["parts"]:
            name = " ".join(dict.fromkeys((one["side"], one["part"])))
            numbers = (f"{one['num_values'] / 1e6:,.2f}", f"{one['num_bytes'] / 1e6:,.1f}")
            table.add_row(name, f"{one['num_tensors']:,}", *numbers)
        print_table(table)
    if said["settings"]:
        stdout.print("settings that differ from the defaults (all of them: --config):")
    for key, value in said["settings"].items():
        stdout.print(f"  {key} = {value}", markup=False)


def _lines(said: dict[str, Any]) -> list[tuple[str, str]]:
    environment = said["environment"]
    total = f" of {said['total_steps']:,}" if said["total_steps"] else ""
    seen = f", {said['pictures_seen']:,} pictures seen" if said["pictures_seen"] is not None else ""
    lines = [("state", said["wrong"] or "all there (sizes and list of tensors; `verify` reads the bytes)")]
    lines.append(("progress", f"step {said['step']:,}{total}{seen}"))
    if said["score"] is not None:
        lines.append(("score", f"{said['score']:.6g}"))
    lines.append(("written", f"{local_time(said['time'])}, {said['file_bytes'] / 1e9:.3f} GB in files"))
    batch = f"{said['global_batch']:,} pictures a step over " if said["global_batch"] else ""
    lines.append(("batch", f"{batch}{said['processes']} process(es), precision {said['precision']}"))
    git = environment.get("git") or {}
    if git.get("commit"):
        changed = {True: ", with changes that are in no commit", False: ", unchanged", None: ""}[git.get("changed")]
        lines.append(("code", f"dinov2 {environment.get('dinov2')}, commit {git['commit'][:12]}{changed}"))
    versions = [f"{name} {environment[name]}" for name in ("torch", "cuda", "nccl", "python") if environment.get(name)]
    lines.append(("environment", ", ".join(versions)))
    if gpus := environment.get("gpus"):
        lines.append(("GPUs", f"{len(gpus)} x {gpus[0]} on the main process's machine"))
    if slurm := environment.get("slurm"):
        lines.append(("SLURM", ", ".join(f"{name} {value}" for name, value in slurm.items())))
    if environment.get("command"):
        lines.append(("command", environment["command"]))
    return [(name, words) for name, words in lines if words]


SHOW = Action(
    name="show",
    words="what a checkpoint says of itself: progress, environment, tensors by part, settings",
    examples="""examples:
  dinov2 checkpoint show runs/first
  dinov2 checkpoint show runs/first/checkpoints/best
  dinov2 checkpoint show runs/first --config > again.yaml""",
    add_arguments=_add_arguments,
    run=show,
)
