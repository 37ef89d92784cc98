import json
import sys
import time
from pathlib import Path

import pytest

from dinov2.errors import LaunchError
from dinov2.launch import Array, Held, Resources, check_cluster, follow, script_of, submit_array, watch
from dinov2.launch.queue import queue

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
        "ids": [array.job_id],
    }
    assert list(watch(array))[-1].done == (1,)


def test_the_processes_of_a_task_are_told_of_each_other_and_the_main_ones_log_can_be_followed(tmp_path):
    (tmp_path / "seen").mkdir()
    array = submit_array(
        command,
        [["world", str(tmp_path / "seen")]],
        folder=tmp_path / "jobs",
        cluster="local",
        resources=Resources(processes_per_node=2),
        name="test",
        trains=True,
        notes={"runs": ["."]},
    )
    seen = list(follow(array))
    assert seen[-1] == Held("DONE")
    said = "".join(one for one in seen if isinstance(one, str))
    assert "process 0 was here" in said
    assert "process 1" not in said
    worlds = [(tmp_path / "seen" / rank).read_text().split() for rank in ("0", "1")]
    assert [world[:5] for world in worlds] == [[rank, "2", rank, "2", "127.0.0.1"] for rank in ("0", "1")]
    assert worlds[0][5] == worlds[1][5], "they meet at one port"
    assert json.loads((array.folder / "array.json").read_text())["runs"] == ["."]


def test_a_training_that_was_stopped_leaves_no_result_on_any_process(tmp_path):
    array = submit_array(
        command,
        [["end", "130"]],
        folder=tmp_path,
        cluster="local",
        resources=Resources(processes_per_node=2),
        name="test",
        trains=True,
    )
    assert list(follow(array))[-1] == Held("FAILED")
    assert not list(array.folder.glob("*_result.pkl"))


def test_a_script_needs_no_slurm_and_names_the_folder_that_the_next_job_would_have(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "0001").mkdir()
    resources = Resources(
        num_nodes=3, processes_per_node=4, gpus_per_node="a100:4", num_cpus=7, memory=None, minutes=90
    )
    lines = script_of(folder=tmp_path, resources=resources, name="ours", num_tasks=2, trains=True).splitlines()
    wanted = ["nodes=3", "ntasks-per-node=4", "gpus-per-node=a100:4", "cpus-per-task=7", "time=90", "job-name=ours"]
    assert [word for word in wanted if f"#SBATCH --{word}" not in lines] == []
    assert any(line.startswith("#SBATCH --array=0-1") for line in lines)
    assert not any("--mem" in line or "--partition" in line or "--account" in line for line in lines)
    (srun,) = (line for line in lines if line.startswith("srun "))
    assert str(tmp_path / "0002") in srun
    assert "--kill-on-bad-exit=0 --wait=0" in srun
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0001"]
