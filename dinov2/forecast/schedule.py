"""How long a step takes: what computes when, and which exchange is hidden behind it. A simulation of events.

In: `Dimensions`, a `Machine`, processes. Out: a `Timeline` of one step. Computing is one queue; each group of processes
that exchanges is a line of its own, on which exchanges follow each other in the order in which they are asked for.

The order is that of FSDP2 as `dinov2.distributed.shard` sets it up: a network's first weights are waited for; while
one block computes, the next one's weights arrive; gradients leave while the block before computes its own; the update
waits for all of them. Not simulated: the data, the host that launches kernels, processes that wait for a slower one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from dinov2.forecast.communication import (
    BACKWARD,
    FORWARD,
    GATHER,
    LOCAL,
    Exchange,
    pass_exchanges,
    update_exchanges,
)
from dinov2.forecast.dimensions import Dimensions
from dinov2.forecast.flops import Flops, block_layers, step_flops
from dinov2.forecast.machines import Machine
from dinov2.forecast.parameters import num_parameters, units_of
from dinov2.forecast.rehearsal import Unit
from dinov2.forecast.sharding import Processes
from dinov2.forecast.traffic import UPDATE, Traffic, step_traffic

Gathers = dict[tuple[str, int | None], Exchange]
"""(phase, unit) -> the exchange that brings its weights"""
PHASES = (LOCAL, FORWARD, BACKWARD, UPDATE)
AGAIN = "computed again"


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """One step of one process, in seconds."""

    total: float
    products: float  # products of matrices and attention
    memory: float  # everything that reads and writes
    exchanged: float  # the line of the shards and the others were busy for so long
    by_phase: dict[str, float]  # computing, by phase

    @property
    def computing(self) -> float:
        """Without any exchange."""
        return self.products + self.memory

    @property
    def waiting(self) -> float:
        """For exchanges that nothing hides."""
        return max(0.0, self.total - self.computing)


@dataclass(frozen=True, kw_only=True)
class Work:
    """What one unit computes in one phase."""

    unit: int | None
    phase: str
    products: float  # seconds
    memory: float

    @property
    def seconds(self) -> float:
        """Of both; they are not overlapped."""
        return self.products + self.memory


def simulate_step(dims: Dimensions, *, machine: Machine, processes: Processes, compiled: bool) -> Timeline:
    """`accumulation_steps` passes and the update."""
    units = units_of(dims)
    table = step_traffic(dims, processes=processes, compiled=compiled)
    works = list(pass_works(dims, units, machine=machine, traffic=table))
    clock = _Clock(machine=machine, processes=processes, formats=_sharing(dims, units, processes=processes))
    for number in range(processes.accumulation_steps):
        exchanges = tuple(pass_exchanges(dims, units, processes=processes, first=number == 0))
        _run_pass(clock, units, works, exchanges)
    clock.wait_for_all()
    for exchange in update_exchanges(dims, processes=processes):
        clock.wait_for(clock.exchange(exchange, ready=clock.now))
    update = sum(by_pass[UPDATE] for by_pass in table.values())
    ending = Work(unit=None, phase=UPDATE, products=0.0, memory=machine.memory_seconds(update))
    clock.compute(ending)
    done = [*works * processes.accumulation_steps, ending]
    return Timeline(
        total=clock.now,
        products=sum(work.products for work in done),
        memory=sum(work.memory for work in done),
        exchanged=clock.busy,
        by_phase={phase: sum(work.seconds for work in done if work.phase == phase) for phase in PHASES},
    )


def pass_works(dims: Dimensions, units: Sequence[Unit], *, machine: Machine, traffic: Traffic) -> Iterator[Work]:
    """What every unit computes in each phase of a pass; what is computed again is part of the backward phase."""
    flops = step_flops(dims)
    shares = {side: _shares_of_blocks(dims, side) for side in ("teacher", "student")}
    for phase, side in ((LOCAL, "teacher"), (FORWARD, "student"), (BACKWARD, "student")):
        if phase == LOCAL and not dims.teacher:
            continue
        mine = [unit for unit in units if unit.side == side]
        parameters = sum(num_parameters(unit) for unit in mine)
        for unit in mine:
            share = 0.0 if unit.block is None else shares[side][unit.block]
            yield Work(
                unit=unit.number,
                phase=phase,
                products=machine.compute_seconds(
                    _flops_of(dims, unit, flops, phase=phase, share=share),
                    dtype=dims.formats[side, unit.part].param_dtype,
                ),
                memory=machine.memory_seconds(
                    sum(
                        share * traffic["blocks"].get(name, 0.0)
                        + _share_of_logits(dims, unit) * traffic["logits"].get(name, 0.0)
                        + num_parameters(unit) / parameters * traffic["weights in use"].get(name, 0.0)
                        for name in _passes(phase)
                    )
                ),
            )


def _shares_of_blocks(dims: Dimensions, side: str) -> list[float]:
    """By what their matrices cost."""
    costs = [block_layers(dims, rows) for rows in dims.rows_of_blocks(side)]
    return [cost / sum(costs) if sum(costs) else 0.0 for cost in costs]


def _passes(phase: str) -> tuple[str, ...]:
    return (phase, AGAIN) if phase == BACKWARD else (phase,)


def _flops_of(dims: Dimensions, unit: Unit, flops: Flops, *, phase: str, share: float) -> float:
    names = _passes(phase)
    if unit.block is not None:
        return share * sum(flops[part][name] for part in ("linear layers", "attention") for name in names)
    if unit.part == "backbone":
        return sum(flops[part][name] for part in ("patch embedding", "KoLeo") for name in names)
    return _share_of_heads(dims, unit) * sum(flops[part][n] for part in ("head MLP", "prototypes") for n in names)


def _share_of_heads(dims: Dimensions, unit: Unit) -> float:
    rows = {head.name: head.student_rows for head in dims.heads}
    return rows[unit.part] / sum(rows.values())


def _share_of_logits(dims: Dimensions, unit: Unit) -> float:
    entries = {head.name: head.student_rows * head.prototypes for head in dims.heads}
    return entries.get(unit.part, 0) / sum(entries.values()) if entries else 0.0


def _sharing(dims: Dimensions, units: Sequence[Unit], *, processes: Processes) -> dict[int, int]:
    return {unit.number: processes.sharing(dims.formats[unit.side, unit.part].strategy) for unit in units}


@dataclass
class _Clock:
    """The queue of the computing and the lines of the exchanges."""

    machine: Machine
    processes: Processes
    formats: dict[int, int]  # unit -> processes that share a copy of it
    now: float = 0.0  # the computing has come so far
    started: float = 0.0  # the unit that computes, or computed last
    busy: float = 0.0
    lines: dict[str, float] = field(default_factory=dict)

    def compute(self, work: Work) -> None:
        self.started = self.now
        self.now += work.seconds

    def exchange(self, exchange: Exchange, *, ready: float) -> float:
        """When it is done, at the earliest begun when it is `ready`."""
        sharing = self.processes.size if exchange.unit is None else self.formats[exchange.unit]
        seconds = self.machine.exchange_seconds(exchange, sharing=sharing)
        end = max(ready, self.lines.get(exchange.group, 0.0)) + seconds
        self.lines[exchange.group] = end
        self.busy += seconds
        return end

    def wait_for(self, moment: float) -> None:
        self.now = max(self.now, moment)

    def wait_for_all(self) -> None:
        self.now = max(self.now, *self.lines.values()) if self.lines else self.now


def _run_pass(clock: _Clock, units: Sequence[Unit], works: Sequence[Work], exchanges: Sequence[Exchange]) -> None:
    by_key = {(work.phase, work.unit): work for work in works}
    gathers: Gathers = {(e.phase, e.unit): e for e in exchanges if e.operation == GATHER and e.unit is not None}
    for phase, side in ((LOCAL, "teacher"), (FORWARD, "student")):
        mine = [unit for unit in units if unit.side == side and (phase, unit.number) in by_key]
        _forward(clock, mine, by_key, gathers, phase=phase)
        for exchange in exchanges:
            if exchange.phase == phase and exchange.unit is None:
                clock.wait_for(clock.exchange(exchange, ready=clock.now))
    for exchange in exchanges:
        if exchange.phase == BACKWARD and exchange.unit is None:
            clock.wait_for(clock.exchange(exchange, ready=clock.now))
    students = [unit for unit in units if unit.side == "student"]
    _backward(clock, students, by_key, gathers, scatters=[e for e in exchanges if e.kind == "gradients"])


def _forward(
    clock: _Clock,
    units: Sequence[Unit],
    works: dict[tuple[str, int | None], Work],
    gathers: Gathers,
    *,
    phase: str,
) -> None:
    """A part's own weights are waited for; each block's arrive while the unit before it computes."""
    for unit in units:
        gather = gathers.get((phase, unit.number))
        if gather is not None:
            clock.wait_for(clock.exchange(gather, ready=clock.now if unit.block is None else clock.started))
        clock.compute(works[phase, unit.number])


def _backward(
    clock: _Clock,
    units: Sequence[Unit],
    works: dict[tuple[str, int | None], Work],
    gathers: Gathers,
    *,
    scatters: Sequence[Exchange],
) -> None:
    """Heads, then blocks from the last to the first, then what is around them. Only the update waits for gradients."""
    around = [unit for unit in units if unit.part == "backbone" and unit.block is None]
    blocks = [unit for unit in units if unit.block is not None]
    heads = [unit for unit in units if unit.part != "backbone"]
    # What is around the blocks is gathered with the last of them: the final norm comes first, the patch map last.
    arrived: dict[int, float] = {}
    for unit in reversed(heads):
        _gather(clock, unit, gathers, arrived, ready=clock.now)
        _one_backward(clock, unit, works, arrived, scatters)
    order = [*around, *reversed(blocks)]
    for unit in order[:2]:
        _gather(clock, unit, gathers, arrived, ready=clock.now)
    computed = [*reversed(blocks), *around]
    for unit, following in zip(computed, [*computed[1:], None], strict=True):
        clock.wait_for(arrived.get(unit.number, 0.0))
        if following is not None and following.block is not None:
            _gather(clock, following, gathers, arrived, ready=clock.now)
        _one_backward(clock, unit, works, arrived, scatters)


def _gather(
    clock: _Clock,
    unit: Unit,
    gathers: Gathers,
    arrived: dict[int, float],
    *,
    ready: float,
) -> None:
    gather = gathers.get((BACKWARD, unit.number))
    if gather is not None and unit.number not in arrived:
        arrived[unit.number] = clock.exchange(gather, ready=ready)


def _one_backward(
    clock: _Clock,
    unit: Unit,
    works: dict[tuple[str, int | None], Work],
    arrived: dict[int, float],
    scatters: Sequence[Exchange],
) -> None:
    clock.wait_for(arrived.get(unit.number, 0.0))
    clock.compute(works[BACKWARD, unit.number])
    ready = clock.now
    for exchange in scatters:
        if exchange.unit == unit.number:  # among the shards first, then their sum over copies
            ready = clock.exchange(exchange, ready=ready)
