import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from dinov2.distributed import World
from dinov2.loss import (
    ONE_PROCESS,
    DINOLoss,
    Reductions,
    centred_assignment,
    centred_softmax,
    iBOTPatchLoss,
    sinkhorn,
    sinkhorn_assignment,
    updated_center,
)
from dinov2.loss import assignment as room
from dinov2.train.build import reductions_of
from tests.distributed.processes import on_ranks


def long_form(logits: Tensor, *, temperature: float, iterations: int = 3) -> Tensor:
    """Sinkhorn-Knopp as published, in float64 and with every factor."""
    q = torch.exp(logits.double() / temperature).T  # [K, M]
    num_prototypes, num_samples = q.shape
    q = q / q.sum()
    for _ in range(iterations):
        q = q / q.sum(dim=1, keepdim=True) / num_prototypes
        q = q / q.sum(dim=0, keepdim=True) / num_samples
    return (q * num_samples).T.float()


class Ranks:
    """Threads that reduce among each other as processes would; each element of the work runs in one of them."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.barrier = threading.Barrier(size)
        self.slots: list[Tensor | None] = [None] * size

    def run(self, work: Callable[[int, Reductions], Tensor]) -> list[Tensor]:
        results: list[Tensor | None] = [None] * self.size

        def body(rank: int) -> None:
            results[rank] = work(rank, self.reductions(rank))

        threads = [threading.Thread(target=body, args=(rank,)) for rank in range(self.size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(result is not None for result in results), "a rank failed"
        return [result for result in results if result is not None]

    def reductions(self, rank: int) -> Reductions:
        def gather(tensor: Tensor) -> Tensor:
            self.slots[rank] = tensor.clone()
            self.barrier.wait(timeout=20)
            stacked = torch.stack([slot for slot in self.slots if slot is not None])
            self.barrier.wait(timeout=20)
            return stacked

        return Reductions(
            sum=lambda tensor: gather(tensor).sum(dim=0),
            max=lambda tensor: gather(tensor).amax(dim=0),
            gather=lambda tensor: tensor,
            rank=0,
        )


@pytest.mark.parametrize("iterations", [1, 2, 3, 5])
@pytest.mark.parametrize("samples", [1, 7, 40])
def test_sinkhorn_equals_the_published_long_form(samples: int, iterations: int) -> None:
    torch.manual_seed(samples)
    logits = torch.randn(samples, 24).clamp(-3, 3)
    ours = sinkhorn(logits, temperature=0.06, reductions=ONE_PROCESS, iterations=iterations)
    assert_close(ours, long_form(logits, temperature=0.06, iterations=iterations), atol=1e-6, rtol=1e-4)


@given(
    samples=st.integers(1, 20),
    prototypes=st.integers(2, 40),
    scale=st.sampled_from([0.0, 0.1, 1.0, 30.0, 1e4]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    seed=st.integers(0, 1000),
)
@settings(max_examples=60, deadline=None)
def test_every_sample_is_assigned_once_in_all_whatever_the_scale_of_the_logits(samples, prototypes, scale, dtype, seed):
    logits = (torch.randn(samples, prototypes, generator=torch.Generator().manual_seed(seed)) * scale).to(dtype)
    assigned = sinkhorn(logits, temperature=0.04, reductions=ONE_PROCESS)
    assert assigned.dtype == torch.float32
    assert_close(assigned.sum(dim=1), torch.ones(samples), atol=1e-5, rtol=0.0)
    assert (assigned >= 0).all()


def test_logits_that_overflow_the_published_form_are_assigned() -> None:
    torch.manual_seed(0)
    logits = torch.randn(10, 16) * 2
    assert not torch.isfinite(torch.exp((logits + 20).float() / 0.04)).all()
    plain, shifted = (sinkhorn(x, temperature=0.04, reductions=ONE_PROCESS) for x in (logits, logits + 20))
    assert_close(shifted, plain, atol=1e-4, rtol=0.0)  # a shift of all logits cancels


def test_sinkhorn_leaves_its_argument_as_it_was() -> None:
    logits = torch.randn(4, 6)
    before = logits.clone()
    sinkhorn(logits, temperature=0.05, reductions=ONE_PROCESS)
    assert torch.equal(logits, before)


@pytest.mark.parametrize("sizes", [(6, 6), (9, 3), (12, 0), (5, 0, 7)])
def test_samples_spread_over_ranks_are_assigned_as_on_one(sizes: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    logits = torch.randn(12, 20)
    parts = logits.split(sizes)
    together = sinkhorn(logits, temperature=0.05, reductions=ONE_PROCESS)
    apart = Ranks(len(sizes)).run(
        lambda rank, reductions: sinkhorn(parts[rank], temperature=0.05, reductions=reductions)
    )
    assert_close(torch.cat(apart), together, atol=1e-6, rtol=1e-5)


UNEVEN = ((7, 5), (12, 0))


def assigned_on_rank(world: World, sizes: tuple[int, int]) -> object:
    rows = numbered_logits().to(torch.bfloat16).split(sizes)[world.rank]
    reductions = reductions_of(world)
    return sinkhorn_assignment(rows, temperature=0.05, reductions=reductions, chunk_bytes=3 * 20 * 4).dense().numpy()


def all_assigned_on_rank(world: World) -> list[object]:
    return [assigned_on_rank(world, sizes) for sizes in UNEVEN]


def numbered_logits() -> Tensor:
    return torch.randn(12, 20, generator=torch.Generator().manual_seed(0))


def test_two_real_processes_assign_in_chunks_as_one_does_at_once() -> None:
    together = sinkhorn(numbered_logits().to(torch.bfloat16), temperature=0.05, reductions=ONE_PROCESS)
    for sizes, *parts in zip(UNEVEN, *on_ranks(all_assigned_on_rank), strict=True):
        assert tuple(len(part) for part in parts) == sizes
        assert_close(torch.cat([torch.from_numpy(part) for part in parts]), together, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("rows", [1, 5, 12, 40])
def test_chunks_of_any_size_give_the_same_assignment_and_the_same_means(rows: int) -> None:
    logits = numbered_logits()
    whole, chunked = (
        sinkhorn_assignment(logits, temperature=0.05, reductions=ONE_PROCESS, chunk_bytes=size * 20 * 4)
        for size in (12, rows)
    )
    dense = whole.dense()
    assert_close(chunked.dense(), dense, atol=1e-6, rtol=1e-5)
    assert_close(chunked.rows(slice(3, 7)), dense[3:7], atol=1e-6, rtol=1e-5)
    assert_close(chunked.mean(), dense.mean(dim=0))
    assert_close(chunked.mean_entropy(), torch.special.entr(dense).sum(dim=1).mean())


def test_an_assignment_holds_the_logits_as_they_came_and_one_number_per_prototype() -> None:
    logits = numbered_logits().half()
    assignment = sinkhorn_assignment(logits, temperature=0.05, reductions=ONE_PROCESS)
    assert assignment.logits.data_ptr() == logits.data_ptr()
    assert assignment.center.shape == (20,)


def test_a_prototype_whose_logits_are_lowest_by_far_is_served_all_the_same() -> None:
    """Its factor is taken out in logarithms: in the published form its exponentials are all zero."""
    logits = numbered_logits()
    logits[:, 3] -= 50.0
    usual = sinkhorn(numbered_logits(), temperature=0.05, reductions=ONE_PROCESS)
    assert_close(sinkhorn(logits, temperature=0.05, reductions=ONE_PROCESS), usual, atol=1e-4, rtol=0.0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_logit_that_is_not_finite_is_seen_in_every_assignment_of_its_row(value: float) -> None:
    logits = numbered_logits()
    logits[4, 2] = value
    center = torch.zeros(20)
    for assigned in (
        sinkhorn(logits, temperature=0.05, reductions=ONE_PROCESS),
        centred_softmax(logits, center=center, temperature=0.05),
    ):
        assert not assigned[4].isfinite().any()


def test_an_assignment_by_the_centre_keeps_the_centre_it_was_made_with() -> None:
    loss, logits = DINOLoss(20), numbered_logits()
    assignment = loss.centred(logits, 0.05)
    before = assignment.dense()
    loss.update_center(logits)
    assert torch.equal(assignment.dense(), before)
    assert not torch.equal(loss.centred(logits, 0.05).dense(), before)
    assert torch.equal(centred_assignment(logits, center=torch.zeros(1, 20), temperature=0.05).dense(), before)


def test_the_centre_moves_alike_in_chunks_of_any_size() -> None:
    logits, center = numbered_logits().to(torch.bfloat16), torch.randn(1, 1, 20)
    moved = [
        updated_center(center, logits, momentum=0.9, reductions=ONE_PROCESS, chunk_bytes=rows * 20 * 4)
        for rows in (12, 5)
    ]
    assert moved[0].shape == (1, 1, 20)
    assert_close(moved[0], center * 0.9 + logits.float().mean(dim=0) * 0.1)
    assert_close(moved[1], moved[0])


def test_without_any_sample_there_is_no_assignment_and_no_failure() -> None:
    assert sinkhorn(torch.zeros(0, 5), temperature=0.05, reductions=ONE_PROCESS).shape == (0, 5)


def test_no_iterations_are_refused() -> None:
    with pytest.raises(ValueError, match="0 iterations; at least 1"):
        sinkhorn(torch.zeros(2, 5), temperature=0.05, reductions=ONE_PROCESS, iterations=0)


def test_centring_takes_the_centre_off_before_the_softmax() -> None:
    torch.manual_seed(0)
    logits, center = torch.randn(4, 6), torch.randn(1, 6)
    assigned = centred_softmax(logits.half(), center=center, temperature=0.05)
    assert assigned.dtype == torch.float32
    assert_close(assigned, ((logits.half().float() - center) / 0.05).softmax(dim=-1))
    uniform = centred_softmax(center, center=center, temperature=0.05)
    assert_close(uniform, torch.full((1, 6), 1 / 6))


@pytest.mark.parametrize("sizes", [(6, 6), (10, 2), (12, 0)])
def test_the_centre_of_uneven_ranks_is_the_mean_over_all_samples(sizes: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    logits, center = torch.randn(12, 5), torch.randn(1, 5)
    parts = logits.split(sizes)
    moved = Ranks(len(sizes)).run(
        lambda rank, reductions: updated_center(center, parts[rank], momentum=0.9, reductions=reductions)
    )
    for each in moved:
        assert_close(each, center * 0.9 + logits.mean(dim=0, keepdim=True) * 0.1)


def test_without_any_sample_the_centre_stays() -> None:
    loss = iBOTPatchLoss(5)
    loss.center.fill_(0.3)
    loss.update_center(torch.zeros(1, 0, 5))
    assert torch.equal(loss.center, torch.full((1, 1, 5), 0.3))


ONE_OF_TWO_PROCESSES = """
import sys
import torch
import torch.distributed as dist
from dinov2.loss import DINOLoss

