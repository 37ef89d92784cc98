import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dinov2.config.schema import Ibot
from dinov2.data.masking import draw_mask, mask_recipe, max_block_patches, spread, strata_keys


def recipe(*, size: int = 224, patch: int = 14, seed: int = 0, **ibot: object):
    return mask_recipe(Ibot(**ibot), crop_size=size, patch_size=patch, seed=seed)


@pytest.mark.parametrize(("size", "patch", "largest"), [(224, 14, 128), (224, 16, 98), (518, 14, 666), (512, 14, 658)])
def test_the_largest_block_is_the_public_number(size, patch, largest):
    assert max_block_patches(size, patch) == largest


@given(
    k=st.integers(0, 8),
    block=st.integers(0, 2**40),
    seed=st.integers(0, 2**63),
    crop=st.integers(0, 1),
)
def test_every_aligned_block_of_positions_has_one_number_in_each_stratum(k, block, seed, crop):
    start = block * 2**k
    numbers = [spread(position, keys=strata_keys(seed, crop)) for position in range(start, start + 2**k)]
    assert sorted(int(u * 2**k) for u in numbers) == list(range(2**k))


def test_the_numbers_of_one_place_in_the_batch_the_next_place_and_the_other_crop_are_unrelated():
    numbers = np.array(
        [[spread(p, keys=strata_keys(3, crop)) for p in range(8 * 2000)] for crop in (0, 1)],
    ).reshape(2, 2000, 8)
    first = numbers[0, :, 0]
    assert abs(first.mean() - 0.5) < 5 * 0.29 / np.sqrt(2000)
    assert np.histogram(first, bins=8, range=(0, 1))[0].min() > 150  # 250 expected
    for other in (numbers[1, :, 0], np.roll(first, 1), numbers[0, :, 5]):
        assert abs(np.corrcoef(first, other)[0, 1]) < 0.15


def test_half_of_each_crop_of_any_aligned_batch_is_masked_with_one_ratio_per_stratum():
    masks = recipe()
    for batch in range(20):
        for crop in (0, 1):
            targets = [masks.target(p, crop=crop) for p in range(8 * batch, 8 * batch + 8)]
            masked = sorted(t for t in targets if t > 0)
            assert len(masked) == 4
            edges = [int(256 * (0.1 + 0.4 * i / 4)) for i in range(5)]
            assert all(edges[i] <= masked[i] <= edges[i + 1] for i in range(4))


def test_masks_hide_the_target_or_a_few_patches_less_and_never_more():
    masks = recipe(mask_sample_probability=1.0)
    short = []
    for position in range(200):
        drawn = masks.masks(position, num_crops=2)
        assert drawn.shape == (2, 256)
        for crop in (0, 1):
            short.append(masks.target(position, crop=crop) - int(drawn[crop].sum()))
    assert min(short) >= 0
    assert np.mean(short) < 0.5
    assert max(short) <= 8


def test_a_mask_of_the_large_grid_keeps_to_its_target():
    rng = np.random.default_rng(0)
    drawn = [int(draw_mask((37, 37), 684, max_block_patches=666, rng=rng).sum()) for _ in range(50)]
    assert max(drawn) <= 684
    assert np.mean(drawn) > 683


def test_masks_are_blocks_and_not_single_patches():
    mask = draw_mask((16, 16), 100, max_block_patches=128, rng=np.random.default_rng(1))
    neighbours = (mask[:, 1:] & mask[:, :-1]).sum() + (mask[1:] & mask[:-1]).sum()
    assert neighbours > 1.4 * mask.sum()  # 100 patches strewn at random have about 0.76 each


def test_masks_depend_on_position_and_seed_and_on_nothing_else():
    again = [recipe().masks(p, num_crops=2) for p in (5, 6, 5)]
    assert np.array_equal(again[0], again[2])
    assert not np.array_equal(again[0], again[1])
    assert any(
        not np.array_equal(recipe().masks(p, num_crops=2), recipe(seed=1).masks(p, num_crops=2)) for p in range(4)
    )


@pytest.mark.parametrize("off", [{"loss_weight": 0.0}, {"mask_sample_probability": 0.0}])
def test_nothing_is_hidden_where_ibot_is_off(off):
    assert not any(recipe(**off).masks(p, num_crops=2).any() for p in range(16))


def test_every_crop_is_masked_where_the_probability_is_one():
    masks = recipe(mask_sample_probability=1.0)
    assert all(masks.target(p, crop=c) >= 25 for p in range(32) for c in (0, 1))
