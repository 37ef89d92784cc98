"""Probabilities of a square -> masks at the size at which they are compared -> overlap per picture or volume.

In: class probabilities [K, S, S] of prepared pictures, true masks. Out: `Segmentations`.

Legend: K classes with background, C without, S side of a prepared picture, H x W the mask's own size.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from dinov2.eval.examples import Examples, Mask
from dinov2.eval.outcome import Segmentations
from dinov2.eval.pictures import Preparation
from dinov2.eval.scores import overlap


@dataclass(frozen=True)
class MaskPair:
    """Of one picture, equally large."""

    predicted: Mask
    true: Mask


def mask_pair(
    probabilities: Tensor, true: Mask, *, preparation: Preparation, compare_at: int | None = None
) -> MaskPair:
    """[K, S, S] and a mask [H, W] -> both at H x W, or both prepared to a square of `compare_at` pixels.

    Probabilities are interpolated (bilinear) before the likeliest class is taken, so contours do not show the patch
    grid. What the square does not show of a picture counts as background: so the middle of a picture (fit "crop")
    pays for what it leaves out.
    """
    if compare_at is not None:
        predicted = _likeliest(_to(probabilities, height=compare_at, width=compare_at))
        return MaskPair(predicted, replace(preparation, size=compare_at).mask(true))
    placement = preparation.placement(*true.shape)
    box = _to(probabilities, height=placement.height, width=placement.width)
    rows, columns = placement.within
    shown = box[
        :,
        rows.start - placement.top : rows.stop - placement.top,
        columns.start - placement.left : columns.stop - placement.left,
    ]
    predicted = np.zeros(true.shape, dtype=np.uint8)
    predicted[rows, columns] = _likeliest(shown)
    return MaskPair(predicted, true)


def segmentations_of(
    examples: Examples, pairs: Iterable[MaskPair], *, groups: Sequence[str] = (), distances: bool = True
) -> Segmentations:
    """Overlap of every picture; of slices, one row per volume: pixels are summed, distances averaged over the slices.

    A volume has the patient and groups of its first slice.
    """
    found = [
        overlap(pair.predicted, pair.true, num_classes=len(examples.classes), distances=distances) for pair in pairs
    ]
    cases = np.arange(len(examples)).astype(np.str_) if examples.volumes is None else examples.volumes
    names, first, case_of = np.unique(cases, return_index=True, return_inverse=True)
    order = np.argsort(first)  # cases in the order in which they come
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    rows = place[case_of]
    firsts = first[order]
    return Segmentations(
        classes=examples.classes,
        ids=examples.ids[firsts] if examples.volumes is None else names[order],
        patients=examples.patients[firsts],
        true_positives=_summed([one.true_positives for one in found], rows),
        false_positives=_summed([one.false_positives for one in found], rows),
        false_negatives=_summed([one.false_negatives for one in found], rows),
        hausdorff95=_averaged([one.hausdorff95 for one in found], rows),
        groups={column: examples.group(column)[firsts] for column in groups},
    )


def _to(probabilities: Tensor, *, height: int, width: int) -> Tensor:
    if probabilities.shape[-2:] == (height, width):
        return probabilities
    return interpolate(probabilities.unsqueeze(0), size=(height, width), mode="bilinear", align_corners=False)[0]


def _likeliest(probabilities: Tensor) -> Mask:
    mask: Mask = probabilities.argmax(dim=0).to(torch.uint8).numpy()
    return mask


def _summed(counts: Sequence[NDArray[np.int64]], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    stacked = np.stack(counts)
    total = np.zeros((int(rows.max()) + 1, stacked.shape[1]), dtype=np.int64)
    np.add.at(total, rows, stacked)
    return total


def _averaged(values: Sequence[NDArray[np.float32]], rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Mean over slices of those that have a distance."""
    stacked = np.stack(values)
    known = np.isfinite(stacked)
    total, count = np.zeros((2, int(rows.max()) + 1, stacked.shape[1]))
    np.add.at(total, rows, np.where(known, stacked, 0))
    np.add.at(count, rows, known)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan).astype(np.float32)
