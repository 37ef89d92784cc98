import numpy as np
import pytest

from dinov2.preview import count_masks, mask_page, mask_sheet
from dinov2.preview.masks import heat, histogram, in_words, piece_map
from tests.preview.conftest import maker_of

NUM_FILMS = 128


def test_the_counts_are_those_of_the_masks_that_a_run_draws(manifest):
    recipe = maker_of(manifest).masks
    counts = count_masks(recipe, num_films=NUM_FILMS)
    masks = np.concatenate([recipe.masks(position, num_crops=2) for position in range(NUM_FILMS)])
    masked = masks[masks.any(axis=1)]
    assert counts.num_crops == len(masks)
    assert np.allclose(np.sort(counts.shares), np.sort(masked.mean(axis=1)))
    assert np.allclose(counts.often.ravel(), masked.mean(axis=0))
    assert counts.masked_per_film.sum() == len(masked)


def test_what_was_asked_is_what_is_found(manifest):
    counts = count_masks(maker_of(manifest).masks, num_films=NUM_FILMS)
    assert counts.num_masked == NUM_FILMS  # half of two crops a film
    assert counts.masked_in_batches(32) == (32, 32)
    assert counts.masked_in_batches(NUM_FILMS + 1) is None
    assert counts.shares.max() <= 0.5
    assert (counts.targets >= counts.shares).all()


def test_pieces_hang_together(manifest):
    counts = count_masks(maker_of(manifest).masks, num_films=NUM_FILMS)
    assert counts.pieces_per_crop.sum() == len(counts.pieces)
    assert counts.pieces.min() >= 1
    assert counts.pieces.max() <= 8
    placed = piece_map(counts, grid=(8, 8))
    tallest = counts.pieces[:, 0].max()
    assert placed[8 - tallest].any()  # the tallest piece is the highest row that is not empty
    assert not placed[: 8 - tallest].any()


def test_every_masked_crop_is_in_a_bar(manifest):
    counts = count_masks(maker_of(manifest).masks, num_films=NUM_FILMS)
    told = [int(bar.about.rsplit(":")[1].split()[0]) for bar in histogram(counts, ratio=(0.1, 0.5)).bars]
    assert sum(told) == counts.num_masked


@pytest.mark.parametrize("ratio", [(0.3, 0.3), (0.0, 1.0)])
def test_narrow_and_wide_ranges_have_a_histogram_too(manifest, ratio):
    counts = count_masks(maker_of(manifest, mask_ratio_min_max=ratio).masks, num_films=32)
    found = histogram(counts, ratio=ratio)
    assert all(0 <= bar.height <= 190 for bar in found.bars)
    assert 0 <= found.low <= found.high <= 460


def test_the_page_shows_both_crops_of_a_film_and_the_counts(manifest):
    maker = maker_of(manifest)
    counts = count_masks(maker.masks, num_films=NUM_FILMS)
    text = mask_page(maker, range(3), counts, preset="cxr", batch_size=32, command="a command")
    assert text.count("<figure") == 6
    assert "<b>50 %</b>" in text
    assert "masked crops in a batch of 32 films; asked 32" in text
    assert "<script" not in text


def test_a_run_without_masks_says_why(manifest):
    maker = maker_of(manifest, loss_weight=0.0)
    counts = count_masks(maker.masks, num_films=8)
    assert "Nothing is hidden" in mask_page(maker, range(1), counts, preset="cxr", batch_size=4, command="a command")
    assert in_words(counts) == "0.0 % of 16 global crops masked"


def test_the_picture_has_a_row_for_every_three_films(manifest):
    maker = maker_of(manifest)
    counts = count_masks(maker.masks, num_films=8)
    one, two = (mask_sheet(maker, range(rows), counts) for rows in (3, 4))
    assert one.shape[1] == two.shape[1]
    assert two.shape[0] > 1.5 * one.shape[0]


def test_the_most_is_opaque_and_nothing_is_not_there():
    colours = heat(np.array([[0.0, 2.0]]))
    assert colours[0, :, 3].tolist() == [0, 255]
    assert colours[0, 0, :3].tolist() == colours[0, 1, :3].tolist()
