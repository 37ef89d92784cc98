"""Pictures of any size become the square that a backbone takes, and masks follow."""

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from dinov2.errors import ConfigError
from dinov2.eval.pictures import FITS, Preparation, preparation_for
from tests.eval.pictures.made import small_backbone

MEAN, STD = (0.5, 0.5, 0.5), (0.2, 0.2, 0.2)


def prepared(fit: str, *, size: int = 32) -> Preparation:
    return Preparation(size=size, fit=fit, mean=MEAN, std=STD)  # type: ignore[arg-type]


def smooth(height: int, width: int) -> NDArray[np.uint8]:
    y, x = np.mgrid[:height, :width]
    waves = 0.5 + 0.25 * np.sin(y / 9) + 0.25 * np.cos(x / 13)
    return (255 * waves).astype(np.uint8)


def test_the_crop_is_the_middle_of_the_picture() -> None:
    picture = np.zeros((40, 100), dtype=np.uint8)
    picture[:, 30:70] = 200
    assert (prepared("crop").picture(picture) == 200).all()


def test_bars_are_black_and_the_picture_keeps_its_proportions() -> None:
    square = prepared("letterbox").picture(np.full((40, 80), 200, dtype=np.uint8))
    assert (square[:7] == 0).all()
    assert (square[-7:] == 0).all()
    assert (square[9:-9] == 200).all()


def test_squash_shows_all_of_the_picture() -> None:
    picture = np.zeros((40, 100), dtype=np.uint8)
    picture[:20, :50] = 200
    square = prepared("squash").picture(picture)
    assert square[:15, :15].min() > 190
    assert square[18:].max() < 10


def test_a_reduction_does_not_alias_and_comes_near_pillow() -> None:
    rng = np.random.default_rng(0)
    picture = np.clip(smooth(200, 200) + rng.normal(0, 20, (200, 200)), 0, 255).astype(np.uint8)
    ours = prepared("squash", size=64).picture(picture).astype(float)
    pillow = np.asarray(Image.fromarray(picture).resize((64, 64), Image.Resampling.BICUBIC)).astype(float)
    assert np.abs(ours - pillow).mean() < 3
    lines = np.zeros((200, 200), dtype=np.uint8)
    lines[:, ::2] = 200
    assert prepared("squash", size=64).picture(lines).std() < 25  # of the lines themselves: 100


def test_numbers_between_0_and_1_give_what_8_bits_give() -> None:
    levels = smooth(90, 70)
    for fit in FITS:
        as_levels = prepared(fit).picture(levels).astype(float) / 255
        as_numbers = prepared(fit).picture(levels.astype(np.float32) / 255)
        assert as_numbers.dtype == np.float32
        assert np.abs(as_levels - as_numbers).max() < 3 / 255
        assert 0 <= as_numbers.min() <= as_numbers.max() <= 1


def test_colour_is_prepared_channel_by_channel() -> None:
    channels = [smooth(60, 50), smooth(60, 50)[::-1].copy(), smooth(60, 50)[:, ::-1].copy()]
    square = prepared("letterbox").picture(np.stack(channels, axis=-1))
    for place, channel in enumerate(channels):
        np.testing.assert_array_equal(square[..., place], prepared("letterbox").picture(channel))


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("shape", [(100, 60), (60, 100), (31, 31), (20, 77)])
def test_a_mask_stays_on_what_it_marks(fit: str, shape: tuple[int, int]) -> None:
    mask = np.zeros(shape, dtype=np.uint8)
    mask[shape[0] // 4 : shape[0] // 2, shape[1] // 3 : shape[1] // 2] = 1
    square = prepared(fit, size=64).picture(mask * 255)
    marked = prepared(fit, size=64).mask(mask)
    assert set(np.unique(marked)) <= {0, 1}
    agree = (square > 127) == (marked == 1)
    assert agree.mean() > 0.97
    assert marked.sum() > 0


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("shape", [(100, 60), (60, 100), (64, 64), (41, 43)])
def test_a_mask_comes_back_to_the_picture_where_the_square_shows_it(fit: str, shape: tuple[int, int]) -> None:
    y, x = np.mgrid[: shape[0], : shape[1]]
    mask = ((y - shape[0] / 2) ** 2 + (x - shape[1] / 2) ** 2 < (min(shape) / 3) ** 2).astype(np.uint8)
    preparation = prepared(fit, size=256)
    placement = preparation.placement(*shape)
    back = placement.bring_back(preparation.mask(mask))
    np.testing.assert_array_equal(back, mask)


def test_what_the_crop_leaves_out_comes_back_as_background() -> None:
    placement = prepared("crop", size=8).placement(4, 10)
    back = placement.bring_back(np.ones((8, 8), dtype=np.uint8))
    np.testing.assert_array_equal(back[0], [0, 0, 0, 1, 1, 1, 1, 0, 0, 0])


def test_a_size_between_two_patches_is_refused_with_its_neighbours() -> None:
    traits = small_backbone().traits
    with pytest.raises(ConfigError, match="multiples of 14 px, such as 28 or 42"):
        preparation_for(traits, size=30, fit="crop")
    assert preparation_for(traits, size=56, fit="crop").size == 56
    assert preparation_for(traits, size=None, fit="crop").size == 28


def test_another_fit_and_another_kind_of_picture_are_refused() -> None:
    with pytest.raises(ConfigError, match="crop, letterbox, squash"):
        prepared("stretch")
    with pytest.raises(ValueError, match="uint8 or float32"):
        prepared("crop").picture(np.zeros((4, 4), dtype=np.uint16))
