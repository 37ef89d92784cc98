"""Two masks of a picture -> how far they overlap, per class; many pictures -> mean Dice.

In: class indices per pixel, 0 being background. Out: counts of pixels and surface distances, per class without
background. What is predicted on background is a false positive of its class.

Legend: H, W pixels, N pictures, C classes without background.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dinov2.eval.outcome import Segmentations

Pixels = NDArray[np.bool_]


@dataclass(frozen=True)
class Overlap:
    """Of one picture; entry i is mask value i + 1."""

    true_positives: NDArray[np.int64]  # [C]
    false_positives: NDArray[np.int64]  # [C]
    false_negatives: NDArray[np.int64]  # [C]
    hausdorff95: NDArray[np.float32]  # [C] in pixels; NaN where either mask is empty, or it was not asked for


def overlap(
    predicted: NDArray[np.integer], true: NDArray[np.integer], *, num_classes: int, distances: bool = True
) -> Overlap:
    """Counts over all pixels of masks [H, W]; `num_classes` leaves background out. Without `distances` no HD95.

    Raises:
        ValueError: masks of different sizes, or a value above `num_classes`.
    """
    if predicted.shape != true.shape:
        raise ValueError(
            f"masks of {predicted.shape} and {true.shape} pixels cannot be compared; bring them to one size"
        )
    side = num_classes + 1
    if max(int(predicted.max(initial=0)), int(true.max(initial=0))) >= side:
        raise ValueError(f"a mask holds {max(predicted.max(), true.max())}; classes go to {num_classes}")
    pairs = true.astype(np.int64).ravel() * side + predicted.astype(np.int64).ravel()
    confusion = np.bincount(pairs, minlength=side * side).reshape(side, side)  # [true, predicted]
    both = np.diag(confusion)[1:]
    said, there = confusion.sum(axis=0)[1:], confusion.sum(axis=1)[1:]
    far = np.full(num_classes, np.nan, dtype=np.float32)
    if distances:
        for i in range(num_classes):
            if said[i] and there[i]:
                far[i] = hausdorff95(predicted == i + 1, true == i + 1)
    return Overlap(both.copy(), said - both, there - both, far)


def hausdorff95(one: Pixels, other: Pixels) -> float:
    """The 95th percentile of distances from the rim of each mask to the other's, the larger of the two, in pixels.

    A rim is the pixels with a neighbour (of four) outside, the picture's edge being outside; as in MONAI. NaN where
    either mask is empty: there is no distance to nothing, and a made-up one would rule the mean.
    """
    from scipy.ndimage import binary_erosion, distance_transform_edt

    if not one.any() or not other.any():
        return float("nan")
    window = _window(one | other)
    rims = [mask[window] & ~binary_erosion(mask[window]) for mask in (one, other)]
    ways = (
        distance_transform_edt(~rims[1])[rims[0]],
        distance_transform_edt(~rims[0])[rims[1]],
    )
    return float(max(np.percentile(way, 95) for way in ways))


def dice_of(said: Segmentations) -> NDArray[np.float64]:
    """[N, C] 2 TP / (2 TP + FP + FN) per picture; NaN where a class is in neither mask."""
    both = 2 * said.true_positives
    return _share(both, both + said.false_positives + said.false_negatives)


def iou_of(said: Segmentations) -> NDArray[np.float64]:
    """[N, C] TP / (TP + FP + FN) per picture; NaN where a class is in neither mask."""
    return _share(said.true_positives, said.true_positives + said.false_positives + said.false_negatives)


def mean_dice(said: Segmentations) -> float:
    """Mean over pictures, then over classes; classes that are nowhere are left out. NaN where all are."""
    values = dice_of(said)
    counts = (~np.isnan(values)).sum(axis=0)
    if not counts.any():
        return float("nan")
    return float((np.nansum(values, axis=0)[counts > 0] / counts[counts > 0]).mean())


def _window(pixels: Pixels) -> tuple[slice, slice]:
    """The smallest rectangle around them: outside it lies no rim, so distances stay."""
    rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def _share(over: NDArray[np.int64], under: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.where(under > 0, over / np.maximum(under, 1), np.nan)
