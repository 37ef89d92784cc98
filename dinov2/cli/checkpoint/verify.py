"""`dinov2 checkpoint verify`: every byte and every value of a checkpoint is looked at.

In: a run (its newest checkpoint, or all) or a checkpoint. Out: lines on standard output; CheckpointError where there is
damage.
"""

import argparse
from pathlib import Path

from dinov2.cli.checkpoint.show import add_checkpoint
from dinov2.cli.console import progress_bar, stdout
from dinov2.cli.manifest.action import NUM_LISTED, Action

MB = 10**6


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    add_checkpoint(parser)
    parser.add_argument("--all", action="store_true", help="every checkpoint of the run")


def verify(arguments: argparse.Namespace) -> int:
    """Lists every fault; raises CheckpointError where there is one."""
    from dinov2.checkpoint.reading import checkpoints_folder, locate_checkpoint, steps_in
    from dinov2.errors import CheckpointError

    chosen = [locate_checkpoint(arguments.checkpoint)]
    if arguments.all:
        folder = checkpoints_folder(arguments.checkpoint)
        chosen = [folder / str(step) for step in steps_in(folder)]
    damaged = [checkpoint for checkpoint in chosen if not _verify_one(checkpoint)]
    if damaged:
        listed = ", ".join(str(checkpoint) for checkpoint in damaged)
        raise CheckpointError(f"{listed}: damaged; do not continue from it. {_instead(damaged)}")
    stdout.print(f"next: dinov2 export --checkpoint {chosen[-1]} --output-dir exported", markup=False)
    return 0


def _verify_one(checkpoint: Path) -> bool:
    from dinov2.checkpoint.reading import read_facts
    from dinov2.checkpoint.verify import bytes_to_look_at, faults_in
    from dinov2.errors import CheckpointError

    try:
        total = bytes_to_look_at(checkpoint)
    except CheckpointError as error:
        stdout.print(str(error), markup=False)
        return False
    with progress_bar() as bar:
        task = bar.add_task(f"reading {checkpoint.name} (MB)", total=max(total, 1) / MB, status="")
        faults = list(faults_in(checkpoint, advance=lambda count: bar.advance(task, count / MB)))
    for fault in faults[:NUM_LISTED]:
        stdout.print(f"{checkpoint}: {fault}", markup=False)
    if len(faults) > NUM_LISTED:
        stdout.print(f"... and {len(faults) - NUM_LISTED:,} more")
    if not faults:
        num_files = len(read_facts(checkpoint)["files"])
        stdout.print(
            f"{checkpoint}: {num_files:,} files as they were written, every tensor readable, finite and of the shape "
            "that its configuration asks for.",
            markup=False,
        )
    return not faults


def _instead(damaged: list[Path]) -> str:
    """What to do: the newest other checkpoint that looks whole."""
    from dinov2.checkpoint.reading import steps_in, what_is_wrong

    folder = damaged[0].parent
    for step in reversed(steps_in(folder)):
        other = folder / str(step)
        if other not in damaged and what_is_wrong(other) is None:
            return (
                f"next: dinov2 checkpoint verify {other}; if it is sound, move the damaged folder away and run the "
                "same training command again: it continues from there."
            )
    return "No other checkpoint of this run is all there."


VERIFY = Action(
    name="verify",
    words="read everything: hashes of the files, every tensor readable and finite, shapes as configured",
    examples="""examples:
  dinov2 checkpoint verify runs/first
  dinov2 checkpoint verify runs/first --all
  dinov2 checkpoint verify runs/first/checkpoints/60""",
    add_arguments=_add_arguments,
    run=verify,
)
