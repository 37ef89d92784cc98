import io

import numpy as np
import pytest
from PIL import Image, ImageFile

from dinov2.config.preprocess import Quality
from dinov2.preprocess.quality.checks import contrast, remarks, white_share
from dinov2.preprocess.quality.tail import is_filled_up
from tests.preprocess.films import needs_radiographs
from tests.preprocess.quality.chests import frontal, levels, radiograph, real_films

POLICY = Quality()


def cut(film: np.ndarray, *, share: float, fill: float) -> np.ndarray:
    """The film as it is read where its data ended after `share` of the pixels."""
    filled = film.copy()
    filled.ravel()[round(share * film.size) :] = fill
    return filled


def within(row: int, column: int, film: np.ndarray) -> float:
    """The share of the film that ends at this pixel."""
    return (row * film.shape[1] + column) / film.size


def test_a_good_film_earns_no_remark():
    for seed in range(4):
        film = frontal(seed)
        assert remarks(radiograph(film), levels(film), policy=POLICY) == ()


def test_a_negative_is_remarked_on_and_changed_in_no_way():
    picture = 255 - levels(frontal(0))
    before = picture.copy()
    assert remarks(radiograph(frontal(0)), picture, policy=POLICY) == ("polarity_suspect",)
    assert np.array_equal(picture, before)


@pytest.mark.parametrize("fill", [0, 1800, 4095, 65535])
@pytest.mark.parametrize("column", [20, 150, 290])
def test_rows_that_were_filled_up_after_the_data_ended_are_noticed(fill, column):
    for seed in range(3):
        film = np.rint(frontal(seed) / frontal(seed).max() * 4000)
        assert is_filled_up(cut(film, share=within(250, column, film), fill=fill))
        assert is_filled_up(-0.5 * cut(film, share=within(250, column, film), fill=fill) + 7), "whatever the rescale"


def test_the_remark_is_truncated():
    film = frontal(1)
    broken = cut(film, share=within(200, 100, film), fill=0)
    assert "truncated" in remarks(radiograph(broken), levels(broken), policy=POLICY)


def test_bars_shutters_and_collimators_are_no_broken_rows():
    film = frontal(2)
    height, width = film.shape
    for value in (0.0, float(film.max()), float(np.median(film))):
        for top, bottom, left, right in ((0, 40, 0, 0), (30, 30, 30, 30), (0, 40, 60, 0), (0, 40, 0, 60)):
            barred = np.full_like(film, value)
            inside = np.s_[top : height - bottom, left : width - right]
            barred[inside] = film[inside]
            assert not is_filled_up(barred)


@pytest.mark.parametrize("slope", [-0.3, -0.05, -0.008, 0.008, 0.05, 0.3])
@pytest.mark.parametrize("width_px", [0.01, 3.0], ids=["sharp", "soft"])
def test_slanted_and_round_collimators_are_no_broken_rows(slope, width_px):
    film = frontal(3)
    rows, columns = np.mgrid[0 : film.shape[0], 0 : film.shape[1]]
    for edge in (280 + slope * (columns - 160) - rows, 150 - np.hypot(rows - 160, columns - 160)):
        open_share = np.clip(edge / width_px + 0.5, 0, 1)
        assert not is_filled_up((film * open_share).astype(np.float32))


def test_a_dark_end_with_a_little_noise_is_no_broken_row():
    rng = np.random.default_rng(0)
    film = frontal(1).copy()
    film[250:] = rng.random(film[250:].shape) < np.linspace(0.2, 0.0001, len(film) - 250)[:, None]
    assert not is_filled_up(film)


def test_a_film_of_one_value_is_no_broken_one():
    assert not is_filled_up(np.full((40, 50), 7, np.float32))
    assert not is_filled_up(np.zeros((1, 1), np.float32))


def test_a_jpeg_that_was_cut_and_decoded_all_the_same_is_noticed(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    for seed in range(3):
        stream = io.BytesIO()
        Image.fromarray(levels(frontal(seed))).save(stream, "JPEG", quality=90)
        data = stream.getvalue()
        filled = np.asarray(Image.open(io.BytesIO(data[: round(0.63 * len(data))]))).astype(np.float32)
        assert is_filled_up(filled)
        assert not is_filled_up(np.asarray(Image.open(io.BytesIO(data))).astype(np.float32))


def test_a_burnt_out_film_is_saturated_and_bars_and_padding_do_not_count():
    film = frontal(0)
    white = float(np.quantile(film, 0.6))
    burnt = np.minimum(film, white)
    assert white_share(radiograph(burnt)) == pytest.approx(0.4, abs=0.05)
    assert "saturated" in remarks(radiograph(burnt), levels(burnt), policy=POLICY)
    barred = film.copy()
    barred[: film.shape[0] // 3] = film.max()
    assert white_share(radiograph(barred)) < 0.05
    padding = np.zeros(film.shape, bool)
    padding[100:220, 100:220] = True
    padded = np.where(padding, film.max() + 1, film)
    assert white_share(radiograph(padded, padding=padding)) < 0.05


def test_white_is_the_low_end_where_larger_is_darker():
    film = frontal(0)
    burnt = np.minimum(film, float(np.quantile(film, 0.6)))
    assert white_share(radiograph(-burnt, larger_is_darker=True)) == white_share(radiograph(burnt))


def test_a_film_that_is_padding_all_over_has_no_white():
    film = frontal(0)
    assert white_share(radiograph(film, padding=np.ones(film.shape, bool))) == 0


def test_hardly_any_contrast_is_remarked_on_whatever_the_bars():
    flat = (100 + levels(frontal(0)) // 32).astype(np.uint8)
    flat[:20], flat[3, 4] = 0, 255
    assert contrast(flat) < 8
    assert "near_constant" in remarks(radiograph(frontal(0)), flat, policy=POLICY)
    assert contrast(levels(frontal(0))) > 50


def test_the_limits_are_those_of_the_policy():
    film = frontal(0)
    strict = Quality(saturated_share=0.0, near_constant_levels=256)
    assert {"saturated", "near_constant"} <= set(remarks(radiograph(film), levels(film), policy=strict))


@needs_radiographs
def test_of_the_real_films_none_is_remarked_on_and_cut_ones_are_found():
    films = [film for film in real_films(step=5) if min(film.shape) > 500]
    assert len(films) > 40
    rng = np.random.default_rng(0)
    num_found = 0
    for film in films:
        assert remarks(radiograph(film), film, policy=POLICY) == ()
        num_found += is_filled_up(cut(film.astype(np.float32), share=rng.uniform(0.1, 0.95), fill=0))
    assert num_found > 0.9 * len(films)
