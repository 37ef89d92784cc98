"""Batches come in order, whatever the workers, and end with them."""

import multiprocessing
import time
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dinov2.errors import ConfigError, ManifestError
from dinov2.eval.examples import Mask, Picture
from dinov2.eval.pictures import Preparation, batches
from tests.eval.pictures.made import examples_of, noise

PREPARATION = Preparation(size=14, fit="crop", mean=(0.1, 0.2, 0.3), std=(0.5, 0.4, 0.3))


@pytest.mark.parametrize("workers", [0, 2])
def test_workers_give_every_picture_once_in_order(workers: int) -> None:
    pictures = noise(11)
    found = list(batches(examples_of(pictures), preparation=PREPARATION, batch_size=4, workers=workers))
    assert [len(batch) for batch in found] == [4, 4, 3]
    assert np.concatenate([batch.rows for batch in found]).tolist() == list(range(11))
    together = torch.cat([batch.pictures for batch in found])
    for row, picture in enumerate(pictures):
        np.testing.assert_array_equal(together[row, 0], PREPARATION.picture(picture))


def test_a_batch_of_one_picture_keeps_its_dimension() -> None:
    (batch,) = batches(examples_of(noise(1)), preparation=PREPARATION, batch_size=8, workers=0)
    assert batch.normalised("cpu").shape == (1, 3, 14, 14)


def test_rows_are_given_in_the_order_asked_for() -> None:
    found = list(batches(examples_of(noise(6)), preparation=PREPARATION, batch_size=2, workers=0, rows=[5, 0, 3]))
    assert [batch.rows.tolist() for batch in found] == [[5, 0], [3]]
    assert list(batches(examples_of(noise(6)), preparation=PREPARATION, batch_size=2, workers=2, rows=[])) == []


def test_pictures_are_normalised_by_the_backbones_mean_and_deviation() -> None:
    white = np.full((20, 20), 255, dtype=np.uint8)
    (batch,) = batches(examples_of([white]), preparation=PREPARATION, batch_size=1, workers=0)
    values = batch.normalised("cpu")[0, :, 0, 0]
    torch.testing.assert_close(values, torch.tensor([0.9 / 0.5, 0.8 / 0.4, 0.7 / 0.3]))


def test_grey_colour_and_numbers_go_into_one_batch() -> None:
    grey = np.full((20, 20), 51, dtype=np.uint8)
    colour = np.stack([grey, grey * 2, grey * 3], axis=-1)
    numbers = np.full((20, 20), 0.6, dtype=np.float32)
    (batch,) = batches(examples_of([grey, colour, numbers]), preparation=PREPARATION, batch_size=3, workers=0)
    assert batch.pictures.shape == (3, 3, 14, 14)
    torch.testing.assert_close(batch.pictures[1, :, 7, 7], torch.tensor([0.2, 0.4, 0.6]))
    torch.testing.assert_close(batch.pictures[2, :, 7, 7], torch.tensor([0.6, 0.6, 0.6]))


def test_masks_come_with_their_pictures() -> None:
    pictures = noise(3)
    masks = [(picture > 60).astype(np.uint8) for picture in pictures]
    examples = examples_of(pictures, masks=masks, task="segmentation")
    (batch,) = batches(examples, preparation=PREPARATION, batch_size=3, workers=0, masks=True)
    assert batch.masks is not None
    np.testing.assert_array_equal(batch.masks[2], PREPARATION.mask(masks[2]))


def test_a_mask_of_another_size_than_its_picture_is_refused() -> None:
    examples = examples_of(noise(1), masks=[np.zeros((5, 6), dtype=np.uint8)], task="segmentation")
    with pytest.raises(ManifestError, match="its mask is 6 x 5 pixels, the picture 28 x 28"):
        list(batches(examples, preparation=PREPARATION, batch_size=1, workers=0, masks=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_picture_that_cannot_be_read_is_one_error_that_names_its_row(workers: int) -> None:
    examples = examples_of(noise(7), unreadable=[5])
    with pytest.raises(ManifestError) as caught:
        list(batches(examples, preparation=PREPARATION, batch_size=2, workers=workers))
    assert "films, row 5" in str(caught.value)
    assert "film5.png: does not decode" in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_closing_the_batches_ends_their_workers() -> None:
    before = set(multiprocessing.active_children())
    opened = batches(examples_of(noise(40)), preparation=PREPARATION, batch_size=2, workers=2)
    next(opened)
    workers = set(multiprocessing.active_children()) - before
    assert len(workers) == 2
    opened.close()
    for _ in range(100):
        if not any(worker.is_alive() for worker in workers):
            break
        time.sleep(0.05)
    assert not any(worker.is_alive() for worker in workers)


def test_reading_leaves_the_random_numbers_of_the_process_alone() -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    list(batches(examples_of(noise(5)), preparation=PREPARATION, batch_size=2, workers=2))
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_batch_size_of_zero_is_refused() -> None:
    with pytest.raises(ConfigError, match="--batch-size 0"):
        list(batches(examples_of(noise(2)), preparation=PREPARATION, batch_size=0, workers=0))


def turned(
    picture: Picture, mask: Mask | None, *, preparation: Preparation, rng: np.random.Generator
) -> tuple[NDArray[Any], Mask | None]:
    """Quarter turns by chance."""
    turns = int(rng.integers(4))
    square = np.rot90(preparation.picture(picture), turns).copy()
    return square, None if mask is None else np.rot90(preparation.mask(mask), turns).copy()


def test_what_is_drawn_for_a_picture_depends_on_the_seed_and_not_on_the_workers() -> None:
    pictures = noise(12)
    examples = examples_of(pictures, masks=[(picture > 60).astype(np.uint8) for picture in pictures])

    def drawn(*, workers: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        found = list(
            batches(
                examples,
                preparation=PREPARATION,
                batch_size=5,
                workers=workers,
                masks=True,
                augment=turned,
                seed=seed,
            )
        )
        masks = [batch.masks for batch in found if batch.masks is not None]
        return torch.cat([batch.pictures for batch in found]), torch.cat(masks)

    first, again, other = drawn(workers=0, seed=1), drawn(workers=2, seed=1), drawn(workers=0, seed=2)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
