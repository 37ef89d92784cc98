"""What weights, gradients, optimiser and their exchange add to a rehearsed step, under any sharding.

In: a `Course`, the units that are gathered together, the number of processes. Out: a `Peak`: the bytes of one process
at its worst moment, and what they are.

With one process everything is counted as the step does it. With several, weights are gathered and gradients scattered
unit by unit (FSDP2). What one exchange holds is then an upper bound: buffers are counted from the moment they may be
there to the moment they must be gone.

Legend: S processes that share one copy; a parameter lies in S slices of its first dimension, each as long as the
longest, so a parameter whose first dimension is 1 costs every process its whole size.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, prod

import numpy as np
from numpy.typing import NDArray

from dinov2.distributed.shard import REGATHERS
from dinov2.forecast.live import Label
from dinov2.forecast.rehearsal import Course, Unit
from dinov2.ssl.precision import Layouts

MASTER_BYTES = 4  # weights, their gradients and both moments of AdamW are kept in float32
NUM_MOMENTS = 2

PARTS = (
    "weights",
    "teacher",
    "optimizer",
    "gradients",
    "weights in use",
    "exchange",
    "inputs",
    "activations",
    "logits",
    "backward",
)
FROM_LABELS: Mapping[str, tuple[Label, ...]] = {
    "weights in use": (Label.WEIGHT_COPIES,),
    "gradients": (Label.GRADIENTS,),
    "inputs": (Label.INPUTS,),
    "activations": (Label.TEACHER, Label.BACKBONE, Label.HEADS, Label.LOSSES),
    "logits": (Label.LOGITS,),
    "backward": (Label.BACKWARD,),
}


@dataclass(frozen=True, kw_only=True)
class Processes:
    """How many there are, and how many of them share one copy under HYBRID_SHARD."""

    size: int
    group_size: int
    accumulation_steps: int

    def sharing(self, strategy: str) -> int:
        """Over how many processes one copy is spread."""
        return {"NO_SHARD": 1, "HYBRID_SHARD": self.group_size}.get(strategy, self.size)


@dataclass(frozen=True, kw_only=True)
class Peak:
    """One process at its worst moment; the parts sum to the total, in bytes."""

    total: int
    parts: dict[str, int]
    during: str  # forward, backward, update


def peak_of(course: Course, units: Sequence[Unit], *, formats: Layouts, processes: Processes) -> Peak:
    """The worst moment of a step that is not the first: the optimiser has its moments."""
    counts = np.zeros((len(course.bytes_alive), len(PARTS)), dtype=np.int64)
    for name, labels in FROM_LABELS.items():
        counts[:, PARTS.index(name)] += course.bytes_alive[:, list(labels)].sum(axis=1)
    lasting = _Lasting(units, formats=formats, processes=processes)
    counts += np.array([lasting.of(name) for name in PARTS])
    if processes.size > 1:
        for name, start, stop, size in _exchanges(course, units, formats=formats, processes=processes):
            counts[start:stop, PARTS.index(name)] += size
    update = np.array([lasting.of(name) for name in PARTS])
    update[PARTS.index("gradients")] = lasting.gradients
    totals = counts.sum(axis=1)
    place = int(totals.argmax())
    if update.sum() >= totals[place]:
        return Peak(total=int(update.sum()), parts=_named(update), during="update")
    started = next((at for at, what, _ in course.marks if what == "backward"), len(totals))
    return Peak(
        total=int(totals[place]), parts=_named(counts[place]), during="forward" if place <= started else "backward"
    )


class _Lasting:
    """Bytes that are there from the first operation of a step to the last."""

    def __init__(self, units: Sequence[Unit], *, formats: Layouts, processes: Processes) -> None:
        sharing = {unit.number: processes.sharing(formats[unit.side, unit.part].strategy) for unit in units}
        held = {
            side: sum(slice_numel(unit, sharing=sharing[unit.number]) for unit in units if unit.side == side)
            for side in ("student", "teacher")
        }
        self.gradients = MASTER_BYTES * held["student"]
        self._bytes = {
            "weights": MASTER_BYTES * held["student"],
            "teacher": MASTER_BYTES * held["teacher"],
            "optimizer": NUM_MOMENTS * MASTER_BYTES * held["student"],
            # From the second pass of a step on, the gradients of the first are there.
            "gradients": self.gradients if processes.accumulation_steps > 1 else 0,
        }

    def of(self, name: str) -> int:
        return self._bytes.get(name, 0)


def slice_numel(unit: Unit, *, sharing: int) -> int:
    """Entries of a unit's parameters on one of the processes that share it."""
    return sum(ceil(shape[0] / sharing) * prod(shape[1:]) if shape else 1 for shape in unit.shapes)


