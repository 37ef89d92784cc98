"""`dinov2 check`: what a run will need and do, before a GPU is taken."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from dinov2.cli import COMMANDS, check_cost
from dinov2.cli.console import print_table, progress_bar, stdout

if TYPE_CHECKING:
    from dinov2.config.load import LoadedConfig
    from dinov2.forecast.check import Asked, Outcome

FAILS = 2
EXAMPLES = """examples:
  dinov2 check --config-file cpu_smoke train.dataset_path=pictures/manifest.parquet
  dinov2 check --config-file vitb14_cxr --processes 64 --processes-per-node 4 --rate 28 --output-dir runs/b14 \\
    train.dataset_path=manifest.parquet student.pretrained_weights=dinov2_vitb14_pretrain.pth
  dinov2 check --cost --config-file vitb14_cxr --processes 64 --machine A100 H100

Exit code 0: nothing stops the run (doubts are told); 2: it would fail, with every reason."""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the sub-command."""
    parser = commands.add_parser(
        "check",
        help=COMMANDS["check"],
        description="Decode a sample of the pictures, count the memory of a step, say what looks wrong. Needs no GPU.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config-file", required=True, metavar="F", help="a YAML file, or the name of a shipped one such as vitb14_cxr"
    )
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="processes, one a GPU (default 1)")
    parser.add_argument("--processes-per-node", type=int, metavar="G", help="of one machine (default: all, at most 8)")
    parser.add_argument(
        "--gpu-memory-gb", type=float, default=80.0, metavar="GB", help="memory of a GPU in GiB (default 80)"
    )
    parser.add_argument("--rate", type=float, metavar="R", help="pictures per second and GPU, to tell days and workers")
    parser.add_argument(
        "--sample", type=int, default=200, metavar="ROWS", help="pictures to decode, at random (default 200)"
    )
    parser.add_argument("--output-dir", type=Path, metavar="RUN", help="the run folder, to look at its disk")
    parser.add_argument(
        "--json", nargs="?", const="-", metavar="F", help="everything as one JSON object on standard output, or into F"
    )
    check_cost.add_arguments(parser)
    parser.add_argument("overrides", nargs="*", metavar="a.b=c", help="settings that win over the file")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Loads the configuration, looks at everything, shows it."""
    from dinov2.config.load import load_config
    from dinov2.config.presets import find_config
    from dinov2.forecast.check import Asked
    from dinov2.forecast.launch import start_command
    from dinov2.train.loggers import check_installed

    _check_numbers(arguments)
    _give_back_override(arguments)
    loaded = load_config(find_config(arguments.config_file), overrides=arguments.overrides)
    if arguments.cost:
        return check_cost.run(arguments, loaded)
    check_installed(loaded.config)
    asked = Asked(
        processes=arguments.processes,
        per_node=arguments.processes_per_node,
        gpu_memory_gib=arguments.gpu_memory_gb,
        rate=arguments.rate,
        num_rows=arguments.sample,
        output_dir=arguments.output_dir,
    )
    outcome = _look(loaded, asked)
    command = start_command(
        outcome.launch,
        config_file=arguments.config_file,
        output_dir=None if arguments.output_dir is None else str(arguments.output_dir),
        overrides=arguments.overrides,
    )
    if arguments.json == "-":
        print(as_json(outcome, command=command))
    else:
        _show(outcome, command=command)
        if arguments.json is not None:
            Path(arguments.json).write_text(as_json(outcome, command=command) + "\n", encoding="utf-8")
    return FAILS if outcome.stops else 0


def as_json(outcome: "Outcome", *, command: str) -> str:
    """Every field of an outcome, in bytes and steps; `command` starts the run."""
    from dataclasses import asdict

    return json.dumps(asdict(outcome) | {"command": command}, indent=2)


def _give_back_override(arguments: argparse.Namespace) -> None:
    """`--json a.b=c` means the output, and an override behind it: argparse takes the next word whatever it is."""
    if arguments.json and "=" in arguments.json:
        arguments.overrides = [arguments.json, *arguments.overrides]
        arguments.json = "-"


def _check_numbers(arguments: argparse.Namespace) -> None:
    from dinov2.errors import ConfigError

    numbers = {
        "--processes": arguments.processes,
        "--processes-per-node": arguments.processes_per_node,
        "--gpu-memory-gb": arguments.gpu_memory_gb,
        "--rate": arguments.rate,
        "--sample": arguments.sample,
    }
    faults = [
        f"{name} {value}: give more than 0." for name, value in numbers.items() if value is not None and value <= 0
    ]
    if faults:
        raise ConfigError("\n".join(faults), faults=tuple(faults))


def _look(loaded: "LoadedConfig", asked: "Asked") -> "Outcome":
    """The outcome, with progress while it is found."""
    from dinov2.forecast.check import check_run

    with progress_bar() as bar:
        pictures = bar.add_task("pictures decoded", total=None)
        steps = bar.add_task("looked at", total=None)

        def say(text: str) -> None:
            bar.update(steps, advance=1, status=text)

        def decoded(number: int, total: int) -> None:
            bar.update(pictures, completed=number, total=total)

        return check_run(loaded, asked, decoded=decoded, say=say)


def _show(outcome: "Outcome", *, command: str) -> None:
    from dinov2.forecast.page import data_table, judgement_lines, memory_lines, memory_table, plan_table

    if outcome.data is not None:
        print_table(data_table(outcome.data))
    if outcome.memory is not None:
        print_table(memory_table(outcome.memory))
        for line in memory_lines(outcome.memory):
            stdout.print(line, markup=False)
    print_table(plan_table(outcome.plan, processes=outcome.launch.processes))
    for style, line in judgement_lines(outcome):
        stdout.print(line, style=style or None, markup=False)
    if outcome.stops:
        stdout.print("mend these, then check again.", markup=False)
    else:
        stdout.print(f"next: {command}", markup=False)
