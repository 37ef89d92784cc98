import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from dinov2.config.preprocess import Limits, PreprocessConfig, Resample
from dinov2.errors import LaunchError
from dinov2.preprocess.work.convert import Request, open_conversion
from tests.preprocess.films import (
    KEY,
    SMALL,
    convert,
    everything,
    rejects_of,
    rows_of,
    write_few_films,
    write_phantom,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_few_films(tmp_path / "films")


def start(*words: object, **options) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "dinov2", "preprocess", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def wait_for_pictures(output: Path, *, count: int) -> None:
    patience = time.monotonic() + 60
    while len(list(output.glob("images/*/*.png"))) < count:
        assert time.monotonic() < patience
        time.sleep(0.02)


def test_a_second_run_does_nothing_twice(folder, tmp_path):
    convert(folder, tmp_path / "out")
    before = everything(tmp_path / "out")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "images").rglob("*.png")}
    _, outcomes = convert(folder, tmp_path / "out")
    assert outcomes == []
    assert everything(tmp_path / "out") == before
    assert times == {path: path.stat().st_mtime_ns for path in times}


def test_an_interrupted_conversion_ends_as_an_uninterrupted_one(folder, tmp_path):
    (tmp_path / "key").write_text(KEY)
    convert(folder, tmp_path / "whole", key_file=tmp_path / "key")
    request = Request(input=folder, output=tmp_path / "cut", config=SMALL, key_file=tmp_path / "key", num_workers=0)
    for _ in range(2):
        with open_conversion(request) as conversion:
            work = conversion.run()
            next(work), next(work)
            work.close()
            assert conversion.num_finished() == conversion.num_done
    _, outcomes = convert(folder, tmp_path / "cut", key_file=tmp_path / "key")
    assert len(outcomes) == 1
    assert everything(tmp_path / "cut") == everything(tmp_path / "whole")


