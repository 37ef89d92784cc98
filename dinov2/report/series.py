"""The numbers of a run, as arrays.

In: a file of JSON objects, one per line, with a `step` each; it may be growing, end in the middle of a line, or come
from another version. Out: for every number its steps and values.

Legend: n logged steps of a number.
"""

import json
import math
from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


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
class _Column:
    steps: "array[int]" = field(default_factory=lambda: array("q"))
    values: "array[float]" = field(default_factory=lambda: array("d"))


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
    columns: dict[str, _Column] = {}
    num_lines = num_damaged = 0
    try:
        stream = path.open("rb")
    except OSError:
        return Numbers({})
    with stream:
        for line in stream:
            num_lines += 1
            step, values = _parsed(line)
            if step is None:
                # the line that a running training is just writing is no damage
                num_damaged += line.endswith(b"\n")
                continue
            for name, value in values.items():
                column = columns.get(name)
                if column is None:
                    column = columns[name] = _Column()
                column.steps.append(step)
                column.values.append(value)
    return Numbers({name: _in_order(column) for name, column in columns.items()}, num_lines, num_damaged)


def _parsed(line: bytes) -> tuple[int | None, dict[str, float]]:
    try:
        found = json.loads(line)
        step = found.pop("step")
    except (ValueError, KeyError, TypeError, AttributeError):
        return None, {}
    if not isinstance(step, int) or not 0 <= step < 2**62:
        return None, {}
    numbers = {}
    for name, value in found.items():
        if value is None:
            numbers[name] = math.nan
        elif isinstance(value, int | float):
            numbers[name] = float(value)
    return step, numbers


def _in_order(column: _Column) -> Series:
    steps, values = np.frombuffer(column.steps, np.int64), np.frombuffer(column.values, np.float64)
    if np.any(np.diff(steps) <= 0):
        # the first of the reversed ones is the last that was written
        _, kept = np.unique(steps[::-1], return_index=True)
        kept = len(steps) - 1 - kept
        steps, values = steps[kept], values[kept]
    return Series(steps, values)
