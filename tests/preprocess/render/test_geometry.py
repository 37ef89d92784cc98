import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dinov2.config.preprocess import Resample
from dinov2.errors import DicomRejected
from dinov2.preprocess.render.geometry import content_size, letterbox, picture_spacing, resample_mask, target_size

sides = st.integers(64, 4000)
pitches = st.floats(0.1, 0.35)


def test_the_short_side_is_exact_and_the_long_side_is_rounded():
    assert target_size(3056, 2544, short_side=518) == (622, 518)
    assert target_size(2544, 3056, short_side=518) == (518, 622)
    assert target_size(1000, 1000, short_side=518) == (518, 518)


@given(height=sides, width=sides)
def test_the_default_size_is_that_of_the_published_pictures(height, width):
    content = content_size((height, width), config=Resample(), spacing_mm=(0.1, 0.3))
    assert content == target_size(height, width, short_side=518)
    assert min(content) == 518


@given(height=sides, width=sides, rows=pitches, columns=pitches, letterboxed=st.booleans())
def test_isotropic_pictures_have_square_pixels_to_half_a_pixel(height, width, rows, columns, letterboxed):
    config = Resample(isotropic=True, letterbox=letterboxed)
    content = content_size((height, width), config=config, spacing_mm=(rows, columns))
    assert (max if letterboxed else min)(content) == 518
    mm_per_pixel = height * rows / content[0], width * columns / content[1]
    assert mm_per_pixel[0] / mm_per_pixel[1] == pytest.approx(1, abs=0.51 / min(content))
    assert picture_spacing((rows, columns), film=(height, width), config=config) == pytest.approx(mm_per_pixel)


@given(height=sides, width=sides, isotropic=st.booleans(), letterboxed=st.booleans())
def test_the_spacing_of_a_picture_times_its_pixels_is_the_length_of_the_film(height, width, isotropic, letterboxed):
    config = Resample(isotropic=isotropic, letterbox=letterboxed)
    content = content_size((height, width), config=config, spacing_mm=(0.2, 0.14))
    rows, columns = picture_spacing((0.2, 0.14), film=(height, width), config=config)
    assert rows * content[0] == pytest.approx(0.2 * height)
    assert columns * content[1] == pytest.approx(0.14 * width)


def test_a_film_without_spacing_has_square_pixels_and_its_picture_no_spacing():
    config = Resample(isotropic=True)
    assert content_size((3000, 2000), config=config) == content_size((3000, 2000), config=Resample())
    assert picture_spacing(None, film=(3000, 2000), config=config) is None


@pytest.mark.parametrize("spacing", [(0.1, 1.0), (0.0, 0.1), (0.1, -0.1), (float("nan"), 0.1), (float("inf"), 1.0)])
def test_a_spacing_that_is_no_pixels_is_refused_where_it_would_be_used(spacing):
    with pytest.raises(DicomRejected, match=r"\(0018,1164\).*isotropic=false") as caught:
        content_size((3000, 2000), config=Resample(isotropic=True), spacing_mm=spacing)
    assert caught.value.reason == "bad_header"
    assert content_size((3000, 2000), config=Resample(), spacing_mm=spacing) == (777, 518)


@given(height=sides, width=sides)
def test_a_letterboxed_film_fits_its_square_and_touches_two_sides(height, width):
    content = content_size((height, width), config=Resample(letterbox=True, short_side=224))
    assert max(content) == 224
    assert min(content) == max(1, round(224 * min(height, width) / max(height, width)))


@pytest.mark.parametrize("shape", [(10, 7), (7, 10), (10, 10), (1, 10)])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_bars_are_black_and_the_film_lies_in_the_middle(shape, kind):
    picture = np.random.default_rng(0).integers(1, 255, shape).astype(kind)
    square = letterbox(picture, side=10)
    assert square.dtype == kind
    assert square.shape == (10, 10)
    rows, columns = np.nonzero(square)
    top, left = rows.min(), columns.min()
    assert np.array_equal(square[top : rows.max() + 1, left : columns.max() + 1], picture)
    for before, size in ((top, shape[0]), (left, shape[1])):
        assert 0 <= (10 - size - before) - before <= 1
    assert square.sum() == picture.sum()


def test_a_mask_goes_where_its_film_goes():
    mask = np.zeros((100, 60), bool)
    mask[:30] = True
    taken = resample_mask(mask, size=(50, 30))
    assert taken[:15].all()
    assert not taken[15:].any()
