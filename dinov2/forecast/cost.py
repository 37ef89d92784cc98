"""The cost of a configuration: FLOPs, bytes, activations, exchanges, seconds, and how they grow with the GPUs.

In: a configuration and how it is launched, machines, what the person knows. Out: a `CostReport` of plain numbers. No
pictures are needed. Everything is on paper and by simulation; only activations are counted as well.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from dinov2.config.schema import Config
from dinov2.distributed.shard import STRATEGIES
from dinov2.errors import ConfigError
from dinov2.forecast import traffic
from dinov2.forecast.activations import Activations, kept_activations
from dinov2.forecast.communication import sent_by_kind, step_exchanges
from dinov2.forecast.dimensions import Dimensions, is_compiled
from dinov2.forecast.flops import Flops, step_flops, total
from dinov2.forecast.launch import Launch
from dinov2.forecast.machines import LINK_SHARE, MEMORY_SHARE, Machine
from dinov2.forecast.measured import Comparison
from dinov2.forecast.memory import Forecaster, most_masked
from dinov2.forecast.parameters import units_of
from dinov2.forecast.plan import KNOWN_RATE
from dinov2.forecast.scaling import Curve, Fleet, curves
from dinov2.forecast.schedule import Timeline

MANY = 64  # GPUs, where nobody says how many: those of the published chest runs
KNOWN_GPUS, KNOWN_BATCH = 64, 40
KNOWN_MACHINE = "A100"
BISECTIONS = 40


@dataclass(frozen=True, kw_only=True)
class MachineCost:
    """One machine."""

    machine: str
    source: str
    assumptions: dict[str, float]
    timeline: Timeline  # one step of the configured strategy on `gpus`
    gpus: int
    rate: float  # pictures/s and GPU
    curves: tuple[Curve, ...]


@dataclass(frozen=True, kw_only=True)
class CostReport:
    """Everything, of one process unless it says otherwise."""

    pictures: int  # of one forward pass
    passes: int  # of a step
    gpus: int  # for which exchanges and steps are told
    global_batch: int  # of the strong curves
    formats: str
    checkpointing: str
    compiled: bool
    masked: float  # mean masked patches a picture
    parameters: int  # of the student
    flops: Flops  # of one forward and backward pass
    flops_per_picture: float
    flops_nominal: float  # of one picture if every token of every crop went through every branch
    bytes: traffic.Traffic
    activations: Activations  # by formula
    activations_counted: int | None  # by going through a step; None: not asked for
    sent: dict[str, dict[str, float]]  # strategy -> kind -> bytes that a process sends in a step
    machines: tuple[MachineCost, ...]
    known: float | None  # the share of the peak at which the public run's rate is predicted; None: another recipe
    measured: tuple[Comparison, ...]


def cost_of(
    config: Config,
    launch: Launch,
    *,
    machines: Sequence[Machine],
    global_batch: int | None = None,
    measured: tuple[Comparison, ...] = (),
    count: bool = True,
    say: Callable[[str], None],
) -> CostReport:
    """`say` hears before everything that takes seconds; `count` goes through a step for its activations as well.

    Raises ConfigError: an architecture that does not fit together, or a global batch without a picture.
    """
    gpus = launch.processes if launch.processes > 1 else MANY
    batch = launch.batch_size
    whole = global_batch or config.train.global_batch_size or gpus * batch * launch.accumulation_steps
    if whole < 1:
        raise ConfigError(f"--global-batch {whole}: give more than 0.")
    compiled = is_compiled(config.runtime, on_gpu=True)
    fleets = [Fleet(config, machine, compiled=compiled, batch=batch) for machine in machines]
    dims = fleets[0].dimensions(gpus, batch=batch)
    processes = fleets[0].processes(gpus, accumulation_steps=launch.accumulation_steps)
    counted = None
    if count:
        say("counting activations")
        counted = _counted(config, launch, gpus=gpus, say=say)
    found = []
    for fleet in fleets:
        say(f"simulating {fleet.machine.name}")
        line = fleet.timeline(gpus, accumulation_steps=launch.accumulation_steps)
        found.append(_machine_cost(fleet, line, gpus=gpus, launch=launch, global_batch=whole))
    flops = step_flops(dims)
    return CostReport(
        pictures=batch,
        passes=launch.accumulation_steps,
        gpus=gpus,
        global_batch=whole,
        formats=str(dims.compute_dtype).removeprefix("torch."),
        checkpointing=dims.checkpointing,
        compiled=compiled,
        masked=dims.masked / batch,
        parameters=traffic.student_slice(dims, processes=replace(processes, size=1, group_size=1)),
        flops=flops,
        flops_per_picture=total(flops) / batch,
        flops_nominal=total(step_flops(nominal(dims))) / batch,
        bytes=traffic.step_traffic(dims, processes=processes, compiled=compiled),
        activations=kept_activations(replace(dims, masked=_worst(config, launch, gpus=gpus))),
        activations_counted=counted,
        sent={
            strategy: sent_by_kind(step_exchanges(one, units_of(one), processes=processes))
            for strategy in STRATEGIES
            for one in (fleets[0].dimensions(gpus, batch=batch, strategy=strategy),)
        },
        machines=tuple(found),
        known=_known_efficiency(config, machines, dims=dims, compiled=compiled),
        measured=measured,
    )


def nominal(dims: Dimensions) -> Dimensions:
    """Every token of every crop through every branch, as cost is usually told."""
    kept = tuple(tuple(size.number for size in dims.student) for _ in dims.kept)
    return replace(dims, kept=kept, only_read=False)


def with_measured_share(machine: Machine, comparisons: Sequence[Comparison]) -> Machine:
    """The share of the peak that a measurement on a GPU of this name reached, in the machine's own terms."""
    for row in comparisons:
        if row.on_gpu and machine.name.lower() in row.device.lower().replace(" ", "") and row.reached is not None:
            dtype = next(iter(machine.peak))
            return replace(machine, efficiency=min(1.0, row.reached * row.matrix_rate / machine.peak[dtype]))
    return machine


