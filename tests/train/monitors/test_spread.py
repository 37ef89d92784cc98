"""Numbers of the spread of features, on features whose answer is known."""

import math

import pytest
import torch
from torch.nn.functional import normalize

from dinov2.train.monitors.spread import effective_dimension, mean_cosine, patch_smoothness, rankme


def features_of_rank(rank: int, *, count: int = 64, width: int = 24) -> torch.Tensor:
    """Equal singular values along `rank` directions of a random basis."""
    basis = torch.linalg.qr(torch.randn(width, width, generator=torch.Generator().manual_seed(0)))[0][:rank]
    left = torch.linalg.qr(torch.randn(count, rank, generator=torch.Generator().manual_seed(1)))[0]
    return left @ basis


@pytest.mark.parametrize("rank", [1, 5, 24])
def test_rankme_of_equal_singular_values_is_their_number(rank: int) -> None:
    assert rankme(features_of_rank(rank)) == pytest.approx(rank, rel=1e-3)


def test_rankme_is_the_formula_of_the_paper_and_the_same_for_few_pictures_as_for_many_dimensions() -> None:
    features = torch.randn(20, 30, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    values = torch.linalg.svdvals(features)
    share = values / values.sum() + 1e-7
    expected = float(torch.exp(-(share * share.log()).sum()))
    assert rankme(features) == pytest.approx(expected, rel=1e-9)
    assert rankme(features.T) == pytest.approx(expected, rel=1e-9)
    assert rankme(7 * features) == pytest.approx(expected, rel=1e-9), "it knows no scale"


def test_a_backbone_that_answers_every_picture_alike_has_rank_one_and_cosine_one() -> None:
    alike = torch.randn(1, 16, generator=torch.Generator().manual_seed(3)).repeat(50, 1)
    assert rankme(alike) == pytest.approx(1.0, abs=1e-3)
    assert mean_cosine(alike) == pytest.approx(1.0, abs=1e-6)


def test_the_effective_dimension_does_not_count_what_all_pictures_share() -> None:
    features = features_of_rank(3)
    features = features - features.mean(dim=0)
    shifted = features + 100 * torch.ones(24)
    assert effective_dimension(shifted) == pytest.approx(effective_dimension(features), rel=1e-3)
    assert effective_dimension(torch.eye(8) - 1 / 8) == pytest.approx(7, rel=1e-6)


def test_the_mean_cosine_is_that_of_all_pairs_of_different_pictures() -> None:
    features = torch.randn(9, 5, generator=torch.Generator().manual_seed(4))
    units = normalize(features, dim=1)
    pairs = [float(units[i] @ units[j]) for i in range(9) for j in range(9) if i != j]
    assert mean_cosine(features) == pytest.approx(sum(pairs) / len(pairs), abs=1e-6)
    assert math.isnan(mean_cosine(features[:1]))


def test_patch_smoothness_is_that_of_neighbours_less_that_of_distant_patches() -> None:
    side, patches = 4, torch.randn(2, 16, 6, generator=torch.Generator().manual_seed(5))
    units = normalize(patches, dim=2)
    for picture in range(2):
        near, far = [], []
        for a in range(16):
            for b in range(16):
                down, across = abs(a // side - b // side), abs(a % side - b % side)
                cosine = float(units[picture, a] @ units[picture, b])
                near += [cosine] * (down + across == 1)
                far += [cosine] * (max(down, across) >= 2)
        expected = sum(near) / len(near) - sum(far) / len(far)
        assert float(patch_smoothness(patches)[picture]) == pytest.approx(expected, abs=1e-5)


def test_patch_smoothness_is_high_where_neighbours_agree_and_zero_where_all_patches_do() -> None:
    place = torch.arange(6.0)
    rows, columns = place.repeat_interleave(6), place.repeat(6)
    gradual = torch.stack([torch.cos(rows / 3), torch.sin(rows / 3), torch.cos(columns / 3), torch.sin(columns / 3)], 1)
    assert float(patch_smoothness(gradual[None])) > 0.3
    assert float(patch_smoothness(torch.ones(1, 36, 4))) == pytest.approx(0.0, abs=1e-6)


def test_patch_smoothness_of_a_batch_is_that_of_each_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    patches = torch.randn(5, 9, 4, generator=torch.Generator().manual_seed(6))
    whole = patch_smoothness(patches)
    monkeypatch.setattr("dinov2.train.monitors.spread.TABLE_BYTES", 1)
    assert torch.allclose(patch_smoothness(patches), whole, atol=1e-6)
