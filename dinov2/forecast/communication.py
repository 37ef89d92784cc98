"""What one process exchanges with the others in a step, by closed formulas.

In: `Dimensions`, the units of parameters, their layouts, the processes. Out: every `Exchange` of a step in its order,
and the bytes that each puts on this process's line.

Legend: S processes in a group, W bytes of the whole tensor. A ring sends (S-1)/S W for an all-gather or a
reduce-scatter and twice that for an all-reduce (Patarasuk and Yuan 2009, doi 10.1016/j.jpdc.2008.09.002).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from dinov2.distributed.shard import REGATHERS
from dinov2.forecast.dimensions import Dimensions
from dinov2.forecast.rehearsal import Unit
from dinov2.forecast.sharding import MASTER_BYTES, Processes, slice_numel
from dinov2.ssl.precision import SIDES

GATHER, SCATTER, REDUCE = "all-gather", "reduce-scatter", "all-reduce"
SHARDS, COPIES, ALL = "shards", "copies", "all"
KINDS = ("weights", "gradients", "assignments", "KoLeo", "checks")
SINKHORN_REDUCTIONS = 4  # a maximum and three sums over prototypes
FLAG_BYTES = 4  # whether a loss is finite, before an update
LOCAL, FORWARD, BACKWARD, UPDATE = "teacher", "student forward", "student backward", "update"


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """One collective operation."""

    operation: str  # GATHER, SCATTER or REDUCE
    kind: str  # one of KINDS
    phase: str  # "teacher", "student forward", "student backward" or "update"
    unit: int | None  # whose weights or gradients
    bytes: int  # W, of the whole tensor
    group: str  # SHARDS: those that share a copy; COPIES: those that hold the same slice; ALL
    size: int  # S

    @property
    def sent(self) -> float:
        """Bytes that a process sends around a ring, and receives."""
        rounds = 2 if self.operation == REDUCE else 1
        return rounds * (self.size - 1) / self.size * self.bytes


def step_exchanges(dims: Dimensions, units: Sequence[Unit], *, processes: Processes) -> tuple[Exchange, ...]:
    """All of a step: its passes, then the update."""
    passes = [
        exchange
        for number in range(processes.accumulation_steps)
        for exchange in pass_exchanges(dims, units, processes=processes, first=number == 0)
    ]
    return (*passes, *update_exchanges(dims, processes=processes))


def pass_exchanges(
    dims: Dimensions, units: Sequence[Unit], *, processes: Processes, first: bool = True
) -> Iterator[Exchange]:
    """Of one forward and backward pass, the `first` of a step or a later one, in the order in which they are asked for.

    Weights are gathered in the format in which they are used before a unit's forward pass, and again before its
    backward pass where they were let go of (FULL_SHARD, HYBRID_SHARD); a teacher that keeps them gathers once a step.
    Gradients are scattered in `reduce_dtype` after a unit's backward pass, and their slices summed over copies.
    """
    if processes.size == 1:
        return
    teacher, student = (tuple(unit for unit in units if unit.side == side) for side in reversed(SIDES))
    if dims.teacher:
        for unit in teacher:
            if first or _regathers(dims, unit):
                yield from _gathered(dims, unit, processes=processes, phase=LOCAL)
        yield from _assignments(dims, processes=processes)
    for unit in student:
        yield from _gathered(dims, unit, processes=processes, phase=FORWARD)
    yield from _koleo(dims, processes=processes, phase=FORWARD)
    yield from _koleo(dims, processes=processes, phase=BACKWARD)
    for unit in reversed(student):
        if _regathers(dims, unit):
            yield from _gathered(dims, unit, processes=processes, phase=BACKWARD)
        yield from _scattered(dims, unit, processes=processes)


def update_exchanges(dims: Dimensions, *, processes: Processes) -> Iterator[Exchange]:
    """Whether every loss is finite, one number, and the norm of each part's gradients over the processes it lies on."""
    if processes.size == 1:
        return
    yield _whole(REDUCE, "checks", phase=UPDATE, size=FLAG_BYTES, processes=processes)
    for part in ("backbone", *(head.name for head in dims.heads)):
        sharing = processes.sharing(dims.formats["student", part].strategy)
        if sharing > 1:
            yield Exchange(
                operation=REDUCE,
                kind="checks",
                phase=UPDATE,
                unit=None,
                bytes=MASTER_BYTES,
                group=SHARDS,
                size=sharing,
            )


def sent_by_kind(exchanges: Sequence[Exchange]) -> dict[str, float]:
    """Bytes on one process's line, by what they are."""
    return {kind: sum(exchange.sent for exchange in exchanges if exchange.kind == kind) for kind in KINDS}


def _regathers(dims: Dimensions, unit: Unit) -> bool:
    return dims.formats[unit.side, unit.part].strategy in REGATHERS


def _gathered(dims: Dimensions, unit: Unit, *, processes: Processes, phase: str) -> Iterator[Exchange]:
    form = dims.formats[unit.side, unit.part]
    sharing = processes.sharing(form.strategy)
    if sharing > 1:
        size = sharing * slice_numel(unit, sharing=sharing) * form.param_dtype.itemsize
        yield Exchange(
            operation=GATHER, kind="weights", phase=phase, unit=unit.number, bytes=size, group=SHARDS, size=sharing
        )


def _scattered(dims: Dimensions, unit: Unit, *, processes: Processes) -> Iterator[Exchange]:
    form = dims.formats[unit.side, unit.part]
    sharing = processes.sharing(form.strategy)
    learns = unit if dims.masks or unit.part != "backbone" else _without_mask_token(dims, unit)
    part = slice_numel(learns, sharing=sharing) * form.reduce_dtype.itemsize
    for operation, group, size, number in (
        (SCATTER, SHARDS, sharing * part, sharing),
        (REDUCE, COPIES, part, processes.size // sharing),
    ):
        if number > 1:
            yield Exchange(
                operation=operation,
                kind="gradients",
                phase=BACKWARD,
                unit=unit.number,
                bytes=size,
                group=group,
                size=number,
            )


def _without_mask_token(dims: Dimensions, unit: Unit) -> Unit:
    """Where nothing is masked it has no gradient, and what has none is not sent."""
    return replace(unit, shapes=tuple(shape for shape in unit.shapes if shape != (1, dims.width)))


def _assignments(dims: Dimensions, *, processes: Processes) -> Iterator[Exchange]:
    """For CLS tokens and for masked patches: Sinkhorn's vectors [K] in float32, or one sum [K + 1] for the centre."""
    for head in dims.heads:
        kinds = int(head.teacher_cls > 0) + int(head.patches > 0)
        number = SINKHORN_REDUCTIONS if dims.sinkhorn else 1
        entries = head.prototypes + (0 if dims.sinkhorn else 1)
        for _ in range(kinds * number):
            yield _whole(REDUCE, "assignments", phase=LOCAL, size=MASTER_BYTES * entries, processes=processes)


def _koleo(dims: Dimensions, *, processes: Processes, phase: str) -> Iterator[Exchange]:
    """The CLS tokens of each global crop, where neighbours are sought among all processes; backward their gradients."""
    rows, everyone = dims.koleo_rows
    if everyone > rows:
        operation = GATHER if phase == FORWARD else REDUCE
        size = MASTER_BYTES * everyone * dims.width
        for _ in range(2):
            yield _whole(operation, "KoLeo", phase=phase, size=size, processes=processes)


def _whole(operation: str, kind: str, *, phase: str, size: int, processes: Processes) -> Exchange:
    return Exchange(operation=operation, kind=kind, phase=phase, unit=None, bytes=size, group=ALL, size=processes.size)
