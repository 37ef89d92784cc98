"""`dinov2 submit`: a command as jobs, on a SLURM cluster or as processes of this machine.

In: words. Out: each kind's module adds its parser and runs it; the rooms are imported only then.
"""

import argparse

from dinov2.cli import COMMANDS
from dinov2.cli.submit import preprocess, train

FORMATTER = argparse.RawDescriptionHelpFormatter
EXAMPLES = """examples:
  dinov2 submit train --nodes 16 --gpus-per-node 4 --partition gpu -- --config-file vitb14_cxr --output-dir runs/b14
  dinov2 submit preprocess --tasks 64 --partition cpu -- --input archive --output pictures --dataset OURS

`dinov2 submit train --help` and `dinov2 submit preprocess --help` tell more."""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the sub-command and what it can submit."""
    parser = commands.add_parser(
        "submit",
        help=COMMANDS["submit"],
        description="Run a command on a SLURM cluster.",
        epilog=EXAMPLES,
        formatter_class=FORMATTER,
    )
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="COMMAND")
    for kind in (train, preprocess):
        kind.add_parser(kinds)
