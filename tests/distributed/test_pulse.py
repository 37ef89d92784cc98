"""What the processes of a run learn of each other, on real ones that are killed, stopped, or fail."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from dinov2.data.stream import SampleStream
from dinov2.distributed import World
from dinov2.distributed.pulse import PulseLimits, open_pulse
from dinov2.errors import ProcessLost
from tests.data.conftest import film
from tests.distributed.crew import Crew

HOST = socket.gethostname()
ROOT = Path(__file__).resolve().parents[2]
CONTINUE = "The same command continues from the last checkpoint."
LOST = ProcessLost.exit_code


def only_message(errors: str) -> str:
    """stderr, which must be one message and no traceback."""
    lines = errors.splitlines()
    assert len(lines) == 1, errors
    return lines[0]


def test_a_run_that_ends_well_says_nothing(tmp_path: Path) -> None:
    with Crew(tmp_path, "nothing", "0", size=2) as crew:
        assert [(one.code, one.said, one.errors) for one in crew.endings()] == [(0, [], "")] * 2


@pytest.mark.parametrize("victim", [0, 2])
def test_a_killed_process_ends_the_others_with_one_message_that_names_it(tmp_path: Path, victim: int) -> None:
    with Crew(tmp_path, "killed", str(victim), size=4) as crew:
        endings = crew.endings()
    assert endings[victim].code == -signal.SIGKILL
    for rank in {0, 1, 2, 3} - {victim}:
        assert endings[rank].code == LOST
        told = only_message(endings[rank].errors)
        place = f"rank {victim} ({HOST})"
        assert told.startswith(f"dinov2 train: {place} ended without a word at step 5, phase forward (for "), told
        assert told.endswith(CONTINUE)


@pytest.mark.parametrize("victim", [0, 2])
def test_processes_that_hang_in_an_exchange_are_ended_and_one_says_why(tmp_path: Path, victim: int) -> None:
    with Crew(tmp_path, "killed-unnoticed", str(victim), size=4) as crew:
        endings = crew.endings()
    left = [endings[rank] for rank in range(4) if rank != victim]
    assert [one.code for one in left] == [LOST] * 3
    told = only_message("".join(one.errors for one in left))
    assert told.startswith(f"dinov2: rank {victim} ({HOST}) ended without a word at step ")


@pytest.mark.parametrize("victim", [0, 3])
def test_a_process_that_is_stopped_is_missed_by_its_silence(tmp_path: Path, victim: int) -> None:
    with Crew(tmp_path, "stopped", str(victim), size=4, LOST_SECONDS="3") as crew:
        left = [crew.ending(rank) for rank in range(4) if rank != victim]
    assert [one.code for one in left] == [LOST] * 3
    told = only_message("".join(one.errors for one in left))
    assert re.match(
        rf"dinov2: rank {victim} \({HOST}\): no sign of life for \d+ s; last seen at step 5, phase forward\.", told
    ), told


@pytest.mark.parametrize("culprit", [0, 3])
def test_an_error_of_one_process_is_told_by_all_the_others(tmp_path: Path, culprit: int) -> None:
    with Crew(tmp_path, "raises", str(culprit), size=4) as crew:
        endings = crew.endings()
    assert endings[culprit].code == 2
    assert only_message(endings[culprit].errors) == f"dinov2 train: {culprit} pictures cannot be read."
    for rank in {0, 1, 2, 3} - {culprit}:
        assert endings[rank].code == LOST
        assert only_message(endings[rank].errors) == (
            f"dinov2 train: rank {culprit} ({HOST}) ended at step 5: DataError: {culprit} pictures cannot be read."
        )


def test_an_error_that_all_raise_ends_each_with_its_own_words(tmp_path: Path) -> None:
    with Crew(tmp_path, "raises-in-turn", "0,1,2", size=3) as crew:
        endings = crew.endings()
    assert [one.code for one in endings] == [2, 2, 2]
    assert [only_message(one.errors) for one in endings] == [
        f"dinov2 train: agreed by all, said by rank {rank}." for rank in range(3)
    ]


def test_a_fault_of_ours_keeps_its_traceback_where_it_happened_and_is_one_line_elsewhere(tmp_path: Path) -> None:
    with Crew(tmp_path, "faulty", "1", size=2) as crew:
        first, second = crew.endings()
    assert second.code == 1
    assert "Traceback" in second.errors
    assert only_message(first.errors) == f"dinov2 train: rank 1 ({HOST}) ended at step 5: ValueError: a fault of ours"


def test_an_interrupted_process_is_named(tmp_path: Path) -> None:
    with Crew(tmp_path, "interrupted", "1", size=2) as crew:
        first, second = crew.endings()
    assert (second.code, only_message(second.errors)) == (130, "dinov2 train: interrupted.")
    assert (first.code, only_message(first.errors)) == (
        LOST,
        f"dinov2 train: rank 1 ({HOST}) ended at step 5: KeyboardInterrupt",
    )


def test_a_stalled_step_and_a_slow_wait_are_said_by_rank_0_once(tmp_path: Path) -> None:
    with Crew(tmp_path, "slow", "1", size=3, STALL_SECONDS="2.5", SLOW_SECONDS="1") as crew:
        endings = crew.endings()
    assert [one.code for one in endings] == [0, 0, 0]
    assert endings[1].said == endings[2].said == []
    waits, stalls = endings[0].said
    assert re.match(rf"said: rank 1 \({HOST}\): waiting for pictures for 1 s at step 5: 2 not started", waits), waits
    assert re.match(
        rf"said: step 5 has taken [23] s so far. ranks 0, 2: backward for \d s; rank 1 \({HOST}\): data for \d s: ",
        stalls,
    ), stalls


def test_every_process_can_have_rank_0_say_a_word(tmp_path: Path) -> None:
    with Crew(tmp_path, "notes", "0,1", size=2) as crew:
        said = crew.ending(0).said
    assert sorted(said) == [f"said: rank {rank} ({HOST}): a word of rank {rank}" for rank in (0, 1)]


@pytest.fixture
def hanging(tmp_path: Path) -> tuple[Path, Path]:
    """A folder of 40 pictures, one of them a FIFO that hangs its reader: rank 1 of 2, in its third batch."""
    import cv2

    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(40):
        cv2.imwrite(str(folder / f"{number:02d}.png"), film(number, height=32, width=32))
    fifo = folder / f"{SampleStream(40, seed=0).row(10):02d}.png"
    fifo.unlink()
    os.mkfifo(fifo)
    return folder, fifo


def test_a_hung_data_worker_is_named_with_its_picture_and_the_run_goes_on(
    tmp_path: Path, hanging: tuple[Path, Path]
) -> None:
    folder, fifo = hanging
    with Crew(tmp_path, "nothing", "0", str(folder), size=2, SLOW_SECONDS="1", STALL_SECONDS="3") as crew:
        waits, stalls = crew.wait_for("waiting for pictures"), crew.wait_for("so far")
        os.close(os.open(fifo, os.O_WRONLY))  # what the disk had to say comes at last: it is no picture
        endings = crew.endings()
    assert re.match(
        rf"said: rank 1 \({HOST}\): waiting for pictures for 1 s at step 2: worker \d \(process \d+\) ", waits
    )
    assert f"reads {fifo} (position 10) for " in waits
    assert re.search(rf"rank 0 \({HOST}\): backward for \d s; rank 1 \({HOST}\): data for \d s: worker ", stalls), (
        stalls
    )
    assert f"reads {fifo} (position 10) for " in stalls
    assert [one.code for one in endings] == [0, 0]


def is_gone(group: int) -> bool:
    """Whether the last process of a group ends within a while."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def test_a_process_that_hangs_on_its_data_ends_with_its_workers_when_another_is_lost(
    tmp_path: Path, hanging: tuple[Path, Path]
) -> None:
    folder, _ = hanging
    with Crew(tmp_path, "nothing", "0", str(folder), size=2, SLOW_SECONDS="1") as crew:
        crew.wait_for("waiting for pictures")
        crew.processes[0].kill()
        ending = crew.ending(1)
        assert ending.code == LOST
        assert f"rank 0 ({HOST}) ended without a word at step 2, phase backward" in only_message(ending.errors)
        assert is_gone(crew.processes[1].pid), "a data worker outlived its process"


