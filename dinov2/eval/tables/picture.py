"""A `Result` -> one PNG: curves or boxes per class, scores with their intervals, a table.

In: a `Result` with its predictions. Out: a file. matplotlib without a display; its state is not touched.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np

from dinov2.eval.outcome import Predictions, Segmentations
from dinov2.eval.scores import MACRO, Score
from dinov2.eval.scores.curves import curves_of
from dinov2.eval.scores.overlap import dice_of
from dinov2.eval.tables.result import Result
from dinov2.eval.tables.sheet import WORDS, beside_score, names_of_beside, sheet_of

INCHES_PER_ROW = 0.27
MOST_LEGEND = 15
MOST_NAME = 28


def draw_picture(result: Result, path: Path) -> None:
    """Raises OSError."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    sheet = sheet_of(result)
    num_rows = len(sheet.rows) + 1
    table_height = INCHES_PER_ROW * num_rows + 0.3
    upper = max(4.6, 0.32 * num_rows + 1.2)
    height = upper + table_height + 1.2
    figure = Figure(figsize=(13, height), dpi=110)
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(  # places by hand: matplotlib's own layout would draw everything twice
        2,
        2,
        height_ratios=[upper, table_height],
        width_ratios=[1, 1.25],
        left=0.05,
        right=0.985,
        top=1 - 0.75 / height,
        bottom=0.15 / height,
        hspace=1.3 / height,
        wspace=0.38,
    )
    said = result.outcome.test if result.split == "test" else result.outcome.val
    if isinstance(said, Predictions):
        _roc(figure.add_subplot(grid[0, 0]), said, result)
    elif said is not None:
        _boxes(figure.add_subplot(grid[0, 0]), said)
    _intervals(figure.add_subplot(grid[0, 1]), result)
    _table(figure.add_subplot(grid[1, :]), sheet.header, sheet.rows)
    figure.suptitle(sheet.title, fontsize=11, wrap=True)
    figure.savefig(path, metadata={"Software": None})


def _roc(axes: Any, said: Predictions, result: Result) -> None:
    from matplotlib import colormaps

    curves = curves_of(said)
    for i, one in enumerate(curves):
        score = result.card.find("auroc", one.name)
        label = f"{_short(one.name)} {score.value:.3f}" if score else one.name
        axes.plot(*one.roc.T, lw=1.4, color=colormaps["tab20"](i % 20), label=label)
    axes.plot([0, 1], [0, 1], color="0.75", lw=1, ls="--")
    axes.set(xlabel="1 - specificity", ylabel="sensitivity", xlim=(0, 1), ylim=(0, 1.005), title="ROC, AUROC")
    axes.set_box_aspect(1)
    if 0 < len(curves) <= MOST_LEGEND:
        axes.legend(fontsize=7.5, loc="lower right", frameon=False)
    _plain(axes)


def _boxes(axes: Any, said: Segmentations) -> None:
    dice = dice_of(said)
    columns = [column[~np.isnan(column)] for column in dice.T]
    axes.boxplot(columns, showfliers=False, medianprops={"color": "#2f7fb8"})
    rng = np.random.default_rng(0)
    for i, column in enumerate(columns):
        axes.plot(i + 1 + rng.uniform(-0.12, 0.12, len(column)), column, ".", ms=3, color="#2f7fb8", alpha=0.35)
    axes.set_xticks(range(1, len(columns) + 1), [_short(name) for name in said.classes], rotation=30, ha="right")
    axes.set(ylabel="Dice of a picture", title="Pictures")
    _plain(axes)


def _intervals(axes: Any, result: Result) -> None:
    """The result and what stands beside it, a line a class."""
    names = [*result.classes, MACRO]
    series: list[tuple[str, list[Score | None]]] = [
        (result.outcome.probe, [result.card.find(result.main, name) for name in names])
    ]
    for other, label in zip(result.beside, names_of_beside(result), strict=True):
        scores = [beside_score(other, split=result.split, name=result.main, class_name=name) for name in names]
        series.append((label, scores))
    for j, (label, scores) in enumerate(series):
        offset = 0.16 * (j - (len(series) - 1) / 2)
        told = [(i, one) for i, one in enumerate(scores) if one is not None and math.isfinite(one.value)]
        if not told:
            continue
        places = [i + offset for i, _ in told]
        values = [one.value for _, one in told]
        spans = [
            [max(0.0, _or(v - one.low)), max(0.0, _or(one.high - v))] for v, (_, one) in zip(values, told, strict=True)
        ]
        axes.errorbar(values, places, xerr=np.transpose(spans), fmt="o", ms=4, lw=1.4, capsize=2, label=label)
    axes.set_yticks(range(len(names)), ["mean of classes" if name == MACRO else _short(name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.axhline(len(names) - 1.5, color="0.8", lw=1)
    axes.set(title=f"{WORDS[result.main]}, 95 % by patient")
    axes.grid(axis="x", color="0.9")
    if len(series) > 1:
        axes.legend(fontsize=8, frameon=False, loc="best")
    _plain(axes)


def _table(axes: Any, header: tuple[str, ...], rows: tuple[tuple[str, ...], ...]) -> None:
    axes.axis("off")
    table = axes.table(
        cellText=[[_short(cell) for cell in row] for row in rows],
        colLabels=[_short(h) for h in header],
        bbox=(0, 0, 1, 1),
    )
    table.auto_set_font_size(False)
    table.set_fontsize(8)
    for (row, column), cell in table.get_celld().items():
        cell.set_linewidth(0.3)
        cell.set_text_props(ha="left" if column == 0 else "right", weight="bold" if row in (0, len(rows)) else "normal")
        cell.PAD = 0.04


def _plain(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)


def _short(name: str) -> str:
    return name if len(name) <= MOST_NAME else name[: MOST_NAME - 1] + "…"


def _or(value: float) -> float:
    return value if math.isfinite(value) else 0.0
