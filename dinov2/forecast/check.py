"""Everything that can be known of a run before it is started.

In: a loaded configuration, and how it will be started. Out: an `Outcome`: data, memory, plan, doubts, and what would
stop it. Nothing that fails hides the rest: every fault is found in one go.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from dinov2.config.load import LoadedConfig
from dinov2.errors import Dinov2Error
from dinov2.forecast.data import DataReport, look_at_data
from dinov2.forecast.doubts import Facts, doubts
from dinov2.forecast.launch import Launch, plan_launch
from dinov2.forecast.memory import GIB, Forecaster, MemoryReport, forecast_memory
from dinov2.forecast.plan import Plan, make_plan
from dinov2.forecast.stops import stops
from dinov2.forecast.weights import weight_faults

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the person said beside the configuration."""

    processes: int
    per_node: int | None
    gpu_memory_gib: float
    rate: float | None  # pictures per second and process
    num_rows: int  # pictures to decode
    output_dir: Path | None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What was found."""

    launch: Launch
    data: DataReport | None  # None: there are no pictures; `stops` says why
    memory: MemoryReport | None  # None: the networks cannot be built; `stops` says why
    plan: Plan
    notes: tuple[str, ...]  # what the training itself will say about the configuration
    doubts: tuple[str, ...]
    stops: tuple[str, ...]


def check_run(
    loaded: LoadedConfig, asked: Asked, *, decoded: Callable[[int, int], None], say: Callable[[str], None]
) -> Outcome:
    """`decoded` hears after every picture how many of how many, `say` before everything that takes seconds."""
    config = loaded.config
    launch, faults = plan_launch(config, processes=asked.processes, per_node=asked.per_node)
    found = list(faults)
    say("pictures")
    data = _or_fault(lambda: look_at_data(config, num_rows=asked.num_rows, progress=decoded), faults=found)
    forecaster = _or_fault(lambda: _forecaster(loaded, launch, say=say), faults=found)
    memory = None
    num_parameters = 0
    if forecaster is not None:
        capacity = asked.gpu_memory_gib if forecaster.on_gpu else machine_gib() / min(launch.processes, launch.per_node)
        memory = forecast_memory(forecaster, capacity_gib=capacity)
        num_parameters = memory.student_parameters
        say("headers of the weights to start from")
        found += weight_faults(config, forecaster.rehearsal)
    facts = Facts(
        config=config,
        given=loaded.given,
        launch=launch,
        plan=make_plan(
            config,
            launch,
            num_pictures=data.num_pictures if data else None,
            num_parameters=num_parameters,
            rate=asked.rate,
            output_dir=asked.output_dir,
        ),
        data=data,
        memory=memory,
        rate=asked.rate,
    )
    return Outcome(
        launch=launch,
        data=data,
        memory=memory,
        plan=facts.plan,
        notes=loaded.messages,
        doubts=doubts(facts),
        stops=(*found, *stops(facts, output_dir=asked.output_dir)),
    )


def machine_gib() -> float:
    """Memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB


def _forecaster(loaded: LoadedConfig, launch: Launch, *, say: Callable[[str], None]) -> Forecaster:
    return Forecaster(loaded.config, launch, on_gpu=loaded.config.runtime.device != "cpu", say=say)


def _or_fault(work: Callable[[], T], *, faults: list[str]) -> T | None:
    try:
        return work()
    except Dinov2Error as error:
        faults.append(str(error))
        return None
