import json
import sys
import time
from pathlib import Path

import pytest

from dinov2.errors import LaunchError
from dinov2.launch import Array, Resources, check_cluster, submit_array, watch
from dinov2.launch.array import queue

from .commands import command


def submit(folder: Path, *words: list[str]) -> Array:
    return submit_array(command, words, folder=folder, cluster="local", resources=Resources(num_cpus=1), name="test")


def test_every_task_runs_its_own_words_and_a_failed_one_is_known_by_its_number(tmp_path):
    array = submit(tmp_path / "jobs", ["write", str(tmp_path / "a")], ["end", "2"], ["write", str(tmp_path / "c")])
    seen = list(watch(array))
    assert seen[-1].done == (1, 3)
    assert seen[-1].failed == (2,)
    assert all(len(one.done + one.failed + one.running + one.waiting) == 3 for one in seen)
    assert [one.has_ended for one in seen] == [False] * (len(seen) - 1) + [True]
    assert (tmp_path / "a").read_text() == (tmp_path / "c").read_text() == "written"
    assert "exit code 2" in array.log_of(2).read_text()


def test_words_and_logs_are_readable_by_their_owner_alone_whatever_the_tasks_write(tmp_path):
    array = submit(tmp_path / "deep" / "jobs", ["write", str(tmp_path / "a")])
    assert [one.done for one in watch(array)][-1] == (1,)
    for folder in (tmp_path / "deep", tmp_path / "deep" / "jobs", array.folder):
        assert folder.stat().st_mode & 0o077 == 0, folder.name
    assert (tmp_path / "a").stat().st_mode & 0o044 == 0o044


def test_each_array_has_a_folder_of_its_own_so_that_old_results_are_not_taken_for_new_ones(tmp_path):
    first, second = (submit(tmp_path, ["end", "0"]) for _ in range(2))
    assert [first.folder.name, second.folder.name] == ["0001", "0002"]
    for array in (first, second):
        assert list(watch(array))[-1].done == (1,)


def test_stopped_processes_end_in_good_order_and_count_as_failed(tmp_path):
    marker = tmp_path / "marker"
    array = submit(tmp_path / "jobs", ["sleep", str(marker)], ["end", "0"])
    for progress in watch(array):
        if progress.running == (1,) and marker.exists() and marker.read_text():
            array.stop_here()
    assert progress.failed == (1,)
    assert progress.done == (2,)
    for _ in range(100):
        if marker.read_text() == "ended in good order":
            break
        time.sleep(0.05)
    assert marker.read_text() == "ended in good order"


def test_without_submitit_the_message_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(LaunchError, match=r"dinov2\[slurm\]"):
        check_cluster("local", folder=tmp_path)


def test_without_slurm_the_message_says_where_to_go(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LaunchError, match="--cluster local"):
        check_cluster("slurm", folder=tmp_path)
    assert queue("1") is None, "no answer is not an empty queue"


def test_a_log_folder_that_slurm_would_read_as_a_pattern_is_refused(tmp_path, monkeypatch):
    (tmp_path / "sbatch").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LaunchError, match="pattern"):
        check_cluster("slurm", folder=tmp_path / "100%")


def test_an_array_is_on_record_under_the_id_that_the_cluster_gave_it(tmp_path):
    array = submit(tmp_path, ["end", "0"])
    assert json.loads((array.folder / "array.json").read_text()) == {
        "cluster": "local",
        "job_id": array.job_id,
        "tasks": 1,
    }
    assert list(watch(array))[-1].done == (1,)
