import torch
from torch.nn.functional import normalize

from dinov2.distributed import (
    World,
    agree_on,
    from_main,
    gather_rows,
    gather_values,
    max_over_ranks,
    sum_over_ranks,
)
from dinov2.loss import koleo_loss
from dinov2.train.build import reductions_of

from .processes import on_ranks

ALONE = World(rank=0, size=1, local_rank=0, device=torch.device("cpu"))


def exchange(world: World) -> dict[str, object]:
    mine = torch.tensor([1.0 + world.rank, -2.0])
    total, largest = sum_over_ranks(mine, world=world), max_over_ranks(mine, world=world)
    return {
        "mine": mine.tolist(),
        "sum": total.tolist(),
        "max": largest.tolist(),
        "numbers": agree_on([world.rank, 5 - world.rank], world=world),
        "values": gather_values({"rank": world.rank}, world=world),
        "main": from_main(f"said by {world.rank}", world=world),
    }


def test_two_processes_sum_compare_collect_and_agree() -> None:
    first, second = on_ranks(exchange)
    assert first["sum"] == second["sum"] == [3.0, -4.0]
    assert first["max"] == second["max"] == [2.0, -2.0]
    assert first["mine"] == [1.0, -2.0], "a reduction must not change its input"
    assert first["numbers"] == second["numbers"] == [1, 5]
    assert first["values"] == second["values"] == [{"rank": 0}, {"rank": 1}]
    assert first["main"] == second["main"] == "said by 0"


def features(num: int) -> torch.Tensor:
    return torch.randn(num, 6, generator=torch.Generator().manual_seed(3))


def spread(world: World) -> dict[str, object]:
    mine = features(8).chunk(world.size)[world.rank].clone().requires_grad_()
    rows = gather_rows(mine, world=world)
    over_all = koleo_loss(mine, reductions=reductions_of(world))
    over_all.backward()
    alone = koleo_loss(mine.detach())
    return {
        "rows": rows.detach().tolist(),
        "over_all": float(over_all.detach()),
        "gradient": (mine.grad / world.size).tolist(),
        "alone": float(alone),
    }


def test_koleo_over_all_processes_is_koleo_of_the_whole_batch_and_its_gradient() -> None:
    whole = features(8).requires_grad_()
    loss = koleo_loss(whole)
    loss.backward()
    told = on_ranks(spread, size=4)
    assert all(one["rows"] == features(8).tolist() for one in told)
    torch.testing.assert_close(torch.tensor([one["over_all"] for one in told]).mean(), loss.detach())
    torch.testing.assert_close(torch.tensor([row for one in told for row in one["gradient"]]), whole.grad)


def test_koleo_of_each_process_looks_at_its_own_batch_alone() -> None:
    told = on_ranks(spread, size=2)
    for one, own in zip(told, features(8).chunk(2), strict=True):
        assert one["alone"] == float(koleo_loss(own))
        assert one["alone"] != one["over_all"]


def test_no_row_is_its_own_neighbour_among_those_of_all_processes() -> None:
    unit = normalize(features(8), dim=-1)
    reductions = reductions_of(ALONE)
    assert float(koleo_loss(unit, reductions=reductions)) == float(koleo_loss(unit))


def test_one_process_exchanges_nothing() -> None:
    tensor = torch.ones(2)
    assert sum_over_ranks(tensor, world=ALONE) is tensor
    assert gather_rows(tensor, world=ALONE) is tensor
    assert agree_on([3], world=ALONE) == [3]
