"""The `dinov2` command: parse the words, call a room, give an exit code.

Exit codes: 0 done; 2 a mistake the user can mend, said in one message; 3 another process of the run was lost; 130
interrupted (Ctrl-C), everything kept; 1 a fault of ours, with a traceback and a line that says where to report it. Each
sub-command is a module of this package with `add_parser(commands)` and `run(arguments) -> int`; its room is imported in
`run`, so that `dinov2 --help` answers at once.
"""

import argparse
import difflib
import errno
import importlib
import os
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

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
        "preview": "look at a conversion, at crops and masks, or at what a backbone sees",
        "report": "write one page about one run or several: curves, scores, pictures, warnings",
        "explore": "open a map of embeddings in the browser",
    },
    "machine": {
        "doctor": "say what this machine can do, what auto would choose on it, and what is missing",
        "bench": "measure this machine: step, memory, kernels, loader, conversion, encoder, pages ...",
        "completion": "print the script that completes commands and settings in a shell",
    },
}
COMMANDS = {name: summary for group in GROUPS.values() for name, summary in group.items()}
MODULES = {"import": "importing"}  # where the command's name is a word of the language
INTERRUPTED = 130
OF_PLACES = {
    errno.ENOSPC: "the disk is full. Free some space and run the same command again",
    errno.EDQUOT: "the quota is used up. Free some space and run the same command again",
    errno.EACCES: "it may not be read or written by you. Give another place, or mend its permissions",
    errno.EPERM: "it may not be changed by you. Give another place, or mend its permissions",
    errno.EROFS: "this file system cannot be written to. Give another place",
    errno.EEXIST: "there is a file of this name already. Give another name, or move it away",
    errno.ENOTDIR: "a part of this path is a file, where a folder is needed. Give another place",
    errno.EISDIR: "this is a folder, where a file is needed. Give the name of a file",
    errno.ENAMETOOLONG: "this name is too long. Give a shorter one",
}
"""What the system says of a place that the user named -> what to do about it. Any other is a fault of ours."""
OF_OURS = (
    "This is a fault of dinov2, not of yours. Please report it with the lines above and what this prints:\n"
    "  dinov2 doctor --json\n"
    "Look through both first: they hold the names of your files and machines. Nothing was sent anywhere."
)
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
    """Of the command and of everything below it: its help always tells the exit codes, a misspelt word is told with the
    nearest one in one message, and settings `a.b=c` may stand between and behind options too, where argparse alone
    knows no more what to do with them."""

    def format_help(self) -> str:
        """Usage, options and examples; the usual exit codes where the examples do not tell others."""
        told = super().format_help()
        return told if "xit code" in told else f"{told}\n{EXIT_CODES}\n"

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        self._words: Sequence[str] = args or ()
        found, rest = super().parse_known_args(args, namespace)
        if self._subparsers is not None:
            return found, rest  # the parser of the action has looked at them
        if all("=" in word and not word.startswith("-") for word in rest) and hasattr(found, "overrides"):
            found.overrides = [*found.overrides, *rest]
        elif rest:
            self.error(self._about(rest) or f"not understood: {' '.join(rest)}")
        return found, []

    def error(self, message: str) -> NoReturn:
        """One message and exit code 2; the usage of a command with many options would bury it."""
        if "are required" in message:  # an option that was misspelt is why one is missing
            message = self._about(self._words) or self._about_actions() or message
        stop = "" if message.endswith((".", "?")) else "."
        self.exit(Dinov2Error.exit_code, f"{self.prog}: {message}{stop} All that it takes: {self.prog} --help\n")

    def _about(self, words: Sequence[str]) -> str:
        """Names the options among the words that this parser does not have; empty where it has them all."""
        names = [word.partition("=")[0] for word in words if re.match("--?[a-zA-Z]", word)]
        unknown = [name for name in names if not any(own.startswith(name) for own in self._option_string_actions)]
        if not unknown:
            return ""
        near = _perhaps(unknown[0], self._option_string_actions)
        if not near and " -- " in (self.usage or ""):
            return f"it has no {unknown[0]}; options of the command that is submitted stand behind ` -- `"
        return f"it has no {' and no '.join(unknown)}{near}"

    def _about_actions(self) -> str:
        """Where it has commands of its own and none was said: which they are."""
        inner = [action for action in self._actions if isinstance(action, argparse._SubParsersAction)]
        return "".join(f"say which {action.metavar}: {', '.join(action.choices)}" for action in inner)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            known = ", ".join(map(str, action.choices))
            raise argparse.ArgumentError(action, f"{value!r} is none of {known}{_perhaps(str(value), action.choices)}")


def _perhaps(word: str, known: Iterable[Any]) -> str:
    """The nearest of the words that there are, as a question; nothing where none is near."""
    near = difflib.get_close_matches(word, [str(one) for one in known], n=1)
    return f". Perhaps {near[0]}?" if near else ""


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
        perhaps = _perhaps(chosen, COMMANDS).removeprefix(".")
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
    except KeyboardInterrupt:
        print(f"dinov2 {arguments.command}: interrupted.", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if isinstance(error, OSError) and error.errno in OF_PLACES:
            where = f"{error.filename}: " if error.filename else ""
            print(f"dinov2 {arguments.command}: {where}{OF_PLACES[error.errno]}.", file=sys.stderr)
            return Dinov2Error.exit_code
        error.add_note(OF_OURS)  # below its traceback, which Python prints
        raise
