"""`dinov2 manifest`: build, look at, check, split, merge and pack the tables that name the pictures.

In: words. Out: each action's module adds its parser and runs it; the rooms are imported only then.
"""

import argparse

from dinov2.cli import COMMANDS
from dinov2.cli.manifest import look, make, rearrange

FORMATTER = argparse.RawDescriptionHelpFormatter
EXAMPLES = """examples:
  dinov2 manifest show pictures/manifest.parquet
  dinov2 manifest check pictures/manifest.parquet --hashes --against evaluation/manifest.parquet"""
ACTIONS = (look.SHOW, look.CHECK, make.BUILD, make.LAYOUTS, rearrange.SPLIT, rearrange.MERGE, make.PACK)


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the sub-command and its own sub-commands."""
    parser = commands.add_parser(
        "manifest",
        help=COMMANDS["manifest"],
        description="A manifest is a Parquet or CSV file with a row per picture.",
        epilog=EXAMPLES,
        formatter_class=FORMATTER,
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for action in ACTIONS:
        added = actions.add_parser(
            action.name, help=action.words, description=action.words, epilog=action.examples, formatter_class=FORMATTER
        )
        action.add_arguments(added)
        added.set_defaults(run=action.run)
