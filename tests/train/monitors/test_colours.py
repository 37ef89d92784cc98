"""Colours of patch tokens: the three largest components, and steady from look to look."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from dinov2.train.monitors.colours import aligned, coloured, principal_components

GRID = (6, 6)


def tokens_of(seed: int = 0, *, films: int = 4, width: int = 16) -> torch.Tensor:
    """Three smooth maps of clearly different size, in random directions, and a little noise."""
    rng = np.random.default_rng(seed)
    down, across = np.mgrid[0:1:6j, 0:1:6j].reshape(2, -1)
    maps = np.stack([4 * (down - 0.5), 3 * np.cos(7 * across), 2 * np.sin(9 * down * across)], axis=1)
    maps = maps[None] * rng.uniform(0.8, 1.2, (films, 1, 3))
    axes = np.linalg.qr(rng.normal(size=(width, 3)))[0]
    return torch.from_numpy(maps @ axes.T + 0.01 * rng.normal(size=(films, 36, width)) + 5).float()


def test_components_are_those_of_scikit_learn_up_to_sign_and_scale() -> None:
    tokens = tokens_of().flatten(0, 1)
    theirs = PCA(3).fit_transform(tokens.numpy())
    theirs /= theirs.std(axis=0)
    ours = principal_components(tokens)
    signs = np.sign((ours * theirs).sum(axis=0))
    np.testing.assert_allclose(ours * signs, theirs, atol=2e-3)


def test_the_same_tokens_turned_and_mirrored_keep_their_colours() -> None:
    """What a network may do between two looks without changing what it sees."""
    tokens = tokens_of()
    before = coloured(tokens, grid=GRID, before=None)
    turn = torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(1))).Q
    for turned in (-tokens, tokens @ turn, 0.1 * tokens + 3):
        steady = coloured(turned, grid=GRID, before=before)
        assert np.abs(steady.astype(int) - before).max() <= 2


def test_components_that_change_places_do_not_change_colours() -> None:
    before = coloured(tokens_of(), grid=GRID, before=None)
    tokens = tokens_of()
    _, _, axes = torch.pca_lowrank(tokens.flatten(0, 1), q=3, niter=8)
    second = axes[:, 1:2]
    swapped = coloured(tokens + 3 * (tokens - 5) @ second @ second.T, grid=GRID, before=before)
    near = np.corrcoef(swapped.reshape(-1, 3).T, before.reshape(-1, 3).T)[:3, 3:]
    assert (np.diag(near) > 0.95).all()
    assert np.abs(near - np.diag(np.diag(near))).max() < 0.3


def test_alignment_is_a_turn_and_leaves_distances_as_they_are() -> None:
    components = principal_components(tokens_of().flatten(0, 1))
    target = np.random.default_rng(0).integers(0, 256, components.shape, dtype=np.uint8)
    turned = aligned(components, to=target)
    np.testing.assert_allclose(turned @ turned.T, components @ components.T, atol=1e-3)


def test_every_channel_uses_its_whole_range() -> None:
    colours = coloured(tokens_of(), grid=GRID, before=None)
    assert colours.shape == (4, 6, 6, 3)
    assert colours.dtype == np.uint8
    for channel in range(3):
        assert (colours[..., channel].min(), colours[..., channel].max()) == (0, 255)


@pytest.mark.parametrize(
    "tokens", [torch.zeros(2, 36, 8), torch.full((2, 36, 8), 3.7), torch.full((2, 36, 8), torch.nan)]
)
def test_tokens_that_say_nothing_are_grey(tokens: torch.Tensor) -> None:
    before = coloured(tokens_of(films=2), grid=GRID, before=None)
    for earlier in (None, before):
        assert np.unique(coloured(tokens, grid=GRID, before=earlier)).tolist() == [128]


def test_colours_after_grey_ones_are_found_anew() -> None:
    grey = np.full((4, *GRID, 3), 128, dtype=np.uint8)
    assert np.ptp(coloured(tokens_of(), grid=GRID, before=grey)) == 255


def test_colours_of_another_grid_do_not_count() -> None:
    other = np.zeros((4, 3, 3, 3), dtype=np.uint8)
    fresh = coloured(tokens_of(), grid=GRID, before=None)
    assert np.array_equal(coloured(tokens_of(), grid=GRID, before=other), fresh)


def test_a_width_below_three_leaves_channels_grey() -> None:
    colours = coloured(tokens_of()[..., :2], grid=GRID, before=None)
    assert np.ptp(colours[..., 0]) == 255
    assert np.unique(colours[..., 2]).tolist() == [128]
