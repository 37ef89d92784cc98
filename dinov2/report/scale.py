"""Axes: where a value lies between two edges, and which round numbers stand beside it.

In: the least and the greatest value. Out: a `Scale` with ticks; linear, or logarithmic where values span decades.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

DECADES_FOR_LOG = 1.6  # between the edges, above which a linear axis shows only the greatest
LEAST_SPAN = 1e-3  # of the values, below which an axis would show rounding
SMALL = 1e-3
LARGE = 1e5
LEAST_TICKS = 3
ROOM_OF_ONE = 0.2


@dataclass(frozen=True)
class Tick:
    """A place on the axis, 0 to 1, and its label."""

    share: float
    text: str


@dataclass(frozen=True)
class Scale:
    """From `low` to `high`."""

    low: float
    high: float
    is_log: bool = False

    def share(self, value: float) -> float:
        """0 at `low`, 1 at `high`; what lies beyond stays at the edge."""
        if self.is_log:
            value, low, high = (math.log10(max(one, 1e-300)) for one in (value, self.low, self.high))
        else:
            low, high = self.low, self.high
        return min(1.0, max(0.0, (value - low) / (high - low)))

    def ticks(self, *, most: int = 5) -> tuple[Tick, ...]:
        """Round numbers within the edges."""
        values = list(_log_ticks(self.low, self.high, most=most)) if self.is_log else []
        if len(values) < 2:
            values = list(_linear_ticks(self.low, self.high, most=most))
        return tuple(Tick(self.share(value), short(value)) for value in values)


def scale_of(low: float, high: float, *, may_be_log: bool, typical_low: float | None = None) -> Scale:
    """Edges with a little room around the values.

    `typical_low`: a value that few lie below, by which the choice between linear and logarithmic is made, so that a
    single small value decides nothing.
    """
    if may_be_log and low > 0 and math.log10(high / (typical_low or low)) > DECADES_FOR_LOG:
        room = (high / low) ** 0.04
        return Scale(low / room, high * room, is_log=True)
    if high - low > LEAST_SPAN * max(abs(low), abs(high)):
        room = 0.05 * (high - low)
        # nothing that is never negative gets an axis that begins below 0
        return Scale(max(0.0, low - room) if low >= 0 else low - room, high + room)
    # as good as constant; of a single value nothing is known but its size
    room = (ROOM_OF_ONE if low == high else 5 * LEAST_SPAN) * max(abs(low), abs(high)) or 1.0
    return Scale(low - room, high + room)


def short(value: float) -> str:
    """A round number in as few letters as it takes: 20k, 1.5M, 0.002, 3e-06."""
    size = abs(value)
    if size == 0:
        return "0"
    if size >= 1e6 and size < 1e12:
        return f"{value / 1e6:.4g}M" if size < 1e9 else f"{value / 1e9:.4g}G"
    if size >= 1e4 and size < 1e6:
        return f"{value / 1e3:.4g}k"
    if size < SMALL or size >= 1e12:
        return f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")
    return f"{value:,.6g}"


def figure(value: float) -> str:
    """A measured value, four digits."""
    size = abs(value)
    if not math.isfinite(value):
        return "not finite"
    if size and (size < SMALL or size >= 1e9):
        return f"{value:.2e}"
    if size >= LARGE:
        return f"{value:,.0f}"
    return f"{value:,.4g}" if size < 1000 else f"{value:,.1f}".removesuffix(".0")


def _linear_ticks(low: float, high: float, *, most: int) -> Iterator[float]:
    rough = (high - low) / most
    unit = 10.0 ** math.floor(math.log10(rough))
    steps = [factor * unit for factor in (0.5, 1, 2, 5, 10)]
    place = next(i for i, step in enumerate(steps) if step >= rough * (1 - 1e-9))
    # an axis with one number on it tells nothing of what lies between
    while len(numbers := _multiples(steps[place], low, high)) < LEAST_TICKS and place:
        place -= 1
    for number in numbers:
        yield number * steps[place]


def _multiples(step: float, low: float, high: float) -> range:
    return range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)


def _log_ticks(low: float, high: float, *, most: int) -> Iterator[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every = max(1, math.ceil((last - first) / most))
    factors = (1, 2, 5) if last - first <= 2 else (1,)
    for exponent in range(first, last + 1, every):
        for factor in factors:
            if low <= (value := factor * 10.0**exponent) <= high:
                yield value
