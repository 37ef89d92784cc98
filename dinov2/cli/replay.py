"""`dinov2 replay`: makes a step again that was not finite, and says where it breaks."""

import argparse
from pathlib import Path

from dinov2.cli import COMMANDS
from dinov2.cli.console import stdout

EXAMPLES = """examples:
  dinov2 replay runs/b14/nonfinite/8121
  torchrun --nproc-per-node 4 -m dinov2 replay runs/b14/nonfinite/8121

A run that stops over losses or gradients that are not finite leaves such a folder and names it. With as many processes
as wrote it the step is the very same; with one, it is that of a single rank."""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the sub-command."""
    parser = commands.add_parser(
        "replay",
        help=COMMANDS["replay"],
        description="Make a step again that was not finite, and say where the first such value appears.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("dump", type=Path, metavar="RUN/nonfinite/STEP", help="the folder that the run named")
    parser.add_argument("--rank", type=int, metavar="R", help="one process: whose batches (default: the first found)")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="(default: auto)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Opens the world and tells what the step finds."""
    from dinov2.distributed import open_world
    from dinov2.train.replay import replay

    with open_world(device=arguments.device) as world:
        for text in replay(arguments.dump, world=world, rank=arguments.rank):
            if world.is_main:
                stdout.print(text, markup=False)
    return 0
