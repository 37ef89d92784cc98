"""What a step costs the machine, as the main process tells it."""

import mmap
import os

import pytest
import torch

from dinov2.bench.workload import workload_of
from dinov2.config.load import load_config
from dinov2.distributed import open_world
from dinov2.forecast.dimensions import dimensions_of
from dinov2.forecast.flops import step_flops, total
from dinov2.train.loggers.system import System, Workload

CPU = torch.device("cpu")


def test_the_share_of_the_matrix_rate_is_work_over_time_over_rate():
    system = System(CPU, workload=Workload(flops=3e9, rate=10e9))
    assert system.figures(seconds=0.5)["matrix_share"] == pytest.approx(3e9 / 0.5 / 10e9)


def test_what_is_not_known_is_absent():
    assert set(System(CPU, workload=None).figures(seconds=1.0)) == {"memory_gib", "cpu_share"}


def test_memory_grows_with_what_is_held_and_a_busy_thread_is_a_share_of_the_cores():
    system = System(CPU, workload=None)
    before = system.figures(seconds=1.0)["memory_gib"]
    # 256 MiB from the system itself: the allocator of this process may have memory left that is resident already.
    held = mmap.mmap(-1, 2**28, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for page in range(0, 2**28, mmap.PAGESIZE):
        held[page] = 1
    square = torch.ones(300, 300)
    for _ in range(200):
        square @ square
    figures = system.figures(seconds=1.0)
    assert figures["memory_gib"] - before == pytest.approx(0.25, abs=0.1)
    assert 0 < figures["cpu_share"] <= 1 + 1 / len(os.sched_getaffinity(0))
    held.close()


def test_the_work_of_a_step_counts_every_micro_batch_and_nothing_that_is_computed_twice():
    words = ("student.arch=vit_small", "runtime.activation_checkpointing=full")
    with open_world({}, device="cpu") as world:
        once = load_config(None, overrides=words).config
        four = load_config(None, overrides=[*words, "runtime.gradient_accumulation_steps=4"]).config
        work, more = workload_of(once, world=world), workload_of(four, world=world)
    assert work is not None
    assert more is not None
    table = step_flops(dimensions_of(once, pictures=once.train.batch_size_per_gpu, processes=1, on_gpu=False))
    assert work.flops == pytest.approx(total(table) - total(table, passes=["computed again"]))
    assert more.flops == pytest.approx(4 * work.flops)
    assert work.rate > 1e8
