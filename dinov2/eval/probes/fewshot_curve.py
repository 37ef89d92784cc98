"""A learning curve -> files: `fewshot.csv` with a line per draw, `fewshot.png`.

In: a `Curve`. Out: paths.
"""

import csv
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dinov2.eval.probes.fewshot import Curve

TABLE, PICTURE = "fewshot.csv", "fewshot.png"
INK, PALE = "#1f5a8c", "#9dbbd6"


def write_curve(curve: Curve, folder: Path, *, title: str, floors: Sequence[tuple[str, float]] = ()) -> list[Path]:
    """Writes both files; `floors` are scores to compare with, drawn as level lines.  Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / TABLE).open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=[*asdict(curve.points[0])])
        writer.writeheader()
        writer.writerows(asdict(point) for point in curve.points)
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    points = [(shots, scores) for shots, scores in curve if len(scores)]
    numbers = [shots for shots, _ in points]
    for shots, scores in points:
        axes.plot([shots] * len(scores), scores, "o", color=PALE, markersize=4, zorder=1)
    axes.errorbar(
        numbers,
        [scores.mean() for _, scores in points],
        yerr=[scores.std(ddof=1) if len(scores) > 1 else 0.0 for _, scores in points],
        color=INK,
        marker="o",
        capsize=3,
        zorder=2,
        label="mean and standard deviation over draws",
    )
    for name, level in floors:
        axes.axhline(level, color="0.45", linestyle="--", linewidth=1)
        axes.annotate(name, (1, level), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8)
    axes.set_xscale("log", base=2)
    axes.set_xticks(numbers, [str(number) for number in numbers])
    axes.set(xlabel="patients per class", ylabel=f"{curve.metric} of test", title=title)
    axes.grid(axis="y", color="0.9")
    figure.legend(loc="outside lower center", frameon=False, fontsize=8)
    figure.savefig(folder / PICTURE, dpi=150)
    return [folder / TABLE, folder / PICTURE]