def test_an_interruption_within_a_note_leaves_that_file_undone_and_no_half_of_it(folder, tmp_path, monkeypatch):
    from dinov2.preprocess.work.state import State

    (tmp_path / "key").write_text(KEY)
    convert(folder, tmp_path / "whole", key_file=tmp_path / "key")
    run, calls = State._run, iter(range(10_000))

    def interrupted(self, question, *values):
        if "INSERT INTO pictures" in question and next(calls) == 2:
            raise KeyboardInterrupt
        return run(self, question, *values)

    monkeypatch.setattr(State, "_run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert(folder, tmp_path / "cut", key_file=tmp_path / "key")
    assert len(convert(folder, tmp_path / "cut", key_file=tmp_path / "key")[1]) == 2
    assert everything(tmp_path / "cut") == everything(tmp_path / "whole")


def test_only_what_changed_is_done_again(folder, tmp_path):
    convert(folder, tmp_path / "out")
    rows = {row["source"]: row["image"] for row in rows_of(tmp_path / "out")}
    write_phantom(folder / "sub/0.dcm", number=70, seed=7)
    write_phantom(folder / "sub/new.dcm", number=71, seed=8)
    (tmp_path / "out" / rows["sub/2.dcm"]).unlink()
    _, outcomes = convert(folder, tmp_path / "out")
    assert len(outcomes) == 3, "the changed one, the new one, and the one whose picture was lost"
    names = {row["image"] for row in rows_of(tmp_path / "out")}
    assert names == {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out/images").rglob("*.png")}
    assert rows["sub/0.dcm"] not in names


def test_the_same_content_under_a_new_time_is_read_but_not_converted(folder, tmp_path):
    convert(folder, tmp_path / "out")
    before = everything(tmp_path / "out")
    os.utime(folder / "sub/0.dcm", ns=(1, 1))
    _, (outcome,) = convert(folder, tmp_path / "out")
    assert outcome.unchanged
    assert everything(tmp_path / "out") == before
    assert convert(folder, tmp_path / "out")[1] == [], "the new time is known now"


def test_a_change_that_hides_behind_size_and_time_is_found_where_asked_for(folder, tmp_path):
    convert(folder, tmp_path / "out")
    path = folder / "sub/0.dcm"
    state = path.stat()
    content = bytearray(path.read_bytes())
    content[-5000:-4000] = bytes(1000)
    path.write_bytes(content)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert convert(folder, tmp_path / "out")[1] == []
    digest = {row["source"]: row["sha256"] for row in rows_of(tmp_path / "out")}
    _, outcomes = convert(folder, tmp_path / "out", verify_inputs=True)
    assert sorted(outcome.unchanged for outcome in outcomes) == [False, True, True, True, True]
    changed = {row["source"] for row in rows_of(tmp_path / "out") if row["sha256"] != digest[row["source"]]}
    assert changed == {"sub/0.dcm"}


def test_pictures_of_inputs_that_are_gone_are_counted_and_used_again_when_they_come_back(folder, tmp_path):
    convert(folder, tmp_path / "out")
    before = everything(tmp_path / "out")
    (folder / "sub/0.dcm").rename(tmp_path / "away")
    summary, outcomes = convert(folder, tmp_path / "out")
    assert (outcomes, summary.num_gone, summary.num_pictures) == ([], 1, 3)
    assert "1 pictures of earlier runs" in " ".join(summary.remarks())
    (tmp_path / "away").rename(folder / "sub/0.dcm")
    assert convert(folder, tmp_path / "out")[1] == []
    assert everything(tmp_path / "out") == before


def test_limits_may_change_and_what_they_turned_away_is_tried_again(folder, tmp_path):
    tight = replace(SMALL, limits=Limits(max_file_mb=0.04))
    convert(folder, tmp_path / "out", config=tight)
    assert rejects_of(tmp_path / "out")["sub/0.dcm"] == "too_large"
    assert convert(folder, tmp_path / "out", config=tight)[1] == []
    convert(folder, tmp_path / "out")
    assert rejects_of(tmp_path / "out") == {"junk": "not_an_image"}


def test_files_that_could_not_be_opened_are_tried_again(folder, tmp_path):
    (folder / "sub/link.dcm").symlink_to(tmp_path / "nowhere.dcm")
    convert(folder, tmp_path / "out")
    assert rejects_of(tmp_path / "out")["sub/link.dcm"] == "unreadable"
    write_phantom(tmp_path / "nowhere.dcm", number=9, seed=9)
    assert len(convert(folder, tmp_path / "out")[1]) == 1
    assert "sub/link.dcm" in {row["source"] for row in rows_of(tmp_path / "out")}


def test_a_picture_that_a_kill_left_without_a_note_is_removed(folder, tmp_path):
    convert(folder, tmp_path / "out")
    before = everything(tmp_path / "out")
    stray = tmp_path / "out/images/ab/abcdefabcdefabcd.png"
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(b"")
    (tmp_path / "out/.partial/1").mkdir(parents=True)
    convert(folder, tmp_path / "out")
    assert everything(tmp_path / "out") == before


def test_a_picture_that_vanishes_while_the_command_runs_is_told(folder, tmp_path):
    with open_conversion(Request(input=folder, output=tmp_path / "out", config=SMALL, num_workers=0)) as conversion:
        list(conversion.run())
        next((tmp_path / "out/images").rglob("*.png")).unlink()
        with pytest.raises(LaunchError, match="1 pictures have vanished"):
            conversion.finish()


def test_after_sigkill_the_same_command_ends_as_if_nothing_had_happened(tmp_path):
    """A kill -9 of the parent in the middle, twice; its workers end by themselves."""
    (tmp_path / "key").write_text(KEY)
    for number in range(24):
        write_phantom(tmp_path / f"films/{number:02d}.dcm", number=number % 20, seed=number % 3)
    (tmp_path / "films/05.dcm").write_bytes((tmp_path / "films/05.dcm").read_bytes()[:-500])
    words = ["--input", tmp_path / "films", "--key-file", tmp_path / "key", "--output", tmp_path / "killed"]
    words += ["--workers", 2, "resample.short_side=700"]
    for count in (3, 10):
        running = start(*words)
        wait_for_pictures(tmp_path / "killed", count=count)
        running.kill()
        running.communicate()
        assert not (tmp_path / "killed/manifest.parquet").exists()
    done = start(*words)
    _, errors = done.communicate(timeout=300)
    assert done.returncode == 0, errors
    undisturbed = PreprocessConfig(resample=Resample(short_side=700))
    convert(tmp_path / "films", tmp_path / "whole", key_file=tmp_path / "key", config=undisturbed)
    assert everything(tmp_path / "killed") == everything(tmp_path / "whole")
    assert len(rejects_of(tmp_path / "whole")) == 5


def test_ctrl_c_keeps_what_is_done_and_the_next_run_continues(tmp_path):
    for number in range(30):
        write_phantom(tmp_path / f"films/{number:02d}.dcm", number=number, seed=0)
    words = ["--input", tmp_path / "films", "--output", tmp_path / "out", "--workers", 1, "resample.short_side=900"]
    running = start(*words, start_new_session=True)
    wait_for_pictures(tmp_path / "out", count=2)
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does: to the workers too
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 130, errors
    assert "Traceback" not in errors
    num_pictures = len(list((tmp_path / "out/images").rglob("*.png")))
    assert f"interrupted: {num_pictures} of 30 files are done" in errors
    assert not list((tmp_path / "out").rglob(".partial"))


def test_a_disk_that_is_full_ends_in_one_message_and_half_a_picture_nowhere(folder, tmp_path):
    import resource

    def small_files_only() -> None:  # no file may grow beyond that, which is what a full disk looks like to a writer
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    (tmp_path / "key").write_text(KEY)
    words = ["--input", folder, "--key-file", tmp_path / "key", "--workers", 1, "resample.short_side=600"]
    done = start(*words, "--output", tmp_path / "out", preexec_fn=small_files_only)
    _, errors = done.communicate(timeout=60)
    assert done.returncode == 2, errors
    assert "cannot be written" in errors
    assert "Traceback" not in errors
    assert not list((tmp_path / "out/images").rglob("*.png"))
    assert not list((tmp_path / "out").rglob(".partial"))
    done = start(*words, "--output", tmp_path / "out")
    _, errors = done.communicate(timeout=60)
    assert done.returncode == 0, errors
    undisturbed = PreprocessConfig(resample=Resample(short_side=600))
    convert(folder, tmp_path / "whole", key_file=tmp_path / "key", config=undisturbed)
    assert everything(tmp_path / "out") == everything(tmp_path / "whole")
