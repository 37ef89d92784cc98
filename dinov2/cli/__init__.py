"""The `dinov2` command: parse the words, call a room, give an exit code.

Exit codes: 0 done; 2 a mistake the user can mend, said in one message; 3 another process of the run was lost; 130
interrupted (Ctrl-C), everything kept; 1 a fault of ours. Each sub-command is a module of this package with
`add_parser(commands)` and `run(arguments) -> int`; its room is imported in `run`, so that `dinov2 --help` answers at
once.
"""

import argparse
import difflib
import errno
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

from dinov2 import __version__
from dinov2.errors import Dinov2Error

GROUPS = {
    "prepare": {
        "phantom": "draw synthetic chest films and write them as DICOM",
        "preprocess": "turn DICOM, PNG, JPEG and TIFF films into 8-bit PNG and a manifest",
        "manifest": "build, check, split, merge, pack or show manifests",
    },
    "train": {
        "configs": "list, show, compare and copy the shipped configurations",
        "check": "say what a run will need and do, before a GPU is taken",
        "train": "train a student and its teacher on a manifest",
        "submit": "run a command on a SLURM cluster",
        "runs": "show what became of the runs of a folder",
        "checkpoint": "list, show, verify and unfold the checkpoints of a run",
        "replay": "make a step again whose loss was not finite, and say where it breaks",
    },
    "judge": {
        "eval": "judge a backbone: probes, zero-shot, segmentation, comparison",
        "embed": "write features of pictures to a Parquet file",
    },
    "hand on": {
        "import": "take weights of DINOv2 from any file, folder or hub into a folder of ours",
        "export": "write a backbone for dinov2, transformers, ONNX or timm",
    },
    "look": {
        "preview": "look at a finished conversion, or at crops and masks",
        "report": "write one page about one run or several: curves, scores, pictures, warnings",
        "explore": "open a map of embeddings in the browser",
    },
    "machine": {
        "doctor": "say what this machine can do, what auto would choose on it, and what is missing",
        "bench": "measure the step, its memory and kernels, the loader, the conversion, manifests",
        "completion": "print the script that completes commands and settings in a shell",
    },
}
COMMANDS = {name: summary for group in GROUPS.values() for name, summary in group.items()}
MODULES = {"import": "importing"}  # where the command's name is a word of the language
INTERRUPTED = 130
EXIT_CODES = "Exit codes: 0 done; 2 a mistake you can mend, said in one message; 1 a fault of ours; 130 interrupted."
EXAMPLES = """examples:
  dinov2 doctor
  dinov2 train --help

Exit codes: 0 done; 2 a mistake you can mend, said in one message; 3 another process of the run was lost; 130 stopped by
Ctrl-C or a signal, everything kept; 1 a fault of ours, with its traceback. The same command run again continues."""


class _ByGroup(argparse.RawDescriptionHelpFormatter):
    """Help that lists the commands under the headings of `GROUPS`."""

    def _format_action(self, action: argparse.Action) -> str:
        if not isinstance(action, argparse._SubParsersAction):
            return super()._format_action(action)
        width = max(map(len, COMMANDS)) + 2
        lines = []
        for heading, group in GROUPS.items():
            lines += [f"  {heading}:", *(f"    {name:{width}}{summary}" for name, summary in group.items())]
        return "\n".join(lines) + "\n"


class CommandParser(argparse.ArgumentParser):
    """Of the command and of everything below it: its help always tells the exit codes, and settings `a.b=c` may stand
    between and behind options too, where argparse alone knows no more what to do with them."""

    def format_help(self) -> str:
        """Usage, options and examples; the usual exit codes where the examples do not tell others."""
        told = super().format_help()
        return told if "xit code" in told else f"{told}\n{EXIT_CODES}\n"

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        found, rest = self.parse_known_args(args, namespace)
        if all("=" in word and not word.startswith("-") for word in rest) and hasattr(found, "overrides"):
            found.overrides = [*found.overrides, *rest]
        elif rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}")
        return found


def build_parser(chosen: str | None) -> argparse.ArgumentParser:
    """The parser of every sub-command; only the chosen one's module is imported, so that help is instant."""
    parser = CommandParser(
        prog="dinov2",
        description="Self-supervised pretraining of image encoders for chest radiographs.",
        epilog=EXAMPLES,
        formatter_class=_ByGroup,
    )
    parser.add_argument("--version", action="version", version=f"dinov2 {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", title="commands")
    for name, summary in COMMANDS.items():
        if name == chosen:
            importlib.import_module(f"dinov2.cli.{MODULES.get(name, name)}").add_parser(commands)
        else:
            commands.add_parser(name, help=summary)
    return parser


def main(words: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    given = sys.argv[1:] if words is None else words
    if "_ARGCOMPLETE" in os.environ:  # a shell asks what may follow; see `dinov2 completion`
        from dinov2.cli.completion import answer

        answer(os.environ.get("COMP_LINE", ""), build_parser)
    chosen = next((word for word in given if not word.startswith("-")), None)
    if not given:
        build_parser(None).print_help()
        return Dinov2Error.exit_code
    if chosen is not None and chosen not in COMMANDS:
        near = difflib.get_close_matches(chosen, COMMANDS, n=1)
        perhaps = f" Perhaps {near[0]}?" if near else ""
        print(f"dinov2: there is no command {chosen!r}.{perhaps} All of them: dinov2 --help", file=sys.stderr)
        return Dinov2Error.exit_code
    arguments = build_parser(chosen).parse_args(given)
    try:
        return int(arguments.run(arguments))
    except BrokenPipeError:
        return 0  # the reader of a pipe went away, as `| head` does
    except Dinov2Error as error:
        print(f"dinov2 {arguments.command}: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        where = f" while writing {error.filename}" if error.filename else ""
        print(
            f"dinov2 {arguments.command}: the disk is full{where}. Free some space and run the same command again.",
            file=sys.stderr,
        )
        return Dinov2Error.exit_code
    except KeyboardInterrupt:
        print(f"dinov2 {arguments.command}: interrupted.", file=sys.stderr)
        return INTERRUPTED
