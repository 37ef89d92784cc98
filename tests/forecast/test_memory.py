"""Memory as forecast, against what real steps hold."""

import pytest

from dinov2.forecast.launch import plan_launch
from dinov2.forecast.live import Label
from dinov2.forecast.memory import Forecaster, forecast_memory, largest_that_fits, most_masked, with_strategy
from dinov2.forecast.rehearsal import Rehearsal
from dinov2.forecast.sharding import PARTS, Processes, peak_of
from tests.distributed.processes import on_ranks
from tests.forecast.steps import (
    SMALL,
    counted_step,
    formats_of,
    held_on_rank,
    num_masked,
    resident_after_step,
    small_config,
)


def layout(strategy: str) -> list[str]:
    parts = [(side, part) for side in ("student", "teacher") for part in ("backbone", "dino_head", "ibot_head")]
    return [f"compute_precision.{side}.{part}.sharding_strategy={strategy}" for side, part in parts]


KINDS = (
    (),
    ("runtime.precision=bf16",),
    ("student.drop_path_rate=0", "runtime.attention=explicit", "train.centering=sinkhorn_knopp"),
    ("ibot.separate_head=true", "student.num_register_tokens=4", "student.ffn_layer=swiglu"),
    ("crops.local_crops_number=0", "dino.koleo_loss_weight=0"),
    ("ibot.loss_weight=0", "runtime.precision=bf16"),
    ("runtime.activation_checkpointing=none", "runtime.attention=sdpa", "runtime.precision=bf16"),
    ("runtime.activation_checkpointing=full", "runtime.precision=bf16"),
)


@pytest.mark.parametrize("words", KINDS)
def test_a_step_without_memory_holds_to_the_byte_what_a_real_one_holds(words: tuple[str, ...]) -> None:
    config = small_config("runtime.precision=fp32", "train.batch_size_per_gpu=3", *words)
    rehearsal = Rehearsal(config, formats=formats_of(config), num_processes=1, on_gpu=False)
    rehearsed = rehearsal.step(batch_size=3, num_masked=num_masked(config))
    real, kept = counted_step(config)
    assert sum(rehearsed.saved.values()) == kept
    assert rehearsed.bytes_alive.sum(axis=1).max() == real.timeline().sum(axis=1).max()


def test_rehearsing_again_gives_the_same() -> None:
    config = small_config("student.depth=1")
    rehearsal = Rehearsal(config, formats=formats_of(config), num_processes=1, on_gpu=False)
    first, _, again = (rehearsal.step(batch_size=size, num_masked=10 * size) for size in (2, 5, 2))
    assert (first.bytes_alive == again.bytes_alive).all()


def test_the_forecast_of_two_sharded_processes_is_what_they_hold() -> None:
    runs = [
        [*SMALL, "student.depth=2", f"runtime.precision={precision}", "train.batch_size_per_gpu=4", *layout(strategy)]
        for strategy, precision in (("SHARD_GRAD_OP", "fp32"), ("FULL_SHARD", "bf16"), ("NO_SHARD", "bf16"))
    ]
    held = on_ranks(held_on_rank, runs, size=2)
    for words, *bytes_of_ranks in zip(runs, *held, strict=True):
        config = small_config(*words)
        launch, _ = plan_launch(config, processes=2, per_node=None)
        forecaster = Forecaster(config, launch, on_gpu=False, say=lambda _: None)
        course = forecaster.rehearsal.step(batch_size=4, num_masked=num_masked(config))
        processes = Processes(size=2, group_size=2, accumulation_steps=1)
        peak = peak_of(course, forecaster.rehearsal.units, formats=forecaster.formats, processes=processes)
        # Beside it a real step holds centres, their copies and the batch in bytes; an exchange is counted as its bound.
        assert 0.98 < peak.total / max(bytes_of_ranks) < 1.12, words


