import numpy as np
import pytest

from dinov2.preview.reduction import codes_of, colours_of


def tokens(*, films: int = 3, patches: int = 64, width: int = 96, rank: int = 10, offset: float = 2.0) -> np.ndarray:
    """Of a few directions and a mean that is not 0."""
    rng = np.random.default_rng(0)
    flat = rng.normal(size=(films * patches, rank)) @ rng.normal(size=(rank, width)) + offset * rng.normal(size=width)
    return flat.reshape(films, patches, width).astype(np.float32)


def cosines(found: np.ndarray, film: int, patch: int) -> np.ndarray:
    unit = found / np.linalg.norm(found, axis=-1, keepdims=True)
    return unit @ unit[film, patch]


@pytest.mark.parametrize("offset", [0.0, 2.0, 50.0])
def test_similarities_of_the_codes_are_those_of_the_tokens(offset):
    found = tokens(offset=offset)
    codes = codes_of(found)
    for film, patch in ((0, 0), (2, 40)):
        assert np.abs(codes.similarity(film, patch) - cosines(found, film, patch)).max() < 0.02
    assert codes.typical_error <= codes.large_error < 0.02
    assert codes.share > 0.999


def test_without_the_mean_similarities_are_those_of_centred_unit_tokens():
    found = tokens()
    unit = found / np.linalg.norm(found, axis=-1, keepdims=True)
    expected = cosines(unit - unit.mean(axis=(0, 1)), 1, 5)
    assert np.abs(codes_of(found).similarity(1, 5, centred=True) - expected).max() < 0.03


def test_what_few_dimensions_lose_is_told():
    rng = np.random.default_rng(1)
    found = rng.normal(size=(2, 200, 128)).astype(np.float32)
    whole, small = codes_of(found), codes_of(found, most=8)
    assert small.codes.shape == (2, 200, 8)
    assert small.share < whole.share < 1
    assert small.typical_error > whole.typical_error


def test_colours_are_one_basis_over_all_films():
    found = tokens()
    found[2] = found[0]
    colours = colours_of(found)
    assert np.array_equal(colours.colours[0], colours.colours[2])
    assert not np.array_equal(colours.colours[0], colours.colours[1])
    assert colours.colours.reshape(-1, 3).min(axis=0).tolist() == [0, 0, 0]
    assert colours.colours.reshape(-1, 3).max(axis=0).tolist() == [255, 255, 255]
    assert list(colours.shares) == sorted(colours.shares, reverse=True)


@pytest.mark.parametrize("shape", [(1, 1, 32), (1, 2, 32), (2, 4, 2)])
def test_few_patches_and_narrow_tokens_are_drawn_too(shape):
    found = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    assert colours_of(found).colours.shape == (*shape[:2], 3)
    assert np.isfinite(codes_of(found).similarity(0, 0)).all()


def test_tokens_that_are_all_the_same_are_similar():
    found = np.ones((2, 9, 16), dtype=np.float32)
    assert np.allclose(codes_of(found).similarity(0, 0), 1, atol=1e-4)
    assert colours_of(found).colours.shape == (2, 9, 3)
