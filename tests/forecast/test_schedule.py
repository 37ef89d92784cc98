"""Steps by simulation: what must hold whatever the machine, the curves, and the comparison with a measurement."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from dinov2.errors import ConfigError
from dinov2.forecast.communication import COPIES, GATHER, REDUCE, SHARDS, Exchange
from dinov2.forecast.cost import with_measured_share
from dinov2.forecast.cost_page import bar, sparkline
from dinov2.forecast.dimensions import Dimensions, dimensions_of
from dinov2.forecast.machines import HOP_SECONDS, MACHINES, START_SECONDS, Known, find_machine
from dinov2.forecast.measured import compare
from dinov2.forecast.memory import with_strategy
from dinov2.forecast.scaling import Fleet, curves, share_of_batch
from dinov2.forecast.schedule import Timeline, simulate_step
from dinov2.forecast.sharding import Processes
from tests.forecast.steps import small_config

STRATEGIES = ("FULL_SHARD", "SHARD_GRAD_OP", "HYBRID_SHARD", "NO_SHARD")


def dims(processes: int, *, strategy: str = "FULL_SHARD", pictures: int = 16) -> Dimensions:
    config = small_config("runtime.precision=bf16", "student.depth=6", "student.embed_dim=384", "student.num_heads=6")
    found = dimensions_of(config, pictures=pictures, processes=processes)
    return replace(found, formats=with_strategy(found.formats, strategy))


def step(size: int, *, strategy: str = "FULL_SHARD", known: Known | None = None, passes: int = 1) -> Timeline:
    machine = find_machine("A100", known=known)
    processes = Processes(size=size, group_size=min(size, 8), accumulation_steps=passes)
    return simulate_step(dims(size, strategy=strategy), machine=machine, processes=processes, compiled=True)


def test_one_process_never_waits() -> None:
    line = step(1)
    assert line.exchanged == 0
    assert line.total == pytest.approx(line.computing) == pytest.approx(sum(line.by_phase.values()))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_step_lasts_as_long_as_its_computing_and_not_longer_than_everything_in_turn(strategy: str) -> None:
    for size in (2, 8, 16, 128):
        line = step(size, strategy=strategy)
        assert line.computing < line.total <= line.computing + line.exchanged + 1e-9
        assert sum(line.by_phase.values()) == pytest.approx(line.computing)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_slower_lines_never_make_a_step_faster(strategy: str) -> None:
    times = [
        step(32, strategy=strategy, known=Known(link_gbits=gbits, links_per_node=1)).total for gbits in (400, 50, 5)
    ]
    assert times == sorted(times)
    assert times[2] > 2 * times[0]  # 5 Gb/s for a whole node cannot be hidden


def test_most_of_the_exchange_hides_behind_the_computing_where_that_is_long() -> None:
    slow = step(8, known=Known(efficiency=0.01))
    assert slow.waiting < 0.5 * slow.exchanged
    nothing_to_hide_behind = step(8, known=Known(peak_tflops=1e9, memory_gbytes=1e9))
    assert nothing_to_hide_behind.waiting == pytest.approx(nothing_to_hide_behind.exchanged, rel=0.01)


def test_twice_the_passes_take_twice_the_products_and_one_update() -> None:
    once, twice = step(8), step(8, passes=2)
    assert twice.products == pytest.approx(2 * once.products)
    assert twice.by_phase["update"] == once.by_phase["update"]


def test_copies_of_a_node_each_have_their_share_of_its_lines() -> None:
    machine = MACHINES["A100"]
    among_all = Exchange(operation=GATHER, kind="weights", phase="", unit=0, bytes=10**9, group=SHARDS, size=64)
    among_copies = Exchange(operation=REDUCE, kind="gradients", phase="", unit=0, bytes=10**9, group=COPIES, size=8)
    within = replace(among_all, size=8)
    assert machine.exchange_seconds(within, sharing=8) == pytest.approx(
        START_SECONDS + 7 * HOP_SECONDS + 7 / 8 * 1e9 / (300e9 * 0.8)
    )
    assert machine.bandwidth(within=8, nodes=8) == pytest.approx(8 * 25e9 * 0.8)
    slow = machine.exchange_seconds(among_copies, sharing=8)
    assert slow == pytest.approx(2 * 7 / 8 * 1e9 / (25e9 * 0.8), rel=0.01)
    assert machine.exchange_seconds(among_copies, sharing=1) < slow / 3  # all eight lie in one node


def test_unknown_machines_and_shares_are_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean H100"):
        find_machine("h1000")
    for share in (1.5, 0.0, -1.0):
        with pytest.raises(ConfigError, match="above 0 and at most 1"):
            find_machine("A100", known=Known(efficiency=share))
    assert find_machine("h200").memory_bandwidth == 4.8e12


def test_curves_lose_efficiency_with_slow_lines_and_say_where() -> None:
    config = small_config("runtime.precision=bf16", "student.depth=6", "student.embed_dim=384", "student.num_heads=6")
    fleet = Fleet(config, find_machine("H100", known=Known(link_gbits=10, links_per_node=1)), compiled=True, batch=16)
    found = {(curve.kind, curve.strategy): curve for curve in curves(fleet, global_batch=256)}
    weak = found["weak", "FULL_SHARD"]
    assert [point.gpus for point in weak.points][:8] == [1, 2, 4, 8, 16, 32, 64, 128]
    assert weak.inefficient_from is not None
    below = [point.gpus for point in weak.points if point.gpus > 1 and point.efficiency < 0.9]
    assert weak.inefficient_from == below[0]
    strong = found["strong", "FULL_SHARD"]
    assert max(point.gpus for point in strong.points) == 256
    assert all(p.batch * p.accumulation_steps * p.gpus == 256 for p in strong.points)
    assert weak.points[4].efficiency > strong.points[-1].efficiency


@pytest.mark.parametrize(
    ("whole", "gpus", "expected"), [(256, 4, (16, 4)), (60, 4, (15, 1)), (34, 2, (1, 17)), (10, 4, None), (2, 4, None)]
)
def test_a_fixed_batch_is_split_into_passes_that_fit(whole: int, gpus: int, expected: tuple[int, int] | None) -> None:
    assert share_of_batch(whole, gpus=gpus, at_most=16) == expected


def test_bars_and_sparklines_are_as_long_and_high_as_their_values() -> None:
    assert (bar(0.5, cells=8), bar(1.0, cells=2), bar(0.0), bar(1 / 16, cells=8)) == ("████", "██", "", "▌")
    assert sparkline([1.0, 0.75, 0.5, 0.1]) == "█▅▁▁"


def measurement(seconds: float, *, device: str = "cpu", name: str = "a processor") -> dict[str, Any]:
    settings = {"arch": "vit_small", "patch_size": 14, "drop_path": 0.0, "global_size": 224, "local_size": 98}
    row = {"form": "ours", "precision": "bf16", "attention": "sdpa", "compile": "never", "checkpointing": "none"}
    row |= {"seconds_per_step": seconds, "batch_size": 8, "matrix_rate": 1e12}
    return {
        "machine": {"device": name},
        "ceilings": {"copy_bytes_per_second": 5e10},
        "settings": settings | {"local_crops": 8, "prototypes": 8192, "device": device},
        "rows": [row, row | {"form": "plain"}, row | {"seconds_per_step": None}],
    }


def test_a_measurement_tells_the_share_that_explains_it(tmp_path: Path) -> None:
    file = tmp_path / "step.json"
    file.write_text(json.dumps(measurement(4.0)))
    (row,) = compare(file)
    assert row.reached is not None
    (again,) = compare(file, efficiency=row.reached)
    assert again.predicted == pytest.approx(4.0) == again.measured
    assert row.predicted != pytest.approx(4.0)
    file.write_text(json.dumps(measurement(0.001)))
    assert compare(file)[0].reached is None  # faster than its memory could be read


def test_the_share_of_a_measured_gpu_is_taken_over_and_that_of_a_cpu_is_not(tmp_path: Path) -> None:
    file = tmp_path / "step.json"
    machine = MACHINES["H200"]
    for device, name, taken in (("cuda", "NVIDIA H200", True), ("cuda", "NVIDIA A100", False), ("cpu", "H200", False)):
        file.write_text(json.dumps(measurement(4.0, device=device, name=name)))
        rows = compare(file)
        share = with_measured_share(machine, rows).efficiency
        reached = rows[0].reached
        assert reached is not None
        expected = reached * 1e12 / machine.peak[torch.bfloat16] if taken else machine.efficiency
        assert share == pytest.approx(expected)


def test_what_is_no_measurement_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "step.json"
    with pytest.raises(ConfigError, match="dinov2 bench step --json"):
        compare(file)
    for content in ("{", "[]", "{}", json.dumps(measurement(1.0) | {"settings": {}})):
        file.write_text(content)
        with pytest.raises(ConfigError, match="is not what dinov2 bench step --json writes"):
            compare(file)
    file.write_text(json.dumps(measurement(1.0) | {"rows": []}))
    with pytest.raises(ConfigError, match="none of its rows"):
        compare(file)
