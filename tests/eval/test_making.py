"""What is half made goes with its maker, and never before."""

import multiprocessing
import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from dinov2.eval.making import LOCK, making, remove_leftovers
from tests.distributed.processes import warm_context


def _make_for_ever(parent: Path, told: Connection) -> None:
    with making(parent, name="films") as made:
        (made / "half.npy").write_bytes(b"half")
        if os.fork() == 0:  # as a data worker does, which lives on when its parent is killed
            signal.pause()
        told.send(made)
        signal.pause()


def started(parent: Path) -> tuple[multiprocessing.process.BaseProcess, Path]:
    """A process of its own that makes something and never ends, and its folder."""
    context = warm_context()
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_make_for_ever, args=(parent, theirs))
    process.start()
    assert ours.poll(60)
    made: Path = ours.recv()
    return process, made


def test_what_a_killed_process_was_making_is_removed_by_the_next_and_what_a_living_one_makes_is_not(
    tmp_path: Path,
) -> None:
    killed, left = started(tmp_path)
    living, kept = started(tmp_path)
    assert left.parent == kept.parent == tmp_path
    try:
        with making(tmp_path, name="others") as made:
            assert {left, kept, made} == set(tmp_path.iterdir())
        assert {left, kept} == set(tmp_path.iterdir())
        killed.kill()
        killed.join(60)
        with making(tmp_path, name="others") as made:
            assert {kept, made} == set(tmp_path.iterdir()), "though a child of the killed one lives"
        assert (kept / "half.npy").read_bytes() == b"half"
    finally:
        for process in (killed, living):
            process.kill()
            process.join(60)
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == []


def _fail_while_making(parent: Path) -> None:
    with making(parent, name="films") as made:
        (made / "whole").write_text("whole")
        (made / "whole").replace(parent / "whole")
        (made / "half").write_text("half")
        raise RuntimeError("in the middle")


def test_an_error_leaves_nothing_and_what_was_moved_out_stays(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="in the middle"):
        _fail_while_making(tmp_path / "new")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["whole"]


def test_two_makers_in_one_process_leave_each_other_alone(tmp_path: Path) -> None:
    with making(tmp_path, name="films") as one, making(tmp_path, name="films") as other:
        remove_leftovers(tmp_path)
        assert one != other
        assert one.is_dir()
        assert other.is_dir()


def test_hidden_folders_of_other_programs_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / ".theirs.partial").mkdir()
    (tmp_path / ".theirs.partial" / "file").write_text("theirs")
    (tmp_path / "ours.partial").mkdir()
    (tmp_path / "ours.partial" / LOCK).write_text("")  # not hidden: not made by `making`
    remove_leftovers(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
