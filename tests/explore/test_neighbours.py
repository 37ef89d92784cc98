"""Neighbours are those of the definition: the largest cosines, the film itself left out."""

import numpy as np
import pytest

from dinov2.explore.neighbours import Neighbours, unit_length


def test_neighbours_are_the_largest_cosines_nearest_first() -> None:
    vectors = np.random.default_rng(0).normal(size=(700, 24)).astype(np.float32)
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    neighbours = Neighbours(vectors)
    all_rows, all_values = neighbours.of_all()
    for row in (0, 255, 699):
        cosines = units @ units[row]
        cosines[row] = -2
        rows, values = neighbours.of(row)
        np.testing.assert_array_equal(rows, np.argsort(-cosines)[:12])
        np.testing.assert_allclose(values, np.sort(cosines)[::-1][:12], rtol=1e-5)
        np.testing.assert_array_equal(rows, all_rows[row])
        np.testing.assert_allclose(values, all_values[row], rtol=1e-5)


@pytest.mark.parametrize("num", [1, 2, 13])
def test_of_few_films_all_others_are_neighbours(num: int) -> None:
    rows, _ = Neighbours(np.random.default_rng(0).normal(size=(num, 3)).astype(np.float32)).of(0)
    assert sorted(rows) == list(range(1, num))[:12]


def test_zeros_huge_and_tiny_vectors_have_finite_cosines() -> None:
    vectors = np.array([[0, 0], [3e30, 3e30], [1e-30, 1e-30], [1, 1]], dtype=np.float32)
    rows, values = Neighbours(vectors).of(3)
    assert np.isfinite(values).all()
    assert rows[0] == 1
    np.testing.assert_allclose(np.linalg.norm(unit_length(vectors[1:2]), axis=1), 1, rtol=1e-6)
