"""Exchanges by formula, against what real processes exchange."""

from collections import Counter
from dataclasses import replace

import pytest

from dinov2.forecast.communication import (
    ALL,
    GATHER,
    REDUCE,
    SCATTER,
    SHARDS,
    Exchange,
    sent_by_kind,
    step_exchanges,
)
from dinov2.forecast.dimensions import dimensions_of
from dinov2.forecast.memory import with_strategy
from dinov2.forecast.parameters import units_of
from dinov2.forecast.sharding import Processes
from tests.distributed.processes import on_ranks
from tests.forecast.exchanged import exchanged_on_rank
from tests.forecast.steps import SMALL, num_masked, small_config
from tests.forecast.test_memory import layout

SMALL_TALK = 1024  # bytes: flags and norms, whose number is the affair of the step


def expected(words: list[str], *, processes: Processes) -> Counter[tuple[str, int]]:
    config = small_config(*words)
    dims = dimensions_of(config, pictures=4, processes=processes.size, on_gpu=False, masked=num_masked(config))
    exchanges = step_exchanges(dims, units_of(dims), processes=processes)
    return Counter((e.operation, e.bytes) for e in exchanges if e.bytes > SMALL_TALK)


def seen(operations: list[tuple[str, int]]) -> Counter[tuple[str, int]]:
    return Counter(one for one in operations if one[1] > SMALL_TALK)


def test_two_processes_exchange_what_the_formulas_say() -> None:
    half = "compute_precision.student.backbone.mixed_precision.reduce_dtype=fp16"
    kinds = (
        ("FULL_SHARD", "runtime.precision=bf16", "train.centering=sinkhorn_knopp"),
        ("SHARD_GRAD_OP", "runtime.precision=fp32", "dino.koleo_over_all_processes=true", "ibot.loss_weight=0"),
        ("NO_SHARD", "runtime.precision=bf16", "ibot.separate_head=true", "student.num_register_tokens=4"),
    )
    runs = [
        [*SMALL, "student.depth=1", "train.batch_size_per_gpu=4", half, *layout(strategy), *rest]
        for strategy, *rest in kinds
    ]
    processes = Processes(size=2, group_size=2, accumulation_steps=1)
    for words, *of_ranks in zip(runs, *on_ranks(exchanged_on_rank, runs, size=2), strict=True):
        assert {tuple(sorted(seen(one).items())) for one in of_ranks} == {
            tuple(sorted(expected(words, processes=processes).items()))
        }, words


def test_copies_of_shards_exchange_what_the_formulas_say() -> None:
    words = [*SMALL, "student.depth=1", "train.batch_size_per_gpu=4", "runtime.precision=bf16"]
    words += [*layout("HYBRID_SHARD"), "runtime.shard_group_size=2"]
    (found,), *_ = on_ranks(exchanged_on_rank, [words], size=4)
    assert seen(found) == expected(words, processes=Processes(size=4, group_size=2, accumulation_steps=1))


def test_a_ring_sends_all_but_its_own_part() -> None:
    def sent(operation: str, *, size: int) -> float:
        one = Exchange(operation=operation, kind="weights", phase="teacher", unit=0, bytes=800, group=ALL, size=size)
        return one.sent

    assert [sent(GATHER, size=size) for size in (1, 2, 4, 8)] == [0, 400, 600, 700]
    assert sent(SCATTER, size=4) == sent(GATHER, size=4) == sent(REDUCE, size=4) / 2


def test_accumulation_gathers_anew_but_a_teacher_that_keeps_its_weights_does_once() -> None:
    config = small_config("runtime.precision=bf16")
    dims = dimensions_of(config, pictures=4, processes=8)
    counts = {}
    for strategy in ("FULL_SHARD", "SHARD_GRAD_OP"):
        one = replace(dims, formats=with_strategy(dims.formats, strategy))
        for passes in (1, 3):
            processes = Processes(size=8, group_size=8, accumulation_steps=passes)
            exchanges = step_exchanges(one, units_of(one), processes=processes)
            counts[strategy, passes] = sum(e.operation == GATHER and e.group == SHARDS for e in exchanges)
    units = len(units_of(dims)) // 2
    assert counts == {
        ("FULL_SHARD", 1): 3 * units,
        ("FULL_SHARD", 3): 9 * units,
        ("SHARD_GRAD_OP", 1): 2 * units,
        ("SHARD_GRAD_OP", 3): 4 * units,
    }


@pytest.mark.parametrize("strategy", ["FULL_SHARD", "SHARD_GRAD_OP", "HYBRID_SHARD", "NO_SHARD"])
def test_one_process_sends_nothing_and_more_send_more(strategy: str) -> None:
    config = small_config("runtime.precision=bf16")
    sent = []
    for size in (1, 2, 4):
        dims = dimensions_of(config, pictures=4, processes=size)
        dims = replace(dims, formats=with_strategy(dims.formats, strategy))
        processes = Processes(size=size, group_size=size, accumulation_steps=1)
        sent.append(sum(sent_by_kind(step_exchanges(dims, units_of(dims), processes=processes)).values()))
    assert sent[0] == 0 < sent[1] < sent[2]