def _exchanges(
    course: Course, units: Sequence[Unit], *, formats: Layouts, processes: Processes
) -> Iterator[tuple[str, int, int, int]]:
    """(part, first operation, operation after the last, bytes) of everything that comes and goes."""
    moments = _Moments(course)
    for unit in units:
        form = formats[unit.side, unit.part]
        sharing = processes.sharing(form.strategy)
        whole = sharing * slice_numel(unit, sharing=sharing) * form.param_dtype.itemsize
        before = _beside(unit, units, step=-1)
        for start, stop in _gathered_spans(unit, before, moments=moments, regathers=form.strategy in REGATHERS):
            yield "weights in use", start, stop, whole
        for start, stop in _transfer_spans(unit, before, moments=moments, regathers=form.strategy in REGATHERS):
            yield "exchange", start, stop, whole
        if unit.side == "student" and unit.number in moments.done:
            part = slice_numel(unit, sharing=sharing)
            at, after = moments.done[unit.number], moments.after_done(unit.number)
            alone = unit.part != "backbone"  # nothing comes after it in its own queue of exchanges
            yield "exchange", at, moments.end if alone else after, sharing * part * form.reduce_dtype.itemsize
            if form.reduce_dtype.itemsize != MASTER_BYTES:
                summed_again = sharing < processes.size  # over the copies; FSDP2 holds that buffer until all is done
                yield "exchange", at, moments.end if summed_again else at + 1, part * form.reduce_dtype.itemsize
            if processes.accumulation_steps == 1:
                yield "gradients", at, moments.end, MASTER_BYTES * part


def _gathered_spans(
    unit: Unit, before: Unit | None, *, moments: "_Moments", regathers: bool
) -> Iterator[tuple[int, int]]:
    """When the whole weights of a unit are there."""
    number = unit.number
    if number not in moments.open:
        return
    if unit.side == "teacher":
        yield moments.open[number], moments.close[number] if regathers else moments.end
        return
    done = moments.done.get(number, moments.end)
    if regathers:
        yield moments.open[number], moments.close[number]
        yield moments.backward_of(unit), done
    else:
        yield moments.open[number if before is None else before.number], done


def _transfer_spans(
    unit: Unit, before: Unit | None, *, moments: "_Moments", regathers: bool
) -> Iterator[tuple[int, int]]:
    """When the buffer is there through which a unit's weights arrive: while the one before computes, and itself."""
    number = unit.number
    if number not in moments.open:
        return
    first = number if before is None or before.number not in moments.open else before.number
    yield moments.open[first], moments.close[number]
    if regathers and unit.side == "student":
        # In the backward pass the unit after this one computes while this one arrives.
        yield moments.backward_of(unit, one_earlier=True), moments.done.get(number, moments.end)


def _beside(unit: Unit, units: Sequence[Unit], *, step: int) -> Unit | None:
    """The neighbouring block of the same network."""
    if unit.block is None:
        return None
    return next(
        (u for u in units if (u.side, u.part, u.block) == (unit.side, unit.part, unit.block + step)),
        None,
    )


class _Moments:
    """At which operation each unit begins and ends to compute, and has all its gradients."""

    def __init__(self, course: Course) -> None:
        self.end = len(course.bytes_alive)
        self.open: dict[int, int] = {}
        self.close: dict[int, int] = {}
        self.done: dict[int, int] = {}
        self.backward = self.end
        for at, what, unit in course.marks:
            if what == "backward":
                self.backward = at
            elif what == "open":
                self.open.setdefault(unit, at)
            elif what == "close":
                self.close[unit] = at + 1
            else:
                self.done[unit] = at
        self._order = sorted(self.done, key=lambda unit: (self.done[unit], -unit))

    def after_done(self, unit: int) -> int:
        """When the unit after this one has its gradients: until then the buffer of this one's may be there."""
        place = self._order.index(unit)
        return self.done[self._order[place + 1]] + 1 if place + 1 < len(self._order) else self.end

    def backward_of(self, unit: Unit, *, one_earlier: bool = False) -> int:
        """When the gradients of a unit begin to be computed: when those of the blocks behind it are done."""
        if unit.block is None:
            return self.backward
        behind = [at for number, at in self.done.items() if number > unit.number]
        place = 2 if one_earlier else 1
        return sorted(behind)[-place] if len(behind) >= place else self.backward


def _named(counts: NDArray[np.int64]) -> dict[str, int]:
    return {name: int(value) for name, value in zip(PARTS, counts, strict=True)}
