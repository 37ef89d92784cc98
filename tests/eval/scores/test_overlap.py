"""Overlap of masks, by cases that can be computed by hand."""

import numpy as np
import pytest
from numpy.typing import NDArray

from dinov2.eval.outcome import Segmentations
from dinov2.eval.scores import MACRO, Overlap, hausdorff95, mean_dice, overlap, score
from dinov2.eval.scores.overlap import dice_of, iou_of
from tests.eval.scores.made import segmentations


def square(top: int, left: int, side: int, *, value: int = 1, size: int = 16) -> NDArray[np.uint8]:
    mask = np.zeros((size, size), np.uint8)
    mask[top : top + side, left : left + side] = value
    return mask


def as_pictures(*found: Overlap, classes: tuple[str, ...] = ("lesion",)) -> Segmentations:
    return Segmentations(
        classes=classes,
        ids=np.asarray([str(i) for i in range(len(found))]),
        patients=np.asarray([str(i) for i in range(len(found))]),
        true_positives=np.stack([one.true_positives for one in found]),
        false_positives=np.stack([one.false_positives for one in found]),
        false_negatives=np.stack([one.false_negatives for one in found]),
        hausdorff95=np.stack([one.hausdorff95 for one in found]),
    )


def test_false_positives_on_background_are_counted() -> None:
    """16 pixels of object and 16 false positives beside it: IoU is 0.5 and not 1."""
    true = square(0, 0, 4)
    predicted = true + square(8, 8, 4)
    said = as_pictures(overlap(predicted, true, num_classes=1))
    assert iou_of(said)[0, 0] == pytest.approx(0.5)
    assert dice_of(said)[0, 0] == pytest.approx(2 / 3)
    card = score(said, draws=10)
    assert card.find("iou").value == pytest.approx(0.5)
    assert card.find("pooled_iou").value == pytest.approx(0.5)


def test_a_pixel_of_the_wrong_class_is_a_false_positive_and_a_false_negative() -> None:
    found = overlap(square(0, 0, 2, value=2), square(0, 0, 2, value=1), num_classes=3)
    assert found.true_positives.tolist() == [0, 0, 0]
    assert found.false_positives.tolist() == [0, 4, 0]
    assert found.false_negatives.tolist() == [4, 0, 0]


def test_a_class_in_neither_mask_is_left_out_and_one_in_the_prediction_alone_is_zero() -> None:
    empty, there = np.zeros((16, 16), np.uint8), square(0, 0, 4)
    perfect, nothing = overlap(there, there, num_classes=1), overlap(empty, empty, num_classes=1)
    assert mean_dice(as_pictures(perfect, nothing)) == 1.0
    assert mean_dice(as_pictures(perfect, overlap(there, empty, num_classes=1))) == 0.5
    assert np.isnan(mean_dice(as_pictures(nothing)))


def test_a_class_that_is_nowhere_is_named_and_in_no_mean() -> None:
    there = square(0, 0, 4)
    said = as_pictures(*[overlap(there, there, num_classes=2)] * 3, classes=("lungs", "heart"))
    card = score(said, draws=10)
    assert card.absent == ("heart",)
    assert card.find("dice").value == 1.0
    assert any("heart" in remark for remark in card.remarks)
    assert mean_dice(said) == 1.0


def test_hd95_of_a_shifted_square_is_the_shift() -> None:
    assert hausdorff95(square(2, 2, 6) > 0, square(2, 2, 6) > 0) == 0.0
    assert hausdorff95(square(2, 2, 6) > 0, square(2, 5, 6) > 0) == 3.0


def test_hd95_is_the_larger_of_the_two_ways_and_forgives_five_in_a_hundred() -> None:
    one = square(0, 0, 1, size=64) > 0
    two = one.copy()
    two[0, 40] = True
    assert hausdorff95(one, two) == pytest.approx(0.95 * 40)  # two pixels, 0 and 40 away: the percentile between them
    assert hausdorff95(two, one) == hausdorff95(one, two)
    blob = square(10, 10, 20, size=64) > 0
    spotted = blob.copy()
    spotted[60, 60] = True  # one pixel of 77 on the rim
    assert hausdorff95(spotted, blob) == 0.0


def test_hd95_agrees_with_distances_between_all_pixels_of_the_rims() -> None:
    from scipy.ndimage import binary_erosion, gaussian_filter
    from scipy.spatial.distance import cdist

    rng = np.random.default_rng(0)
    one, two = (gaussian_filter(rng.normal(size=(40, 50)), 4) > 0.02 for _ in range(2))
    rims = [np.argwhere(mask & ~binary_erosion(mask)) for mask in (one, two)]
    far = cdist(*rims)
    expected = max(np.percentile(far.min(axis=1), 95), np.percentile(far.min(axis=0), 95))
    assert hausdorff95(one, two) == pytest.approx(expected)


def test_hd95_to_an_empty_mask_is_not_a_number_and_the_card_says_how_many() -> None:
    there, empty = square(0, 0, 4), np.zeros((16, 16), np.uint8)
    missed = overlap(empty, there, num_classes=1)
    assert np.isnan(missed.hausdorff95[0])
    card = score(as_pictures(missed, overlap(there, there, num_classes=1)), draws=10)
    assert card.find("hausdorff95").value == 0.0
    assert any("HD95" in remark and "lesion 1" in remark for remark in card.remarks)


def test_hd95_can_be_left_out() -> None:
    found = overlap(square(0, 0, 4), square(0, 0, 4), num_classes=1, distances=False)
    assert np.isnan(found.hausdorff95).all()
    assert not any("HD95" in remark for remark in score(as_pictures(found), draws=5).remarks)


def test_masks_of_different_sizes_or_unknown_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        overlap(np.zeros((4, 4), np.uint8), np.zeros((4, 5), np.uint8), num_classes=1)
    with pytest.raises(ValueError, match="classes go to 1"):
        overlap(square(0, 0, 2, value=7), square(0, 0, 2), num_classes=1)


def test_dice_is_a_mean_over_pictures_and_also_pooled_over_their_pixels() -> None:
    said = segmentations()
    card = score(said, draws=20)
    tp, fp, fn = (counts[:, 0] for counts in (said.true_positives, said.false_positives, said.false_negatives))
    assert card.find("dice", "lungs").value == pytest.approx((2 * tp / (2 * tp + fp + fn)).mean())
    assert card.find("pooled_dice", "lungs").value == pytest.approx(2 * tp.sum() / (2 * tp + fp + fn).sum())
    assert card.find("dice", MACRO).value == pytest.approx(mean_dice(said))
    assert card.find("dice", "heart").num_positive == int((np.arange(40) % 3 > 0).sum())
