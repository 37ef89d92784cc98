"""How a run grows with the number of GPUs, for every strategy, and where each stops growing.

In: a configuration, a `Machine`. Out: `Curve`s: pictures per second and efficiency at 1 to 128 GPUs, with the batch of
each GPU fixed (weak) or the batch of all together (strong). By simulation (`dinov2.forecast.schedule`), not run.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from dinov2.config.schema import Config
from dinov2.distributed.shard import STRATEGIES
from dinov2.forecast.dimensions import Dimensions, dimensions_of, mean_masked
from dinov2.forecast.machines import Machine
from dinov2.forecast.memory import with_strategy
from dinov2.forecast.schedule import Timeline, simulate_step
from dinov2.forecast.sharding import Processes

SHOWN = (1, 2, 4, 8, 16, 32, 64, 128)
LOOKED_AT = (*SHOWN, 256, 512, 1024)
LEAST_EFFICIENCY = 0.9
HIDDEN = 0.05  # of a step: so much waiting passes as hidden
WEAK, STRONG = "weak", "strong"


@dataclass(frozen=True, kw_only=True)
class Point:
    """One number of GPUs."""

    gpus: int
    batch: int  # pictures of one GPU and forward pass
    accumulation_steps: int
    rate: float  # pictures/s of all GPUs together
    efficiency: float  # of as many GPUs that never wait, in the same number formats, each at its configured batch
    waiting: float  # share of the step that is spent on exchanges which nothing hides


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One strategy on one machine."""

    machine: str
    strategy: str
    kind: str  # WEAK or STRONG
    points: tuple[Point, ...]
    inefficient_from: int | None  # the first of `LOOKED_AT` below `LEAST_EFFICIENCY`; None: none of them
    exposed_from: int | None  # the first whose waiting is more than `HIDDEN`


class Fleet:
    """Any number of one machine running one configuration."""

    def __init__(self, config: Config, machine: Machine, *, compiled: bool, batch: int) -> None:
        self.config, self.machine, self.compiled, self.batch = config, machine, compiled, batch
        self._masked = mean_masked(config)

    @cached_property
    def reference(self) -> float:
        """Pictures/s of one GPU that computes as one of many does, and has nobody to wait for."""
        dims = replace(self.dimensions(2, batch=self.batch), koleo_rows=self.dimensions(1, batch=self.batch).koleo_rows)
        alone = Processes(size=1, group_size=1, accumulation_steps=1)
        return self.batch / simulate_step(dims, machine=self.machine, processes=alone, compiled=self.compiled).total

    def dimensions(self, gpus: int, *, batch: int, strategy: str | None = None) -> Dimensions:
        """`strategy` for every part; None: as configured."""
        dims = dimensions_of(self.config, pictures=batch, processes=gpus, masked=self._masked * batch)
        return dims if strategy is None else replace(dims, formats=with_strategy(dims.formats, strategy))

    def processes(self, gpus: int, *, accumulation_steps: int) -> Processes:
        """HYBRID_SHARD shares a copy within a node, unless the configuration says otherwise."""
        group = self.config.runtime.shard_group_size or self.machine.per_node
        return Processes(size=gpus, group_size=min(group, gpus), accumulation_steps=accumulation_steps)

    def timeline(
        self, gpus: int, *, strategy: str | None = None, batch: int | None = None, accumulation_steps: int = 1
    ) -> Timeline:
        """One step."""
        return simulate_step(
            self.dimensions(gpus, batch=batch or self.batch, strategy=strategy),
            machine=self.machine,
            processes=self.processes(gpus, accumulation_steps=accumulation_steps),
            compiled=self.compiled,
        )

    def point(self, gpus: int, *, strategy: str, batch: int, accumulation_steps: int) -> Point:
        """One step at one number of GPUs."""
        line = self.timeline(gpus, strategy=strategy, batch=batch, accumulation_steps=accumulation_steps)
        rate = gpus * batch * accumulation_steps / line.total
        return Point(
            gpus=gpus,
            batch=batch,
            accumulation_steps=accumulation_steps,
            rate=rate,
            efficiency=rate / (gpus * self.reference),
            waiting=line.waiting / line.total,
        )


def curves(fleet: Fleet, *, global_batch: int) -> tuple[Curve, ...]:
    """Every strategy, weak and strong; `global_batch` pictures a step for the strong ones."""
    return tuple(
        _curve(fleet, strategy, kind, shares=_shares(fleet, kind, global_batch=global_batch))
        for kind in (WEAK, STRONG)
        for strategy in STRATEGIES
    )


def share_of_batch(global_batch: int, *, gpus: int, at_most: int) -> tuple[int, int] | None:
    """(pictures of a GPU and pass, passes): the largest pass that fits and divides; None: not a picture for each."""
    if global_batch % gpus:
        return None
    mine = global_batch // gpus
    batch = max(size for size in range(1, min(mine, at_most) + 1) if mine % size == 0)
    return batch, mine // batch


def _shares(fleet: Fleet, kind: str, *, global_batch: int) -> list[tuple[int, tuple[int, int]]]:
    """(GPUs, (batch, passes)) wherever the batch can be split."""
    if kind == WEAK:
        return [(gpus, (fleet.batch, 1)) for gpus in LOOKED_AT]
    found = ((gpus, share_of_batch(global_batch, gpus=gpus, at_most=fleet.batch)) for gpus in LOOKED_AT)
    return [(gpus, share) for gpus, share in found if share is not None]


def _curve(fleet: Fleet, strategy: str, kind: str, *, shares: Sequence[tuple[int, tuple[int, int]]]) -> Curve:
    points = tuple(
        fleet.point(gpus, strategy=strategy, batch=batch, accumulation_steps=passes)
        for gpus, (batch, passes) in shares
        if gpus == 1 or strategy != "HYBRID_SHARD" or gpus % fleet.processes(gpus, accumulation_steps=1).group_size == 0
    )
    several = [point for point in points if point.gpus > 1]
    return Curve(
        machine=fleet.machine.name,
        strategy=strategy,
        kind=kind,
        points=points,
        inefficient_from=next((point.gpus for point in several if point.efficiency < LEAST_EFFICIENCY), None),
        exposed_from=next((point.gpus for point in several if point.waiting > HIDDEN), None),
    )
