"""The numbers of a run, as arrays.

In: a file of JSON objects, one per line, with a `step` each; it may be growing, end in the middle of a line, or come
from another version. Out: for every number its steps and values.

Legend: n logged steps of a number.
"""

import json
import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

DECODE = json.JSONDecoder().decode
KINDS = frozenset((float, int))  # that a line's values are of, as a rule; any other is looked at


@dataclass(frozen=True)
class Series:
    """A number over the steps; NaN where it was not finite."""

    steps: NDArray[np.int64]  # [n], ascending, each once
    values: NDArray[np.float64]  # [n]

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def finite(self) -> "Series":
        """Without the steps at which it was not finite."""
        good = np.isfinite(self.values)
        return self if good.all() else Series(self.steps[good], self.values[good])

    @property
    def last(self) -> float:
        """The newest finite value; NaN where there is none."""
        finite = self.finite.values
        return float(finite[-1]) if len(finite) else math.nan

    @property
    def is_constant(self) -> bool:
        """Whether it has one value throughout."""
        return len(self) > 0 and bool(np.all(self.values == self.values[0]))


@dataclass
class _Block:
    """All lines that hold the same numbers, row after row: a fraction of the work of a list for each number."""

    lines: "array[int]" = field(default_factory=lambda: array("q"))  # [m] where each stands in the file
    steps: "array[int]" = field(default_factory=lambda: array("q"))  # [m]
    values: "array[float]" = field(default_factory=lambda: array("d"))  # [m * numbers]


@dataclass(frozen=True)
class Numbers:
    """What a file holds; `num_damaged` of its lines are no JSON object with a step."""

    by_name: Mapping[str, Series]
    num_lines: int = 0
    num_damaged: int = 0

    @property
    def last_step(self) -> int:
        """The newest step of any number; 0 without any."""
        return max((int(one.steps[-1]) for one in self.by_name.values()), default=0)


def read_numbers(path: Path) -> Numbers:
    """All numbers of a file; none where it is not there. Of a step that stands twice the later line counts."""
    blocks: dict[tuple[str, ...], _Block] = {}
    num_lines = num_damaged = 0
    try:
        stream = path.open("rb")
    except OSError:
        return Numbers({})
    with stream:
        for line in stream:
            num_lines += 1
            parsed = _parsed(line)
            if parsed is None:
                # the line that a running training is just writing is no damage
                num_damaged += line.endswith(b"\n")
                continue
            step, names, row = parsed
            block = blocks.get(names)
            if block is None:
                block = blocks[names] = _Block()
            block.lines.append(num_lines)
            block.steps.append(step)
            block.values.extend(row)
    return Numbers(_by_name(blocks), num_lines, num_damaged)


def _parsed(line: bytes) -> tuple[int, tuple[str, ...], "array[float]"] | None:
    """Step, names and values; None where it is no object with a step."""
    try:
        found = DECODE(line.decode())
        step = found.pop("step")
        if not isinstance(step, int) or not 0 <= step < 2**62:
            return None
        if not KINDS.issuperset(map(type, found.values())):
            found = dict(_usual(found))
        return step, tuple(found), array("d", found.values())
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def _usual(found: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Numbers alone, NaN for null; words and lists are none."""
    for name, value in found.items():
        if value is None:
            yield name, math.nan
        elif isinstance(value, int | float):
            yield name, value


def _by_name(blocks: Mapping[tuple[str, ...], _Block]) -> dict[str, Series]:
    parts: dict[str, list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]]] = {}
    for names, block in blocks.items():
        lines, steps = np.frombuffer(block.lines, np.int64), np.frombuffer(block.steps, np.int64)
        rows = np.frombuffer(block.values, np.float64).reshape(len(steps), len(names))
        for column, name in enumerate(names):
            parts.setdefault(name, []).append((lines, steps, rows[:, column].copy()))
    return {name: _in_order(several) for name, several in parts.items()}


def _in_order(several: Sequence[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]]) -> Series:
    lines, steps, values = (np.concatenate(one) for one in zip(*several, strict=True))
    if len(several) > 1:
        order = np.argsort(lines)
        steps, values = steps[order], values[order]
    if np.any(np.diff(steps) <= 0):
        # the first of the reversed ones is the last that was written
        _, kept = np.unique(steps[::-1], return_index=True)
        kept = len(steps) - 1 - kept
        steps, values = steps[kept], values[kept]
    return Series(steps, values)
