import numpy as np
import pytest

from dinov2.preprocess.quality.framing import within_bars
from dinov2.preprocess.quality.likeness import likeness
from tests.preprocess.films import needs_radiographs
from tests.preprocess.quality.chests import frontal, lateral, levels, real_films


def with_bars(picture: np.ndarray, *, value: int, shares: tuple[float, float, float, float]) -> np.ndarray:
    """Bars over the top, bottom, left and right."""
    height, width = picture.shape
    top, bottom, left, right = (
        round(share * side) for share, side in zip(shares, (height, height, width, width), strict=True)
    )
    barred = np.full_like(picture, value)
    inside = np.s_[top : height - bottom, left : width - right]
    barred[inside] = picture[inside]
    return barred


@pytest.mark.parametrize("draw", [frontal, lateral])
@pytest.mark.parametrize("seed", range(8))
def test_a_film_is_told_from_its_negative_frontal_or_lateral(draw, seed):
    picture = levels(draw(seed))
    assert likeness(picture) > 0
    assert likeness(255 - picture) < 0


@pytest.mark.parametrize("value", [0, 255])
@pytest.mark.parametrize("shares", [(0.15, 0.15, 0.15, 0.15), (0, 0.2, 0, 0), (0, 0, 0.2, 0.05), (0.1, 0, 0, 0)])
def test_collimators_and_letterboxes_of_either_colour_change_no_mind(shares, value):
    for seed in range(4):
        picture = levels(frontal(seed))
        assert likeness(with_bars(picture, value=value, shares=shares)) > 0
        assert likeness(with_bars(255 - picture, value=value, shares=shares)) < 0


def test_the_score_of_a_negative_is_minus_that_of_the_film():
    for seed in range(4):
        picture = levels(frontal(seed))
        assert likeness(255 - picture) == pytest.approx(-likeness(picture), abs=0.02)


def test_gamma_and_window_change_little():
    picture = levels(frontal(1))
    for gamma in (0.5, 2.0):
        curved = np.rint(255 * (picture / 255) ** gamma).astype(np.uint8)
        assert likeness(curved) == pytest.approx(likeness(picture), abs=0.1)


def test_a_picture_of_one_level_looks_like_nothing():
    assert likeness(np.full((50, 60), 7, np.uint8)) == 0


def test_bars_are_cut_off_whatever_their_value_and_small_text_on_them():
    rng = np.random.default_rng(0)
    values = rng.uniform(50, 200, (100, 120))
    values[:10], values[:, -30:] = 0, 255
    values[4, 5:8] = 255
    assert within_bars(values) == (slice(10, 100), slice(0, 90))


def test_a_flat_film_is_not_taken_for_bars():
    values = np.zeros((90, 90))
    values[40:45, 40:45] = 1
    assert within_bars(values) == (slice(0, 90), slice(0, 90))


@needs_radiographs
def test_no_real_film_is_taken_for_a_negative_and_no_negative_for_a_film():
    films = real_films(step=3)
    assert len(films) > 400
    assert min(likeness(film) for film in films) > 0
    assert max(likeness(255 - film) for film in films) < 0
