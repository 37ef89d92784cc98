"""The `dinov2` command: parse the words, call a room, give an exit code.

Exit codes: 0 done; 2 a mistake the user can mend, said in one message; 3 another process of the run was lost; 130
interrupted (Ctrl-C), everything kept; 1 a fault of ours. Each sub-command is a module of this package with
`add_parser(commands)` and `run(arguments) -> int`; its room is imported in `run`, so that `dinov2 --help` answers at
once.
"""

import argparse
import errno
import importlib
import sys
from collections.abc import Sequence

from dinov2 import __version__
from dinov2.errors import Dinov2Error

COMMANDS = {
    "phantom": "draw synthetic chest films and write them as DICOM",
    "preprocess": "turn DICOM, PNG, JPEG and TIFF films into 8-bit PNG and a manifest",
    "manifest": "build, check, split, merge, pack or show manifests",
    "preview": "look at a finished conversion, or at crops and masks",
    "submit": "run a command on a SLURM cluster",
    "runs": "show what became of the runs of a folder",
    "check": "say what a run will need and do, before a GPU is taken",
    "train": "train a student and its teacher on a manifest",
    "checkpoint": "list, show, verify and unfold the checkpoints of a run",
    "replay": "make a step again whose loss was not finite, and say where it breaks",
    "import": "take weights of DINOv2 from any file, folder or hub into a folder of ours",
    "export": "write a backbone for dinov2, transformers, ONNX or timm",
    "embed": "write features of pictures to a Parquet file",
    "eval": "judge a backbone: probes, zero-shot, segmentation, comparison",
    "bench": "measure the step, its memory and kernels, the loader, the conversion, manifests",
}
MODULES = {"import": "importing"}  # where the command's name is a word of the language
INTERRUPTED = 130


def build_parser(chosen: str | None) -> argparse.ArgumentParser:
    """The parser of every sub-command; only the chosen one's module is imported, so that help is instant."""
    parser = argparse.ArgumentParser(
        prog="dinov2",
        description="Self-supervised pretraining of image encoders for chest radiographs.",
        epilog="`dinov2 COMMAND --help` tells more. Exit codes: 0 done, 2 a mistake you can mend, 130 interrupted.",
    )
    parser.add_argument("--version", action="version", version=f"dinov2 {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, summary in COMMANDS.items():
        if name == chosen:
            importlib.import_module(f"dinov2.cli.{MODULES.get(name, name)}").add_parser(commands)
        else:
            commands.add_parser(name, help=summary)
    return parser


def main(words: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    given = sys.argv[1:] if words is None else words
    chosen = next((word for word in given if word in COMMANDS), None)
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
