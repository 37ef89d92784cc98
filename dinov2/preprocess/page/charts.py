"""Numbers -> what the template draws: bars, histograms, a band of intensities.

In: counts and values. Out: plain data; lengths of bars as shares of the longest, coordinates in the units of the SVG.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 320, 110  # of a histogram's drawing area
BINS = 32
LEVEL_BINS = 64  # of the 256 grey levels


@dataclass(frozen=True)
class Bar:
    """A category: `length` is its share of the longest bar, `share` that of everything, both in percent."""

    label: str
    count: int
    length: float
    share: float


@dataclass(frozen=True)
class BarChart:
    """Categories, one below the other."""

    title: str
    note: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True)
class Column:
    """A bin of a histogram, and what it says when pointed at."""

    x: float
    y: float
    width: float
    height: float
    text: str


@dataclass(frozen=True)
class Histogram:
    """Columns over an axis from `first` to `last`."""

    title: str
    note: str
    columns: tuple[Column, ...]
    ticks: tuple[tuple[float, str], ...]  # x, label


@dataclass(frozen=True)
class Band:
    """The mean histogram of grey levels of several pictures, and where nine in ten of them lie."""

    title: str
    note: str
    mean: str  # points of a line
    band: str  # points of the area around it
    ticks: tuple[tuple[float, str], ...]


def bar_chart(title: str, counts: Mapping[str, int], *, note: str = "") -> BarChart:
    """Bars in the order of `counts`."""
    longest, total = max(counts.values(), default=1), max(1, sum(counts.values()))
    bars = (Bar(label, n, 100 * n / longest, 100 * n / total) for label, n in counts.items())
    return BarChart(title, note, tuple(bars))


def histogram(title: str, values: NDArray[np.float64], *, unit: str = "", note: str = "", digits: int = 0) -> Histogram:
    """A histogram between the 0.1st and the 99.9th percentile; what lies beyond is in the first and last column."""
    low, high = (float(v) for v in np.percentile(values, (0.1, 99.9))) if values.size else (0.0, 1.0)
    if not high > low:
        pad = 0.5 * 10.0**-digits + 0.02 * abs(low)
        low, high = low - pad, high + pad
    counts, edges = np.histogram(np.clip(values, low, high), bins=BINS, range=(low, high))
    tallest, width = max(1, int(counts.max())), WIDTH / BINS
    columns = []
    for i, count in enumerate(counts):
        height = 0.0 if count == 0 else max(1.0, HEIGHT * count / tallest)
        text = f"{edges[i]:,.{digits}f} to {edges[i + 1]:,.{digits}f}{unit}: {count:,}"
        columns.append(
            Column(round(i * width, 2), round(HEIGHT - height, 2), round(width - 1, 2), round(height, 2), text)
        )
    ticks = tuple((x * WIDTH, f"{low + x * (high - low):,.{digits}f}") for x in (0, 0.5, 1))
    return Histogram(title, note, tuple(columns), ticks)


def intensity_band(title: str, shares: Sequence[NDArray[np.float64]], *, note: str = "") -> Band:
    """From a histogram per picture [LEVEL_BINS], each of sum 1."""
    stack = np.stack(list(shares))
    low, mean, high = np.percentile(stack, 5, axis=0), stack.mean(axis=0), np.percentile(stack, 95, axis=0)
    top = max(float(high.max()), float(mean.max()), 1e-9)
    across = (np.arange(LEVEL_BINS) + 0.5) * WIDTH / LEVEL_BINS

    def points(values: NDArray[np.float64]) -> list[str]:
        return [f"{x:.1f},{HEIGHT * (1 - y / top):.1f}" for x, y in zip(across, values, strict=True)]

    ticks = ((0.0, "0 black"), (WIDTH / 2, "128"), (float(WIDTH), "255 white"))
    return Band(title, note, " ".join(points(mean)), " ".join([*points(high), *reversed(points(low))]), ticks)


def level_shares(picture: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The share of a picture's pixels in each of `LEVEL_BINS` bins of grey levels."""
    counts = np.bincount(picture.ravel() // (256 // LEVEL_BINS), minlength=LEVEL_BINS)
    shares: NDArray[np.float64] = counts / max(1, picture.size)
    return shares