def _machine_cost(fleet: Fleet, line: Timeline, *, gpus: int, launch: Launch, global_batch: int) -> MachineCost:
    machine = fleet.machine
    lines = machine.links_per_node or machine.per_node
    return MachineCost(
        machine=machine.name,
        source=machine.source,
        assumptions={
            "peak_flops": max(machine.peak.values()),
            "efficiency": machine.efficiency,
            "memory_bytes_per_second": machine.memory_bandwidth,
            "memory_share": MEMORY_SHARE,
            "nvlink_bytes_per_second": machine.nvlink,
            "node_link_bytes_per_second": lines * machine.link,
            "link_share": LINK_SHARE,
            "per_node": machine.per_node,
        },
        timeline=line,
        gpus=gpus,
        rate=launch.batch_size * launch.accumulation_steps / line.total,
        curves=curves(fleet, global_batch=global_batch),
    )


def _counted(config: Config, launch: Launch, *, gpus: int, say: Callable[[str], None]) -> int:
    forecaster = Forecaster(config, replace(launch, processes=gpus), on_gpu=True, say=say)
    return sum(forecaster.course(launch.batch_size).saved.values())


def _worst(config: Config, launch: Launch, *, gpus: int) -> float:
    return float(most_masked(config, replace(launch, processes=gpus), batch_size=launch.batch_size))


def _known_efficiency(config: Config, machines: Sequence[Machine], *, dims: Dimensions, compiled: bool) -> float | None:
    """The share of the peak at which 64 A100 make the rate of RAD-DINO's model card; None for another recipe."""
    machine = next((one for one in machines if one.name == KNOWN_MACHINE), None)
    tokens = [(size.number // dims.pictures, size.tokens) for size in dims.student]
    if machine is None or (dims.width, dims.depth) != (768, 12) or tokens != [(2, 1370), (8, 197)]:
        return None
    low, high = 0.0, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        fleet = Fleet(config, replace(machine, efficiency=middle), compiled=compiled, batch=KNOWN_BATCH)
        low, high = (middle, high) if KNOWN_BATCH / fleet.timeline(KNOWN_GPUS).total < KNOWN_RATE else (low, middle)
    return high
