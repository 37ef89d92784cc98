"""`dinov2 check --cost`: what a step costs, and what more GPUs would bring."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from dinov2.cli.console import print_table, progress_bar, stdout

if TYPE_CHECKING:
    from dinov2.config.load import LoadedConfig
    from dinov2.forecast.cost import CostReport
    from dinov2.forecast.launch import Launch
    from dinov2.forecast.machines import Machine

MACHINES = ("A100", "H100")
ABOVE_ZERO = ("peak_tflops", "memory_gb_s", "nvlink_gb_s", "link_gbit", "links_per_node", "global_batch")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `--cost`."""
    group = parser.add_argument_group("the cost of a step (--cost); no pictures are needed")
    group.add_argument("--cost", action="store_true", help="FLOPs, bytes, exchanges, and predictions for 1 to 128 GPUs")
    group.add_argument(
        "--machine", nargs="+", default=list(MACHINES), metavar="NAME", help="A100, H100, H200 (default A100 H100)"
    )
    group.add_argument("--efficiency", type=float, metavar="E", help="share of the peak that matrix products reach")
    group.add_argument("--measured", type=Path, metavar="F", help="JSON of `dinov2 bench step`, to compare with")
    group.add_argument("--peak-tflops", type=float, metavar="T", help="of one GPU, instead of the data sheet's")
    group.add_argument("--memory-gb-s", type=float, metavar="GB", help="bandwidth of its memory")
    group.add_argument("--nvlink-gb-s", type=float, metavar="GB", help="to the GPUs of its node, each way")
    group.add_argument("--link-gbit", type=float, metavar="GB", help="of one line between nodes (A100 200, H100 400)")
    group.add_argument("--links-per-node", type=int, metavar="N", help="lines out of a node (default: one a GPU)")
    group.add_argument("--global-batch", type=int, metavar="N", help="pictures a step, where that is what stays fixed")


def run(arguments: argparse.Namespace, loaded: "LoadedConfig") -> int:
    """Counts, simulates, shows it."""
    from dinov2.errors import ConfigError
    from dinov2.forecast.cost import cost_of, with_measured_share
    from dinov2.forecast.launch import plan_launch
    from dinov2.forecast.measured import compare

    _check_numbers(arguments)
    launch, faults = plan_launch(loaded.config, processes=arguments.processes, per_node=arguments.processes_per_node)
    if faults:
        raise ConfigError("\n".join(faults), faults=faults)
    machines = [_machine(name, arguments, launch) for name in arguments.machine]
    measured = () if arguments.measured is None else compare(arguments.measured, efficiency=arguments.efficiency)
    if arguments.efficiency is None:
        machines = [with_measured_share(machine, measured) for machine in machines]
    with progress_bar() as bar:
        steps = bar.add_task("cost", total=None)
        report = cost_of(
            loaded.config,
            launch,
            machines=machines,
            global_batch=arguments.global_batch,
            measured=measured,
            say=lambda text: bar.update(steps, advance=1, status=text),
        )
    if arguments.json == "-":
        print(as_json(report))
        return 0
    _show(report)
    if arguments.json is not None:
        Path(arguments.json).write_text(as_json(report) + "\n", encoding="utf-8")
        stdout.print(f"written: {arguments.json}", markup=False)
    return 0


def as_json(report: "CostReport") -> str:
    """Every number, in FLOPs, bytes and seconds."""
    from dataclasses import asdict

    return json.dumps(asdict(report), indent=2)


def _show(report: "CostReport") -> None:
    from dinov2.forecast.cost_page import cost_lines, cost_tables

    for table in cost_tables(report):
        print_table(table)
    for line in cost_lines(report):
        stdout.print(line, markup=False)


def _machine(name: str, arguments: argparse.Namespace, launch: "Launch") -> "Machine":
    from dinov2.forecast.machines import Known, find_machine

    known = Known(
        efficiency=arguments.efficiency,
        memory_gbytes=arguments.memory_gb_s,
        peak_tflops=arguments.peak_tflops,
        nvlink_gbytes=arguments.nvlink_gb_s,
        link_gbits=arguments.link_gbit,
        links_per_node=arguments.links_per_node,
        per_node=arguments.processes_per_node and launch.per_node,
    )
    return find_machine(name, known=known)


def _check_numbers(arguments: argparse.Namespace) -> None:
    from dinov2.errors import ConfigError

    faults = [
        f"--{name.replace('_', '-')} {value}: give more than 0."
        for name in ABOVE_ZERO
        if (value := getattr(arguments, name)) is not None and value <= 0
    ]
    if faults:
        raise ConfigError("\n".join(faults), faults=tuple(faults))
