"""`dinov2 checkpoint`: list, look at, check and unfold the checkpoints of a run, also while it runs.

In: words. Out: each verb's module adds its parser and runs it; the rooms are imported only then.
"""

import argparse

from dinov2.cli import COMMANDS
from dinov2.cli.checkpoint import consolidate, ls, show, verify

FORMATTER = argparse.RawDescriptionHelpFormatter
EXAMPLES = """examples:
  dinov2 checkpoint ls runs/first
  dinov2 checkpoint show runs/first
  dinov2 checkpoint verify runs/first/checkpoints/60
  dinov2 checkpoint consolidate runs/first --output-dir plain"""
VERBS = (ls.LS, show.SHOW, verify.VERIFY, consolidate.CONSOLIDATE)


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the sub-command and its own sub-commands."""
    parser = commands.add_parser(
        "checkpoint",
        help=COMMANDS["checkpoint"],
        description="A checkpoint is a folder RUN/checkpoints/STEP. Nothing here changes a run's folder.",
        epilog=EXAMPLES,
        formatter_class=FORMATTER,
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for verb in VERBS:
        added = actions.add_parser(
            verb.name, help=verb.words, description=verb.words, epilog=verb.examples, formatter_class=FORMATTER
        )
        verb.add_arguments(added)
        added.set_defaults(run=verb.run)
