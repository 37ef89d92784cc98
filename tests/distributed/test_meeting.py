"""How processes find each other, and what is said where they do not; threads stand for processes of other machines."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from dinov2.distributed import open_world
from dinov2.distributed.meeting import Attendant, Place, meet
from dinov2.errors import LaunchError

from .processes import free_port


def launch(*, rank: int, size: int, port: int) -> dict[str, str]:
    numbers = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "MASTER_PORT": port}
    return {name: str(number) for name, number in numbers.items()} | {"MASTER_ADDR": "127.0.0.1"}


def test_a_process_that_never_comes_is_named_and_those_that_came_are_counted() -> None:
    environ = launch(rank=0, size=3, port=free_port())
    with (
        pytest.raises(LaunchError, match=r"1 of 3 processes came within 1 s; missing: ranks 1-2\. .*MASTER_ADDR"),
        open_world(environ, device="cpu", timeout_seconds=1),
    ):
        pass


def test_without_rank_0_the_message_says_where_it_was_looked_for() -> None:
    port = free_port()
    with (
        pytest.raises(
            LaunchError, match=rf"rank 1 of 2 .*nothing answers at 127.0.0.1:{port} after 1 s .*look at its log"
        ),
        open_world(launch(rank=1, size=2, port=port), device="cpu", timeout_seconds=1),
    ):
        pass


def come(rank: int, *, port: int, size: int = 2, gpu: str = "", host: str = "node1") -> str:
    """What is said to one who comes."""
    place = Place(address="127.0.0.1", port=port, serves=rank == 0)
    try:
        store = meet(Attendant(rank=rank, size=size, host=host, gpu=gpu), place=place, timeout_seconds=3)
    except LaunchError as error:
        return str(error)
    store.set(f"bye/{rank}", "")
    if rank == 0:
        store.wait(["bye/1"])  # whoever keeps the store leaves last
    return ""


def test_processes_that_disagree_about_their_number_are_told() -> None:
    port = free_port()
    with ThreadPoolExecutor() as threads:
        first, second = threads.submit(come, 0, port=port), threads.submit(come, 1, port=port, size=3)
        assert "disagree about their number: WORLD_SIZE is 2 or 3" in first.result()
        assert second.result()


@pytest.mark.parametrize(("other", "refused"), [({}, True), ({"host": "node2"}, False), ({"gpu": "b"}, False)], ids=str)
def test_two_processes_of_a_machine_that_see_the_same_gpu_are_refused(other: dict[str, str], refused: bool) -> None:
    port = free_port()
    with ThreadPoolExecutor() as threads:
        first = threads.submit(come, 0, port=port, gpu="a")
        second = threads.submit(come, 1, port=port, **({"gpu": "a"} | other))
        for said in (first.result(), second.result()):
            assert ("ranks 0-1 (node1) share one GPU" in said) == refused
