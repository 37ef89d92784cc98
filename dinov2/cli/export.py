"""`dinov2 export`: a teacher out of a checkpoint, as safetensors that load anywhere."""

import argparse
from pathlib import Path

from dinov2.cli import COMMANDS
from dinov2.cli.console import stdout

EXAMPLES = """examples:
  dinov2 export --checkpoint runs/first --output-dir exported
  dinov2 export --checkpoint runs/first/checkpoints/60 --output-dir exported/60"""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the sub-command."""
    parser = commands.add_parser(
        "export",
        help=COMMANDS["export"],
        description="Write backbone.safetensors, the heads and backbone_card.json; they are read back and compared.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--checkpoint",
        required=True,
        type=Path,
        metavar="RUN[/checkpoints/N]",
        help="a run (its newest checkpoint) or one checkpoint",
    )
    parser.add_argument("--output-dir", required=True, type=Path, metavar="D", help="the folder to write")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Finds the checkpoint, reads its teacher, writes and checks the files."""
    from dinov2.checkpoint.from_checkpoint import export_checkpoint

    folder = export_checkpoint(arguments.checkpoint, folder=arguments.output_dir)
    for file in sorted(folder.iterdir()):
        stdout.print(f"{file}  {file.stat().st_size / 2**20:.1f} MiB", markup=False)
    stdout.print("read back: features equal those of the checkpoint's teacher.")
    stdout.print(f"next: python -c \"import dinov2; print(dinov2.load_backbone('{folder}'))\"", markup=False)
    return 0
