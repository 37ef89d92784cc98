"""Real runs, killed in every way and at every number of processes, each continued by the same command.

`scripts/kill_matrix.py` does the same at random moments and as often as one likes.
"""

import re
import resource
import signal
import sys
from pathlib import Path

import pytest

from dinov2.checkpoint.reading import newest_sound

from .equality import differences
from .kills import TOTAL_STEPS, Bench, KillPoint, Kind, Setting, await_moment, newest_step
from .launches import send
from .runs import metrics, write_pictures, write_tiny_config

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="finds the processes of a run in /proc")


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("kills")
    return Bench(folder, config=write_tiny_config(folder), pictures=write_pictures(folder / "pictures"))


def check(bench: Bench, *points: KillPoint, name: str, setting: Setting | None = None) -> None:
    """All points happened, and none left a trace."""
    outcomes = bench.judge(points, name=name, setting=setting)
    assert all(outcome.happened for outcome in outcomes)
    faults = [f"{outcome.point}: {fault}" for outcome in outcomes for fault in outcome.faults]
    assert not faults, "\n".join(faults)


def test_one_process_killed_again_and_again_ends_as_if_nothing_had_happened(bench: Bench) -> None:
    check(
        bench,
        KillPoint(kind=Kind.SELF_TEST, before=1, after=1),
        KillPoint(kind=Kind.SAVING, before=1, after=1, step=4),
        KillPoint(kind=Kind.USR1, before=1, after=1, step=5),
        KillPoint(kind=Kind.INT, before=1, after=1, step=7),
        KillPoint(kind=Kind.SAVED, before=1, after=1, step=10),
        KillPoint(kind=Kind.EXPORT, before=1, after=1, delay=0.02),
        name="one",
        setting=Setting.ELASTIC,  # its uninterrupted run serves the next test too
    )


def test_a_run_moves_between_one_two_and_four_processes_and_sees_the_same_pictures_and_losses(bench: Bench) -> None:
    check(
        bench,
        KillPoint(kind=Kind.SAVING_ONE, before=2, after=1, step=4, victim=1),
        KillPoint(kind=Kind.ALL, before=1, after=4, step=6, delay=0.1),
        KillPoint(kind=Kind.TERM_ONE, before=4, after=2, step=8, victim=2),
        name="elastic",
    )


def test_two_processes_killed_in_fp16_keep_scale_and_skipped_steps_and_end_with_the_same_bytes(bench: Bench) -> None:
    check(
        bench,
        KillPoint(kind=Kind.ONE, before=2, after=2, step=3, victim=0),
        KillPoint(kind=Kind.TERM, before=2, after=2, step=8),
        name="half",
        setting=Setting.HALF,
    )
    lines = metrics(bench.whole_run(Setting.HALF, size=2))
    skipped = [line["skipped"] for line in lines]
    assert skipped[0] == 1.0
    assert skipped[-1] == 0.0, "the run must leave the scale that is too high behind"
    assert lines[-1]["loss_scale"] < lines[0]["loss_scale"] < 65536.0


def test_torchrun_restarts_a_run_of_which_one_process_was_killed(bench: Bench, tmp_path: Path) -> None:
    run = tmp_path / "run"
    point = KillPoint(kind=Kind.ONE, before=2, after=2, step=3, victim=1)
    started = bench.start(run, size=2, setting=Setting.HALF, max_restarts=1)
    assert await_moment(started, run, point)
    send(started.ranks()[1], signal.SIGKILL)
    code, left = started.wait(seconds=300), started.leftovers(seconds=20)
    assert (code, left) == (0, []), started.complained[-3000:]
    assert "continuing from" in started.said
    assert not differences(run, bench.whole_run(Setting.HALF, size=2), exactly=True)


def test_a_full_disk_ends_both_processes_with_one_message_and_the_run_goes_on_from_the_checkpoint_before(
    bench: Bench, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    point = KillPoint(kind=Kind.SAVED, before=2, after=2, step=4)
    started = bench.start(run, size=2, setting=Setting.HALF)
    assert await_moment(started, run, point)
    # From here on rank 1 can write no file beyond a kilobyte: for it the disk is full.
    resource.prlimit(started.ranks()[1], resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
    code, left = started.wait(seconds=120), started.leftovers(seconds=20)
    assert code not in (None, 0)
    assert not left
    # In torchrun's table, one line a process; it sends SIGTERM to the others as soon as it sees the first one end.
    ended_with = re.findall(r"^ +exitcode +: (-?\d+)", started.complained, flags=re.MULTILINE)
    assert len(ended_with) == 2, started.complained[-3000:]
    assert {"2"} <= set(ended_with) <= {"2", "-15"}, started.complained[-3000:]
    assert "could not be written: the disk is full on process 1" in started.complained
    assert 'dinov2/", line' not in started.complained
    newest, passed_over = newest_sound(run / "checkpoints")
    assert newest is not None
    assert not passed_over
    assert 4 <= newest_step(run) < TOTAL_STEPS
    assert not list((run / "checkpoints").glob(".partial-*"))
    again = bench.start(run, size=2, setting=Setting.HALF)
    code, left = again.wait(seconds=300), again.leftovers(seconds=20)
    assert (code, left) == (0, []), again.complained[-3000:]
    assert not differences(run, bench.whole_run(Setting.HALF, size=2), exactly=True)
