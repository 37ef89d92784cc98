import numpy as np
import pytest

from dinov2.data.stream import MAX_GUARD, SampleStream, batch_positions
from dinov2.errors import ManifestError


def rows(num_pictures: int, positions: range, *, seed: int = 0) -> list[int]:
    stream = SampleStream(num_pictures, seed=seed)
    return [stream.row(position) for position in positions]


@pytest.mark.parametrize("num_pictures", [1, 2, 3, 7, 100])
def test_every_pass_holds_every_picture_once(num_pictures):
    for number in range(4):
        seen = rows(num_pictures, range(number * num_pictures, (number + 1) * num_pictures))
        assert sorted(seen) == list(range(num_pictures))


def test_each_pass_has_an_order_of_its_own_and_so_has_each_seed():
    first, second = rows(50, range(50)), rows(50, range(50, 100))
    assert first != second
    assert first != rows(50, range(50), seed=1)
    assert first != sorted(first)


def test_a_position_means_the_same_picture_however_one_comes_to_it():
    in_order = rows(31, range(200))
    stream = SampleStream(31, seed=0)
    jumping = {p: stream.row(p) for p in (199, 0, 100, 31, 30, 62, 61, 150)}
    assert all(in_order[p] == row for p, row in jumping.items())


@pytest.mark.parametrize("num_pictures", [9, 10, 31, 100])
def test_no_picture_comes_twice_in_a_batch_of_up_to_a_third_of_the_pictures_even_across_passes(num_pictures):
    size = num_pictures // 3
    seen = rows(num_pictures, range(6 * num_pictures))
    for start in range(len(seen) - size):
        window = seen[start : start + size]
        assert len(set(window)) == size, start


def test_the_guard_is_bounded_so_that_a_large_set_stays_shuffled():
    stream = SampleStream(100_000, seed=0)
    assert stream.guard == MAX_GUARD
    order = np.array([stream.row(100_000 + i) for i in range(100_000)])
    # places and pictures are unrelated: the correlation of n = 100,000 pairs is below 5 / sqrt(n)
    assert abs(np.corrcoef(order, np.arange(100_000))[0, 1]) < 5 / np.sqrt(100_000)


def test_the_ranks_parts_of_a_batch_are_the_batch():
    whole = list(batch_positions(7, batch_size=8, rank=0, num_ranks=1))
    parts = [p for rank in range(4) for p in batch_positions(7, batch_size=2, rank=rank, num_ranks=4)]
    assert parts == whole == list(range(56, 64))


def test_no_pictures_is_refused():
    with pytest.raises(ManifestError, match=r"training needs 1 to .* pictures, got 0"):
        SampleStream(0, seed=0)
