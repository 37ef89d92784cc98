"""Masks as they are drawn, and their counts: a page, or one picture.

In: a `BatchMaker`, positions to show, `MaskCounts`. Out: HTML text; uint8 [H, W, 3] in OpenCV's channel order.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dinov2.batch import NUM_GLOBAL_CROPS
from dinov2.data.augmentation import apply_crop
from dinov2.data.collate import BatchMaker
from dinov2.data.preview import read_drawn
from dinov2.data.preview_sheet import GLOBAL, Picture, beside, captioned, fit, framed, short, titled, with_mask
from dinov2.preview.mask_counts import MaskCounts
from dinov2.preview.page import jpeg, outline, png, render

CROP_PX = 300  # of a crop on the page
CELL_PX = 200  # of a crop on the picture
FILMS_A_ROW = 3
NUM_BINS = 20
WIDE, HIGH = 460, 190  # of a chart, in the units of its drawing
WARM = (160, 94, 200)  # most of a map; nothing is nothing, so that a map lies on light and dark paper


@dataclass(frozen=True)
class BinBar:
    """A bin of the histogram, in the units of the drawing."""

    x: float
    width: float
    height: float
    about: str


@dataclass(frozen=True)
class Histogram:
    """Shares hidden of the masked crops; `level` is the height at which every bin of the asked range would stand."""

    bars: tuple[BinBar, ...]
    ticks: tuple[tuple[float, str], ...]
    low: float
    high: float
    level: float
    even: float  # crops a bin at that height


def mask_page(
    maker: BatchMaker, positions: Sequence[int], counts: MaskCounts, *, preset: str, batch_size: int, command: str
) -> str:
    """Cards, charts and crops.  `batch_size` is that of one process.  Raises DataError where a film cannot be read."""
    shown = []
    for position in positions:
        drawn = read_drawn(maker, position)
        for i in range(NUM_GLOBAL_CROPS):
            crop = apply_crop(drawn.film, drawn.draws[i], size=maker.crops.global_crops_size)
            mask = drawn.masks[i]
            shown.append((drawn, i + 1, jpeg(crop, most=CROP_PX), outline(mask), float(mask.mean())))
    return render(
        "masks.html",
        title="Masks of the global crops",
        preset=preset,
        command=command,
        maker=maker,
        counts=counts,
        batch_size=batch_size,
        in_batches=counts.masked_in_batches(batch_size),
        expected_in_batch=NUM_GLOBAL_CROPS * batch_size * maker.masks.probability,
        histogram=histogram(counts, ratio=maker.masks.ratio),
        often=png(heat(counts.often)) if counts.num_masked else "",
        pieces=png(heat(piece_map(counts, grid=maker.masks.grid) ** 0.4)) if counts.num_masked else "",
        missed=round(float((counts.targets - counts.shares).max()) * maker.masks.num_patches)
        if counts.num_masked
        else 0,
        shown=shown,
        wide=WIDE,
        high=HIGH,
    )


def mask_sheet(maker: BatchMaker, positions: Sequence[int], counts: MaskCounts) -> Picture:
    """The masked crops of some films, three films a row, and the counts in the title."""
    cells = []
    for position in positions:
        drawn = read_drawn(maker, position)
        for i in range(NUM_GLOBAL_CROPS):
            crop = apply_crop(drawn.film, drawn.draws[i], size=maker.crops.global_crops_size)
            mask = drawn.masks[i]
            shown = framed(with_mask(fit(crop, CELL_PX), mask), GLOBAL[i])
            told = f"{100 * mask.mean():.0f} % hidden" if mask.any() else "not masked"
            cells.append(captioned(shown, f"global {i + 1}: {told}", short(drawn.path.name)))
    across = FILMS_A_ROW * NUM_GLOBAL_CROPS
    rows = [beside(cells[start : start + across]) for start in range(0, len(cells), across)]
    return titled(in_words(counts), rows)


def in_words(counts: MaskCounts) -> str:
    """The counts in one line."""
    told = f"{100 * counts.num_masked / counts.num_crops:.1f} % of {counts.num_crops:,} global crops masked"
    if not counts.num_masked:
        return told
    shares = counts.shares
    low, high, mean = (f"{100 * share:.0f} %" for share in (shares.min(), shares.max(), shares.mean()))
    return f"{told}, {low} to {high} of their patches hidden, {mean} on average"


def histogram(counts: MaskCounts, *, ratio: tuple[float, float]) -> Histogram:
    """Bins over the asked range and a little beyond."""
    low, high = ratio
    step = max((high - low) / NUM_BINS, 0.005)
    begin, end = max(0.0, low - 3 * step), min(1.0, high + 3 * step)
    edges = np.arange(begin, end + step, step)
    found, _ = np.histogram(counts.shares, bins=edges)
    per_bin = counts.num_masked * step / (high - low) if high > low else float(counts.num_masked)
    most = max(1.0, float(found.max(initial=0)), per_bin) * 1.08
    span = edges[-1] - edges[0]

    def across(share: float) -> float:
        return round(WIDE * (share - float(edges[0])) / float(span), 2)

    bars = tuple(
        BinBar(
            across(left),
            round(WIDE * step / span - 1.2, 2),
            round(HIGH * count / most, 2),
            f"{100 * left:.1f} to {100 * (left + step):.1f} % hidden: {count:,} crops",
        )
        for left, count in zip(edges[:-1].tolist(), found.tolist(), strict=True)
    )
    every = 0.05 if span < 0.35 else 0.1
    ticks = [round(every * i, 4) for i in range(int(1 / every) + 1)]
    return Histogram(
        bars=bars,
        ticks=tuple((across(tick), f"{100 * tick:.0f} %") for tick in ticks if edges[0] <= tick <= edges[-1]),
        low=across(low),
        high=across(high),
        level=round(HIGH * per_bin / most, 2),
        even=per_bin,
    )


def piece_map(counts: MaskCounts, *, grid: tuple[int, int]) -> NDArray[np.float64]:
    """How many pieces have a height (row, from the bottom up) and a width (column).  -> [h, w], the most is 1"""
    found = np.zeros(grid, dtype=np.float64)
    np.add.at(found, (counts.pieces[:, 0] - 1, counts.pieces[:, 1] - 1), 1)
    top: float = max(1.0, float(found.max()))
    return found[::-1] / top


def heat(values: NDArray[np.float64]) -> Picture:
    """0 to the largest value as opacity.  [h, w] -> uint8 [h, w, 4], red, green, blue, alpha"""
    share = values / max(1e-12, float(values.max()))
    colours = np.empty((*values.shape, 4), np.uint8)
    colours[..., :3] = WARM
    colours[..., 3] = np.rint(255 * share)
    return colours