def test_resident_memory_grows_with_the_batch_as_forecast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_MMAP_THRESHOLD_", "65536")  # glibc gives back what is freed, and holds no gaps
    grown = []
    for size in (8, 40):
        words = [*SMALL, "student.embed_dim=192", "runtime.precision=fp32", f"train.batch_size_per_gpu={size}"]
        config = small_config(*words)
        launch, _ = plan_launch(config, processes=1, per_node=None)
        forecast = Forecaster(config, launch, on_gpu=False, say=lambda _: None).peak(size).total
        grown.append((forecast, resident_after_step(words)))
    (small, small_resident), (large, large_resident) = grown
    assert 0.95 < (large - small) / (large_resident - small_resident) < 1.05


def test_parts_of_the_peak_sum_to_it_and_more_processes_need_less() -> None:
    config = small_config("runtime.precision=bf16", "train.batch_size_per_gpu=4")
    totals = []
    for size in (2, 4, 8):
        launch, _ = plan_launch(config, processes=size, per_node=None)
        peak = Forecaster(config, launch, on_gpu=True, say=lambda _: None).peak(4)
        assert tuple(peak.parts) == PARTS
        assert sum(peak.parts.values()) == peak.total
        totals.append(peak.parts["weights"] + peak.parts["optimizer"] + peak.parts["teacher"])
    assert totals == sorted(totals, reverse=True)


def test_strategies_order_by_what_stays_gathered() -> None:
    config = small_config("runtime.precision=bf16", "train.batch_size_per_gpu=2", "student.depth=4")
    launch, _ = plan_launch(config, processes=8, per_node=4)
    forecaster = Forecaster(config, launch, on_gpu=True, say=lambda _: None)
    totals = {name: forecaster.peak(2, strategy=name).total for name in ("FULL_SHARD", "SHARD_GRAD_OP", "NO_SHARD")}
    assert totals["FULL_SHARD"] < totals["SHARD_GRAD_OP"] < totals["NO_SHARD"]
    assert set(with_strategy(forecaster.formats, "NO_SHARD").values()) != set(forecaster.formats.values())


def test_no_kernel_keeps_the_matrix_of_attention_weights() -> None:
    saved = []
    for attention in ("sdpa", "explicit"):
        words = ("student.drop_path_rate=0", "crops.local_crops_number=0", f"runtime.attention={attention}")
        config = small_config("runtime.precision=bf16", *words)
        rehearsal = Rehearsal(config, formats=formats_of(config), num_processes=2, on_gpu=True)
        saved.append(rehearsal.step(batch_size=4, num_masked=80).saved[Label.BACKBONE])
    sums = 3 * 3 * (1 + 64) * 8 * 4  # of 3 blocks, 3 heads and 8 crops a float a row, which the fused kernel keeps
    last = 8 * (1 + 64) * 96 * 2  # results of the last block, of which the others keep the tokens that are read
    assert saved[0] - saved[1] == sums + last


def test_the_largest_batch_fits_and_one_more_picture_does_not() -> None:
    config = small_config("runtime.precision=fp32", "train.batch_size_per_gpu=6", "student.depth=1")
    launch, _ = plan_launch(config, processes=1, per_node=None)
    again = Forecaster(config, launch, on_gpu=True, say=lambda _: None)
    report = forecast_memory(again, capacity_gib=0.03)
    largest = report.rows[0].largest_batch
    assert largest is not None
    assert again.peak(largest).total <= report.limit < again.peak(largest + 1).total


@pytest.mark.parametrize(
    ("limit", "largest"), [(1000, 9), (105, 0), (10**9, 4096), (200_000, 1999), (199, 0), (200, 1)]
)
def test_search_for_the_largest_batch(limit: int, largest: int) -> None:
    assert largest_that_fits(lambda batch: 100 + 100 * batch, start=4, limit=limit) == largest


def test_masked_patches_are_those_of_the_runs_own_masks() -> None:
    config = small_config("ibot.mask_sample_probability=1", "ibot.mask_ratio_min_max=[0.5,0.5]")
    launch, _ = plan_launch(config, processes=1, per_node=None)
    assert most_masked(config, launch, batch_size=7) == 2 * 7 * 32
    without = small_config("ibot.loss_weight=0")
    assert most_masked(without, launch, batch_size=7) == 0
