import fcntl
import json
import os
import socket
from pathlib import Path

import pytest

from dinov2.config.load import to_yaml
from dinov2.config.schema import Config, Optim
from dinov2.errors import LaunchError
from dinov2.launch import is_running, product_of, read_runs, write_sweep
from dinov2.launch.tails import last_lines, last_numbers


def write_run(path: Path, *, steps: int, total: int = 10, saved: int | None = None, lr: float = 1e-4) -> Path:
    (path / "logs").mkdir(parents=True)
    (path / ".lock").write_text(f"process 1 on {socket.gethostname()}, since then\n")
    (path / "config.yaml").write_text(to_yaml(Config(optim=Optim(total_steps=total, base_lr=lr))))
    lines = [{"step": step, "total_loss": 10.0 - step} for step in range(1, steps + 1)]
    (path / "training_metrics.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (path / "logs" / "timing.json").write_text(json.dumps({"step": steps, "pictures_per_second": 42.5}) + "\n")
    (path / "checkpoints" / str(steps if saved is None else saved)).mkdir(parents=True)
    return path


def say(run: Path, level: str, text: str) -> None:
    with (run / "logs" / "train.log").open("a") as stream:
        stream.write(f"2026-01-01 00:00:00,000 {level} {text}\n")


def test_a_run_says_how_far_it_came_how_fast_and_with_which_numbers(tmp_path):
    (report,) = read_runs([write_run(tmp_path / "run", steps=4)])
    assert (report.state, report.step, report.total_steps) == ("stopped", 4, 10)
    assert report.pictures_per_second == 42.5
    assert report.numbers == {"total_loss": 6.0}
    assert report.settings["optim.base_lr"] == 1e-4


def test_a_run_is_finished_when_its_last_checkpoint_is_there_not_its_last_line(tmp_path):
    write_run(tmp_path / "whole", steps=10)
    write_run(tmp_path / "nearly", steps=10, saved=8)
    assert {report.path.name: report.state for report in read_runs([tmp_path])} == {
        "whole": "finished",
        "nearly": "stopped",
    }


def test_a_run_whose_folder_is_locked_is_running_and_asking_takes_no_lock(tmp_path):
    run = write_run(tmp_path / "run", steps=4)
    assert not is_running(run)
    with (run / ".lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert is_running(run)
        assert read_runs([run])[0].state == "running"
    with (run / ".lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_run_of_another_machine_is_running_as_long_as_its_files_are_fresh(tmp_path):
    run = write_run(tmp_path / "run", steps=4)
    (run / ".lock").write_text("process 1 on another, since then\n")
    assert read_runs([run])[0].state == "running"
    for file in run.rglob("*.json"):
        os.utime(file, (0, 0))
    assert read_runs([run])[0].state == "stopped"


def test_a_failed_run_has_its_last_words_and_one_that_went_on_since_has_not_failed(tmp_path):
    run = write_run(tmp_path / "run", steps=4)
    say(run, "INFO", "step 4/10")
    say(run, "ERROR", "3 pictures cannot be read")
    report = read_runs([run])[0]
    assert (report.state, report.words) == ("failed", "3 pictures cannot be read")
    say(run, "INFO", "stopped by SIGTERM at step 6 of 10; the checkpoint is whole.")
    report = read_runs([run])[0]
    assert (report.state, report.words.split(";")[0]) == ("stopped", "stopped by SIGTERM at step 6 of 10")


@pytest.mark.parametrize(
    ("log", "state", "words"),
    [
        (
            "step 1/10\ndinov2 train: /x: no picture in this folder.\nTraceback (most recent call last):\n",
            "failed",
            "/x: no",
        ),
        ("Traceback (most recent call last):\n  File\nRuntimeError: device lost\n", "failed", "RuntimeError: device"),
        ("dinov2 train: interrupted.\n", "stopped", ""),
        ("dinov2 train: early\nsubmitit INFO (now) - Starting with JobEnvironment(...)\nstep 2/10\n", "stopped", ""),
    ],
)
def test_a_submitted_run_speaks_through_the_last_start_in_the_log_of_its_job(tmp_path, log, state, words):
    run = write_run(tmp_path / "run", steps=4)
    jobs = run / "logs" / "jobs" / "0001"
    jobs.mkdir(parents=True)
    (jobs / "array.json").write_text(json.dumps({"cluster": "local", "job_id": "7", "tasks": 1, "ids": ["7"]}))
    (jobs / "7_0_log.out").write_text(log)
    report = read_runs([run])[0]
    assert report.state == state
    assert report.words.startswith(words)


def test_runs_that_a_sweep_plans_are_listed_before_they_begin(tmp_path):
    write_sweep(tmp_path, product_of(["optim.base_lr=1e-4,2e-4"]))
    write_run(tmp_path / "base_lr=1e-4", steps=10)
    (tmp_path / "logs" / "jobs" / "0001").mkdir(parents=True)
    reports = {report.path.name: report for report in read_runs([tmp_path])}
    assert {name: report.state for name, report in reports.items()} == {
        "base_lr=1e-4": "finished",
        "base_lr=2e-4": "waiting",
    }
    assert reports["base_lr=2e-4"].settings == {"optim.base_lr": "2e-4"}


def test_runs_are_found_in_folders_of_folders_but_not_inside_runs(tmp_path):
    write_run(tmp_path / "a" / "one", steps=1)
    write_run(tmp_path / "b" / "deep" / "two", steps=1)
    write_run(tmp_path / "a" / "one" / "superseded" / "1", steps=1)
    assert sorted(report.path.name for report in read_runs([tmp_path])) == ["one", "two"]
    assert len(read_runs([tmp_path, tmp_path / "a"])) == 2, "no run twice"


def test_a_folder_without_runs_and_one_that_is_not_there_are_refused(tmp_path):
    with pytest.raises(LaunchError, match="no run in it"):
        read_runs([tmp_path])
    with pytest.raises(LaunchError, match="no such folder"):
        read_runs([tmp_path / "gone"])


def test_only_the_end_of_a_file_is_read_however_long_it_is(tmp_path):
    path = tmp_path / "metrics.json"
    with path.open("wb") as stream:
        stream.truncate(1 << 40)
        stream.seek(0, os.SEEK_END)
        stream.write(b'\n{"step": 1, "rare": 0.5, "loss": 3.0}\n{"step": 2, "loss": null}\n{"step": 3, "lo')
    assert last_lines(path) == ['{"step": 1, "rare": 0.5, "loss": 3.0}', '{"step": 2, "loss": null}']
    assert last_numbers(path) == {"step": 2, "rare": 0.5, "loss": 3.0}


def test_a_file_that_is_empty_or_gone_has_no_numbers(tmp_path):
    (tmp_path / "empty").touch()
    assert last_numbers(tmp_path / "empty") == last_numbers(tmp_path / "gone") == {}


def test_the_pictures_of_a_conversion_are_no_run(tmp_path):
    write_run(tmp_path / "run", steps=4)
    (tmp_path / "pictures").mkdir()
    for name in (".lock", "preprocess.json"):  # as `dinov2 preprocess` leaves them
        (tmp_path / "pictures" / name).touch()
    assert [report.path.name for report in read_runs([tmp_path])] == ["run"]