dist.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=int(sys.argv[1]), world_size=2)
try:
    DINOLoss(4).sinkhorn_knopp_teacher(torch.zeros(2, 4), 0.05)
except ValueError as error:
    print(error)
dist.barrier()
dist.destroy_process_group()
"""


def test_several_processes_without_reductions_are_refused(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(room.__file__).parents[2])}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", ONE_OF_TWO_PROCESSES, str(rank), str(tmp_path / "store")],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for process in processes:
        said, _ = process.communicate(timeout=120)
        assert "2 processes run, but this loss was built without reductions" in said


def test_given_reductions_are_the_ones_that_are_used() -> None:
    doubled = Reductions(sum=lambda tensor: tensor * 2, max=lambda tensor: tensor, gather=lambda tensor: tensor, rank=0)
    assert room.given_or_one_process(doubled) is doubled
    assert room.given_or_one_process(None) is ONE_PROCESS
    loss = DINOLoss(
        4,
        reductions=Reductions(
            sum=lambda t: t + torch.tensor([3.0, 3.0, 3.0, 3.0, 1.0]), max=lambda t: t, gather=lambda t: t, rank=0
        ),
    )
    loss.update_center(torch.ones(1, 4))  # one sample here, one of 3.0 elsewhere
    assert_close(loss.center, torch.full((1, 4), 0.1 * 2.0))


def test_the_centre_may_weigh_processes_alike_as_the_public_code_does() -> None:
    """A process with 1 sample and one with 3: the mean of means, not the mean of all; one without any has no say."""
    samples = [torch.tensor([[4.0]]), torch.tensor([[1.0], [2.0], [3.0]]), torch.zeros(0, 1)]

    def centre(rank: int, reductions: Reductions) -> Tensor:
        return updated_center(
            torch.zeros(1, 1), samples[rank], momentum=0.0, reductions=reductions, processes_alike=True
        )

    assert [float(value) for value in Ranks(3).run(centre)] == [3.0, 3.0, 3.0]