def test_under_torchrun_the_killed_process_is_named_too() -> None:
    words = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "tests/distributed/breaking.py")
    done = subprocess.run(
        [sys.executable, *words, "killed", "1"],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 1
    assert f"dinov2 train: rank 1 ({HOST}) ended without a word at step " in done.stderr
    assert "exitcode  : -9" in done.stderr


def test_one_process_alone_notices_slow_data_and_stalls() -> None:
    said: list[str] = []
    world = World(rank=0, size=1, local_rank=0, device=torch.device("cpu"))
    limits = PulseLimits(lost_seconds=6, stall_seconds=1.5, slow_data_seconds=0.5)
    with open_pulse(world, limits=limits, say=said.append, data_details=lambda: "worker 0 reads a.png") as pulse:
        pulse.at("data", step=7)
        deadline = time.monotonic() + 30
        while len(said) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        pulse.at("forward", step=7)
        time.sleep(0.5)  # still the same stall: nothing more is said
    assert re.fullmatch(r"waiting for pictures for \d s at step 7: worker 0 reads a.png", said[0])
    assert re.fullmatch(r"step 7 has taken \d s so far. rank 0 \(.*\): data for \d s: worker 0 reads a.png", said[1])
    assert len(said) == 2


def test_an_error_inside_passes_through_unchanged() -> None:
    world = World(rank=0, size=1, local_rank=0, device=torch.device("cpu"))
    limits = PulseLimits(lost_seconds=6, stall_seconds=60, slow_data_seconds=60)
    with (
        pytest.raises(ValueError, match="mine"),
        open_pulse(world, limits=limits, say=print, data_details=str),
    ):
        raise ValueError("mine")
