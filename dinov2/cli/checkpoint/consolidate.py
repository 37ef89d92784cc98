"""`dinov2 checkpoint consolidate`: a sharded checkpoint as plain safetensors, one file a part.

In: a run (its newest checkpoint) or a checkpoint. Out: a folder of files, read back and compared.
"""

import argparse
from pathlib import Path

from rich.filesize import decimal

from dinov2.cli.checkpoint.show import add_checkpoint
from dinov2.cli.console import progress_bar, stdout
from dinov2.cli.manifest.action import Action

MB = 10**6


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_checkpoint(parser)
    parser.add_argument("--output-dir", required=True, type=Path, metavar="D", help="the folder to write")
    parser.add_argument(
        "--what",
        choices=("teacher", "student", "all"),
        default="teacher",
        help="all: both networks, centres and the optimiser's state, in folders of their own (default teacher)",
    )


def consolidate(arguments: argparse.Namespace) -> int:
    """Writes and checks the files."""
    from dinov2.checkpoint import consolidate as room
    from dinov2.checkpoint.reading import find_checkpoint

    checkpoint = find_checkpoint(arguments.checkpoint)
    total = sum(size.num_bytes for size in room.sizes_to_write(checkpoint, what=arguments.what).values())
    with progress_bar() as bar:
        task = bar.add_task("writing and reading back (MB)", total=max(1, total) / MB, status="")
        files = room.consolidate(
            checkpoint,
            folder=arguments.output_dir,
            what=arguments.what,
            advance=lambda count: bar.advance(task, count / MB),
        )
    for file in files:
        stdout.print(f"{file}  {decimal(file.stat().st_size)}", markup=False)
    stdout.print(f"read back: every value equals that of {checkpoint}.", markup=False)
    if arguments.what == "all":
        backbone = arguments.output_dir / "teacher" / "backbone.safetensors"
    else:
        backbone = arguments.output_dir / "backbone.safetensors"
    stdout.print(
        f"next: dinov2 train --config-file F --output-dir RUN student.pretrained_weights={backbone}", markup=False
    )
    return 0


CONSOLIDATE = Action(
    name="consolidate",
    words="write a checkpoint's networks as plain safetensors, one file a part, without any process group",
    examples="""examples:
  dinov2 checkpoint consolidate runs/first --output-dir plain
  dinov2 checkpoint consolidate runs/first/checkpoints/60 --output-dir plain/60 --what all""",
    add_arguments=_add_arguments,
    run=consolidate,
)
