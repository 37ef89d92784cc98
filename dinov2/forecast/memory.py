"""The memory of one process at its worst moment, and the largest batch that fits.

In: a configuration and a `Launch`. Out: a `MemoryReport`, for the sharding that is configured and for every other one.

A step is rehearsed on tensors without memory (`dinov2.forecast.rehearsal`): what it holds is counted, not estimated
from the size of an architecture. What is not counted: the accelerator's own context, the buffers of its communication
library, workspaces of kernels, and gaps between blocks of memory; `HEADROOM` is left for them.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from dinov2.batch import NUM_GLOBAL_CROPS
from dinov2.config.schema import Config
from dinov2.data.masking import mask_recipe
from dinov2.data.stream import batch_positions
from dinov2.distributed.shard import STRATEGIES
from dinov2.forecast.launch import Launch
from dinov2.forecast.rehearsal import Course, Rehearsal
from dinov2.forecast.sharding import Peak, Processes, peak_of
from dinov2.ssl.networks import needed_heads
from dinov2.ssl.precision import SIDES, Layouts, choose_precision, in_words

GIB = 2**30
HEADROOM = 0.1  # share of the memory that is not planned with
PICTURES_LOOKED_AT = 2048  # for the largest number of masked patches in a batch
FEWEST_BATCHES = 2
LARGEST_BATCH = 4096
MOST_REHEARSALS = 10
PART_OF_BATCH = 128  # the largest batch is found to a 128th of itself


@dataclass(frozen=True, kw_only=True)
class MemoryRow:
    """One way to lay the networks over the processes."""

    name: str  # "configured", or a strategy for every part
    strategy: str
    peak: Peak
    largest_batch: int | None  # pictures per process and forward pass; 0: not even one; None: not looked for
    is_exact: bool  # whether the largest batch was rehearsed itself, or follows from two that were


@dataclass(frozen=True, kw_only=True)
class MemoryReport:
    """Of one process, in bytes."""

    on_gpu: bool
    formats: str
    batch_size: int
    num_masked: int  # most hidden patches in one of the first batches
    saved: dict[str, int]  # what the forward pass leaves to the backward pass, by what it belongs to
    student_parameters: int
    limit: int  # bytes that may be planned with
    capacity: int
    rows: tuple[MemoryRow, ...]  # the configured one first


class Forecaster:
    """Rehearses steps of one configuration, each batch size once; `say` hears of it, for each takes seconds."""

    def __init__(self, config: Config, launch: Launch, *, on_gpu: bool, say: Callable[[str], None]) -> None:
        self.config, self.launch, self.on_gpu, self._say = config, launch, on_gpu, say
        parts = ("backbone", *needed_heads(dino=config.dino, ibot=config.ibot))
        self.formats = choose_precision(
            config.runtime.precision,
            config.compute_precision,
            parts=parts,
            device=torch.device("cuda" if on_gpu else "cpu"),
            sharded=launch.processes > 1,
        ).layouts
        say("building the networks without their values")
        self.rehearsal = Rehearsal(config, formats=self.formats, num_processes=launch.processes, on_gpu=on_gpu)
        self._courses: dict[int, Course] = {}

    @property
    def rehearsed(self) -> tuple[int, ...]:
        """Batch sizes, ascending."""
        return tuple(sorted(self._courses))

    def course(self, batch_size: int) -> Course:
        """A step of this many pictures."""
        if batch_size not in self._courses:
            self._say(f"rehearsing a step of {batch_size} pictures")
            masked = most_masked(self.config, self.launch, batch_size=batch_size)
            self._courses[batch_size] = self.rehearsal.step(batch_size=batch_size, num_masked=masked)
        return self._courses[batch_size]

    def peak(self, batch_size: int, *, strategy: str | None = None) -> Peak:
        """At the configured sharding, or at one strategy for every part."""
        formats = self.formats if strategy is None else with_strategy(self.formats, strategy)
        processes = Processes(
            size=self.launch.processes,
            group_size=self.launch.group_size,
            accumulation_steps=self.launch.accumulation_steps,
        )
        return peak_of(self.course(batch_size), self.rehearsal.units, formats=formats, processes=processes)


def forecast_memory(forecaster: Forecaster, *, capacity_gib: float) -> MemoryReport:
    """The whole report, on processes that have `capacity_gib` each."""
    config, launch = forecaster.config, forecaster.launch
    capacity = int(capacity_gib * GIB)
    limit = int(capacity * (1 - HEADROOM))
    batch = launch.batch_size
    course = forecaster.course(batch)
    largest = largest_that_fits(lambda b: forecaster.peak(b).total, start=batch, limit=limit)
    used = dict.fromkeys(one.strategy for one in forecaster.formats.values())
    rows = [
        MemoryRow(
            name="configured",
            strategy="one process" if launch.processes == 1 else " and ".join(used),
            peak=forecaster.peak(batch),
            largest_batch=largest,
            is_exact=True,
        )
    ]
    if launch.processes > 1:
        rows += [_other(forecaster, strategy, batch=batch, limit=limit) for strategy in STRATEGIES]
    return MemoryReport(
        on_gpu=forecaster.on_gpu,
        formats=in_words(forecaster.formats),
        batch_size=batch,
        num_masked=most_masked(config, launch, batch_size=batch),
        saved={label.name.lower().replace("_", " "): size for label, size in course.saved.items() if size},
        student_parameters=sum(p.numel() for p in forecaster.rehearsal.networks.student.parameters()),
        limit=limit,
        capacity=capacity,
        rows=tuple(rows),
    )


def with_strategy(formats: Layouts, strategy: str) -> Layouts:
    """The same number formats, every part laid out by one strategy."""
    return {(side, part): replace(formats[side, part], strategy=strategy) for side, part in formats if side in SIDES}


def most_masked(config: Config, launch: Launch, *, batch_size: int) -> int:
    """The largest number of patches that one of the run's first batches of a process hides.

    The number is known for every position of the sample stream; drawing the masks themselves may hide a few fewer.
    """
    if config.ibot.loss_weight == 0:
        return 0
    recipe = mask_recipe(
        config.ibot,
        crop_size=config.crops.global_crops_size,
        patch_size=config.student.patch_size,
        seed=config.train.seed,
    )
    return max(
        sum(
            recipe.target(position, crop=crop)
            for position in batch_positions(batch, batch_size=batch_size, rank=0, num_ranks=launch.processes)
            for crop in range(NUM_GLOBAL_CROPS)
        )
        for batch in range(max(FEWEST_BATCHES, PICTURES_LOOKED_AT // batch_size))
    )


def largest_that_fits(total: Callable[[int], int], *, start: int, limit: int) -> int:
    """The largest batch whose total is at most `limit`; 0 where none is.

    `total` is nearly a straight line, so a few looks along it are enough. Below 256 pictures the answer is exact.
    """
    seen: dict[int, int] = {}
    fits, too_large, batch = 0, LARGEST_BATCH + 1, start
    while len(seen) < MOST_REHEARSALS and too_large - fits > max(1, fits // PART_OF_BATCH):
        seen[batch] = total(batch)
        if seen[batch] <= limit:
            fits = max(fits, batch)
        else:
            too_large = min(too_large, batch)
        batch = min(max(_next_guess(seen, limit=limit), fits + 1), too_large - 1)
    return fits


def _next_guess(seen: dict[int, int], *, limit: int) -> int:
    """Where the straight line through the two batches nearest to the limit meets it."""
    if len(seen) == 1:
        ((batch, size),) = seen.items()
        return batch * 2 if size <= limit else max(1, batch // 2)
    low, high = sorted(sorted(seen, key=lambda batch: abs(seen[batch] - limit))[:2])
    slope = max(1.0, (seen[high] - seen[low]) / (high - low))
    return int(low + (limit - seen[low]) // slope)


def _other(forecaster: Forecaster, strategy: str, *, batch: int, limit: int) -> MemoryRow:
    """A strategy that is not configured; its largest batch follows from the steps that were rehearsed already."""
    looked_at = forecaster.rehearsed
    totals = {size: forecaster.peak(size, strategy=strategy).total for size in looked_at}
    largest = None
    if len(totals) > 1:
        largest = min(max(0, _next_guess(totals, limit=limit)), LARGEST_BATCH)
    return MemoryRow(
        name=strategy,
        strategy=strategy,
        peak=forecaster.peak(batch, strategy=strategy),
        largest_batch=largest,
        is_exact=False,
    )
