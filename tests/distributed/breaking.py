"""One process of a run in which something breaks; started once per rank with torchrun's variables.

    python breaking.py WHAT RANKS [FOLDER]     WHAT happens at step 5 on RANKS (such as 0 or 1,2)

Steps are an exchange each. It ends as the `dinov2` command does: one message on stderr and the error's exit code.
"""

import os
import signal
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist

from dinov2.config.schema import Augmentation, Crops, Ibot
from dinov2.data.board import WorkerBoard
from dinov2.data.loader import load_batches
from dinov2.distributed import World, open_world
from dinov2.distributed.pulse import Pulse, PulseLimits, open_pulse
from dinov2.errors import DataError, Dinov2Error, TrainingError
from dinov2.manifest import from_rows

BREAKS_AT, NUM_STEPS = 5, 8


def limits() -> PulseLimits:
    """Short ones, changed by LOST_SECONDS, STALL_SECONDS and SLOW_SECONDS."""
    lost, stall, slow = (
        float(os.environ.get(name, default))
        for name, default in (("LOST_SECONDS", "6"), ("STALL_SECONDS", "300"), ("SLOW_SECONDS", "300"))
    )
    return PulseLimits(lost_seconds=lost, stall_seconds=stall, slow_data_seconds=slow)


def breaks(what: str, *, world: World, pulse: Pulse) -> None:
    """What befalls this process."""
    match what:
        case "killed":
            wait_until_told(pulse)
            os.kill(os.getpid(), signal.SIGKILL)
        case "stopped":
            wait_until_told(pulse)
            os.kill(os.getpid(), signal.SIGSTOP)
        case "raises":
            raise DataError(f"{world.rank} pictures cannot be read.")
        case "raises-in-turn":
            time.sleep(0.8 * world.rank)
            raise TrainingError(f"agreed by all, said by rank {world.rank}.")
        case "faulty":
            raise ValueError("a fault of ours")
        case "interrupted":
            raise KeyboardInterrupt
        case "slow":
            pulse.at("data", step=BREAKS_AT)
            time.sleep(5)
        case "notes":
            pulse.note(f"a word of rank {world.rank}")


def wait_until_told(pulse: Pulse) -> None:
    """Until the others have been sent that this process is at `BREAKS_AT`: what they say of it later is that."""
    while pulse._last_step < BREAKS_AT:
        time.sleep(0.02)


def exchange(world: World, *, hangs: bool) -> None:
    """One exchange; with `hangs`, one that does not notice when the other end is gone, as on a GPU."""
    if hangs:
        time.sleep(600)
    if world.size > 1:
        dist.all_reduce(torch.ones(8))


def read_pictures(folder: Path, *, world: World, board: WorkerBoard, pulse: Pulse) -> None:
    """Batches of the files in a folder, one of which may hang its reader."""
    crops = Crops(global_crops_size=28, local_crops_size=14, local_crops_number=0)
    rows = [{"image": path.name} for path in sorted(folder.iterdir())]
    batches = load_batches(
        from_rows(rows, root=folder),
        crops=crops,
        augmentation=Augmentation(),
        ibot=Ibot(),
        patch_size=14,
        seed=0,
        batch_size=2,
        rank=world.rank,
        num_ranks=world.size,
        first_batch=0,
        num_batches=NUM_STEPS,
        num_workers=board.num_workers,
        prefetch_batches=2,
        pin_memory=False,
        board=board,
    )
    for step in range(NUM_STEPS):
        pulse.at("data", step=step)
        next(batches)
        pulse.at("backward", step=step)
        exchange(world, hangs=False)


def run(what: str, ranks: set[int], folder: Path | None) -> None:
    """A few steps, one of which breaks."""
    board = WorkerBoard(2)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun sends it when a process is lost; a run only notes it
    with (
        open_world(device="cpu", timeout_seconds=60) as world,
        open_pulse(
            world,
            limits=limits(),
            say=lambda text: print(f"said: {text}", flush=True),
            data_details=board.words,
        ) as pulse,
    ):
        torch.set_num_threads(1)
        if folder is not None:
            read_pictures(folder, world=world, board=board, pulse=pulse)
            return
        for step in range(NUM_STEPS):
            pulse.at("forward", step=step)
            if step == BREAKS_AT and world.rank in ranks:
                breaks(what.removesuffix("-unnoticed"), world=world, pulse=pulse)
            pulse.at("backward", step=step)
            time.sleep(0.15)
            exchange(world, hangs=step == BREAKS_AT and what.endswith("-unnoticed"))


def main(words: list[str]) -> int:
    """The exit code, as `dinov2.cli.main` gives it."""
    try:
        run(words[0], {int(rank) for rank in words[1].split(",")}, Path(words[2]) if len(words) > 2 else None)
    except Dinov2Error as error:
        print(f"dinov2 train: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("dinov2 train: interrupted.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
