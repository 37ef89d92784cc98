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
    with pytest.raises(LaunchError, match=r"has no GPU \(0 visible\)"):
        read_world({}, device="cuda")
