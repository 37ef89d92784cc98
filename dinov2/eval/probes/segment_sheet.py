"""A picture of test films with the outlines of their masks, true and predicted.

In: a final fit and a split. Out: a PNG.
"""

from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dinov2.eval.examples import Picture
from dinov2.eval.probes.segment_overlap import segmentations_of
from dinov2.eval.probes.segment_probe import Segmenter, SegmentProbe
from dinov2.eval.probes.segment_tokens import TokenSplit
from dinov2.eval.scores import mean_dice

COLUMNS = 4
INCHES = 3.4  # a film's side
COLOURS = ("#4c9be8", "#f0a030", "#59c36a", "#d75f8f", "#9f7be1", "#52c7c7", "#c9b458", "#e0664f")


def write_sheet(probe: SegmentProbe, fitted: Segmenter, split: TokenSplit, *, path: Path, num_films: int = 8) -> None:
    """Films spread evenly over the split, each with its mean Dice; solid is predicted, dotted is true.

    Films are shown at the size at which masks are compared.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    rows = split.examples.manifest.spread_rows(num_films)
    chosen = TokenSplit(examples=split.examples.take(rows))
    columns = min(COLUMNS, len(rows))
    num_rows = -(-len(rows) // columns)
    figure = Figure(figsize=(columns * INCHES, num_rows * INCHES + 0.5), facecolor="#16181d", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(num_rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.set_axis_off()
    with closing(probe.compared(fitted, chosen)) as pairs:
        for i, pair in enumerate(pairs):
            film = _shown(chosen.examples.reader.picture(i), like=pair.true, probe=probe)
            axes[i].imshow(film, cmap="gray")
            for number in range(1, probe.num_classes):
                colour = COLOURS[(number - 1) % len(COLOURS)]
                _outline(axes[i], pair.true == number, colour=colour, style="dotted")
                _outline(axes[i], pair.predicted == number, colour=colour, style="solid")
            dice = mean_dice(segmentations_of(chosen.examples.take([i]), [pair], distances=False))
            axes[i].set_title(f"{chosen.examples.ids[i]}   Dice {dice:.3f}", color="#e6e6e6", fontsize=8)
    keys = [
        Line2D([], [], color=COLOURS[i % len(COLOURS)], label=name) for i, name in enumerate(split.examples.classes)
    ]
    keys += [Line2D([], [], color="#e6e6e6", ls=style, label=said) for style, said in _STYLES]
    figure.legend(
        handles=keys, loc="outside lower center", ncols=min(6, len(keys)), frameon=False, labelcolor="#e6e6e6"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


_STYLES = (("solid", "predicted"), ("dotted", "true"))


def _outline(axis: object, pixels: NDArray[np.bool_], *, colour: str, style: str) -> None:
    if pixels.any() and not pixels.all():
        axis.contour(pixels, levels=[0.5], colors=[colour], linewidths=1.3, linestyles=[style])  # type: ignore[attr-defined]


def _shown(picture: Picture, *, like: NDArray[np.uint8], probe: SegmentProbe) -> NDArray[np.floating]:
    """The film at the size of its masks, grey or colour, 0..1."""
    from dataclasses import replace

    if probe.settings.compare_at is not None:
        picture = replace(probe.reader.preparation, size=like.shape[0]).picture(picture)
    levels = picture.astype(np.float32)
    return levels / 255 if picture.dtype == np.uint8 else levels
