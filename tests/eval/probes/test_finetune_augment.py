"""Augmented pictures and masks."""

import numpy as np
import pytest

from dinov2.data.pixels import CropBox
from dinov2.eval.probes.finetune_augment import Augmentation, Draw, warp_mask
from tests.eval.probes.films import PREPARATION, SIZE, discs


@pytest.mark.parametrize("flip", [False, True])
def test_picture_and_mask_have_the_same_geometry(flip: bool) -> None:
    examples = discs(6, name="x", seed=5, height=160, width=120)
    augmentation = Augmentation(rotation_degrees=25, scale=(0.4, 0.9), flip=flip)
    agreed = []
    for row in range(6):
        mask = examples.reader.mask(row)
        drawn = np.where(mask == 1, 255, np.where(mask == 2, 0, 128)).astype(np.uint8)  # the mask as a picture
        picture, warped = augmentation(drawn, mask, preparation=PREPARATION, rng=np.random.default_rng(row))
        assert warped is not None
        assert picture.shape == warped.shape == (SIZE, SIZE)
        # bars are black, and so not judged; and neither is the half grey of an edge
        sure = (picture > 225) | ((picture > 100) & (picture < 150))
        agreed.append(((picture > 225) == (warped == 1))[sure].mean())
    assert np.mean(agreed) > 0.985
    assert min(agreed) > 0.96


def test_nothing_drawn_is_the_preparation_itself() -> None:
    examples = discs(1, name="x", seed=5)
    still = Augmentation(scale=(1.0, 1.0), ratio=(1.0, 1.0), rotation_degrees=0)
    picture, mask = examples.reader.picture(0), examples.reader.mask(0)
    found, found_mask = still(picture, mask, preparation=PREPARATION, rng=np.random.default_rng(0))
    assert np.abs(found.astype(int) - PREPARATION.picture(picture)).max() <= 1
    assert found_mask is not None
    assert np.array_equal(found_mask, PREPARATION.mask(mask))


def test_sides_stay_unless_mirroring_is_asked_for() -> None:
    examples = discs(1, name="x", seed=5)
    picture, mask = examples.reader.picture(0), examples.reader.mask(0)

    def bright_is_left(flip: bool, seed: int) -> bool:
        augmentation = Augmentation(flip=flip)
        _, warped = augmentation(picture, mask, preparation=PREPARATION, rng=np.random.default_rng(seed))
        assert warped is not None
        return bool(np.nonzero(warped == 1)[1].mean() < np.nonzero(warped == 2)[1].mean())

    assert all(bright_is_left(False, seed) for seed in range(20))
    assert 3 < sum(bright_is_left(True, seed) for seed in range(20)) < 17


def test_a_colour_picture_of_numbers_keeps_its_form_and_range() -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 2, (50, 40, 3)).astype(np.float32)
    found, mask = Augmentation()(picture, None, preparation=PREPARATION, rng=rng)
    assert found.shape == (SIZE, SIZE, 3)
    assert found.dtype == np.float32
    assert found.min() >= 0
    assert found.max() <= 1
    assert mask is None


def test_beyond_the_border_of_a_mask_lies_its_mirror_image() -> None:
    mask = np.zeros((9, 9), dtype=np.uint8)
    mask[:, :2] = 1
    turned = warp_mask(mask, Draw(CropBox(0, 0, 9, 9), 180.0, False), size=9)
    assert np.array_equal(turned, mask[::-1, ::-1])
