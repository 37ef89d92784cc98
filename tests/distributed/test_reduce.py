import torch
from torch import nn

from dinov2.distributed import World, agree, average_gradients, broadcast_module, max_over_ranks, sum_over_ranks

from .processes import on_ranks

ALONE = World(rank=0, size=1, local_rank=0, device=torch.device("cpu"))


def exchange(world: World) -> dict[str, object]:
    mine = torch.tensor([1.0 + world.rank, -2.0])
    total, largest = sum_over_ranks(mine, world=world), max_over_ranks(mine, world=world)
    torch.manual_seed(world.rank)
    module = nn.Linear(3, 2)
    broadcast_module(module, world=world)
    used, unused, one_sided = (nn.Parameter(torch.zeros(2)) for _ in range(3))
    used.grad = torch.full((2,), float(world.rank))
    if world.rank == 0:
        one_sided.grad = torch.ones(2)
    average_gradients([used, unused, one_sided], world=world)
    return {
        "mine": mine.tolist(),
        "sum": total.tolist(),
        "max": largest.tolist(),
        "weight": module.weight.tolist(),
        "used": used.grad.tolist(),
        "unused": unused.grad,
        "one_sided": one_sided.grad.tolist(),
        "agreed": [agree(world.rank == 1, world=world), agree(False, world=world)],
    }


def test_two_processes_sum_average_broadcast_and_agree() -> None:
    first, second = on_ranks(exchange)
    assert first["sum"] == second["sum"] == [3.0, -4.0]
    assert first["max"] == second["max"] == [2.0, -2.0]
    assert first["mine"] == [1.0, -2.0], "a reduction must not change its input"
    assert first["weight"] == second["weight"]
    assert first["used"] == second["used"] == [0.5, 0.5]
    assert first["unused"] is second["unused"] is None
    assert first["one_sided"] == second["one_sided"] == [0.5, 0.5]
    assert first["agreed"] == second["agreed"] == [True, False]


def test_one_process_exchanges_nothing() -> None:
    tensor = torch.ones(2)
    assert sum_over_ranks(tensor, world=ALONE) is tensor
    assert agree(True, world=ALONE)
