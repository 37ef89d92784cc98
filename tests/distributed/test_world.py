from pathlib import Path

import pytest
import torch

from dinov2.distributed import read_world
from dinov2.errors import LaunchError

FULL = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}


def test_without_launch_variables_there_is_one_process() -> None:
    world = read_world({}, device="cpu")
    assert (world.rank, world.size, world.is_main, world.device) == (0, 1, True, torch.device("cpu"))


def test_torchrun_variables_give_rank_and_size() -> None:
    world = read_world(FULL, device="cpu")
    assert (world.rank, world.size, world.local_rank, world.is_main) == (1, 2, 1, False)


@pytest.mark.parametrize("missing", ["WORLD_SIZE", "RANK", "MASTER_PORT"])
def test_half_a_launch_is_refused_and_names_what_is_missing(missing: str) -> None:
    with pytest.raises(LaunchError, match=f"half a distributed launch.*{missing} not"):
        read_world({k: v for k, v in FULL.items() if k != missing}, device="cpu")


def test_a_rank_outside_the_world_is_refused() -> None:
    with pytest.raises(LaunchError, match="RANK=2 is not among WORLD_SIZE=2"):
        read_world(FULL | {"RANK": "2"}, device="cpu")


def test_a_rank_that_is_no_number_is_refused() -> None:
    with pytest.raises(LaunchError, match="RANK='one' is not a whole number"):
        read_world(FULL | {"RANK": "one"}, device="cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(
        LaunchError, match=r"1 process\(es\) on this machine and 0 GPU\(s\) visible; process 0 has none"
    ):
        read_world({}, device="cuda")


# As SLURM 22.05 sets them, for a job of two nodes with four tasks each.
BATCH_SCRIPT = {
    "SLURM_JOB_ID": "17", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NTASKS": "8",
    "SLURM_NPROCS": "8", "SLURM_TASKS_PER_NODE": "4(x2)", "SLURM_JOB_NODELIST": "node[1-2]",
    "SLURMD_NODENAME": "node1",
}  # fmt: skip
ALLOCATION_SHELL = {name: BATCH_SCRIPT[name] for name in ("SLURM_JOB_ID", "SLURM_NTASKS", "SLURM_TASKS_PER_NODE")}
TASK = BATCH_SCRIPT | {
    "SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_NODEID": "1", "SLURM_STEP_ID": "2", "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_TASKS_PER_NODE": "4(x2)", "SLURM_STEP_NODELIST": "node[1-2]", "SLURMD_NODENAME": "node2",
    "MASTER_ADDR": "node1",
}  # fmt: skip
ONE_NODE = {
    "SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_TASKS_PER_NODE": "4", "SLURM_NODEID": "0",
    "SLURM_PROCID": "1", "SLURM_STEP_NODELIST": "node2", "MASTER_ADDR": "",
}  # fmt: skip


@pytest.mark.parametrize("environ", [BATCH_SCRIPT, ALLOCATION_SHELL], ids=["batch script", "salloc shell"])
def test_a_plain_command_in_an_allocation_is_one_process(environ: dict[str, str]) -> None:
    assert read_world(environ, device="cpu").size == 1


def test_a_step_of_one_task_is_one_process() -> None:
    assert read_world(TASK | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "1"}, device="cpu").size == 1


def test_a_task_of_a_step_knows_its_place() -> None:
    world = read_world(TASK, device="cpu")
    assert (world.rank, world.size, world.local_rank, world.local_size) == (5, 8, 1, 4)
    assert (world.host, world.main_address) == ("node2", "node1")


def test_all_tasks_of_a_step_meet_at_one_port_and_other_steps_elsewhere() -> None:
    first, other = (read_world(TASK | {"SLURM_PROCID": rank}, device="cpu").main_port for rank in ("0", "7"))
    assert first == other
    assert 16384 <= first < 32768, "below the ports that Linux hands out by itself"
    next_step = read_world(TASK | {"SLURM_STEP_ID": "3"}, device="cpu").main_port
    next_job = read_world(TASK | {"SLURM_JOB_ID": "18"}, device="cpu").main_port
    assert len({first, next_step, next_job}) == 3
    assert read_world(TASK | {"MASTER_PORT": "29511"}, device="cpu").main_port == 29511


def test_the_tasks_of_one_node_meet_there_without_asking_slurm() -> None:
    world = read_world(TASK | ONE_NODE, device="cpu")
    assert (world.main_address, world.local_size) == ("127.0.0.1", 4)


def test_nodes_with_different_numbers_of_tasks() -> None:
    changes = {"SLURM_STEP_TASKS_PER_NODE": "3(x2),1", "SLURM_STEP_NUM_TASKS": "7", "SLURM_NTASKS": "7"}
    assert read_world(TASK | changes, device="cpu").local_size == 3
    last = changes | {"SLURM_NODEID": "2", "SLURM_PROCID": "6", "SLURM_LOCALID": "0"}
    assert read_world(TASK | last, device="cpu").local_size == 1


def test_torchruns_variables_win_inside_a_step() -> None:
    world = read_world(TASK | FULL, device="cpu")
    assert (world.rank, world.size, world.main_address, world.main_port) == (1, 2, "localhost", 29500)


@pytest.mark.parametrize("missing", ["SLURM_LOCALID", "SLURM_STEP_NODELIST"])
def test_half_a_step_is_refused_and_names_what_is_missing(missing: str) -> None:
    with pytest.raises(LaunchError, match=f"half a SLURM step: SLURM_STEP_NUM_TASKS=8 but {missing} not set"):
        read_world({k: v for k, v in TASK.items() if k != missing}, device="cpu")


def test_a_world_size_left_over_in_a_step_is_refused_with_the_way_out() -> None:
    with pytest.raises(LaunchError, match=r"RANK, LOCAL_RANK, MASTER_PORT not.*unset WORLD_SIZE to be told by SLURM"):
        read_world(TASK | {"WORLD_SIZE": "8"}, device="cpu")


def test_variables_of_the_step_that_a_job_was_submitted_from_are_noticed() -> None:
    with pytest.raises(LaunchError, match="SLURM_STEP_NUM_TASKS=8 but SLURM_NTASKS=2: the variables of another step"):
        read_world(TASK | {"SLURM_NTASKS": "2"}, device="cpu")


def test_numbers_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(LaunchError, match="contradict each other"):
        read_world(TASK | {"SLURM_PROCID": "8"}, device="cpu")


def test_without_slurms_tools_the_message_says_what_to_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LaunchError, match=r"scontrol show hostnames node\[1-2\]` failed.*set MASTER_ADDR"):
        read_world(TASK | {"MASTER_ADDR": ""}, device="cpu")
