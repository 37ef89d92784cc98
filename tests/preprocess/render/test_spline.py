import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg

from dinov2.preprocess.render import itk, spline
from dinov2.preprocess.render.geometry import target_size
from tests.preprocess.render.films import film, noise

TOLERANCE = 2e-6  # of the film's range
ANTIALIAS_TOLERANCE = 3e-6  # SimpleITK cuts the Gaussian's tails off and keeps float32 in between
NARROWEST = 120 // 15  # of a film of 120; beyond a shrinking by 15 SimpleITK's Gaussian is not accurate to that
sides = st.integers(2, 200)


def levels(values: np.ndarray) -> np.ndarray:
    wide = values.astype(np.float64)
    return np.rint((wide - wide.min()) * (255 / np.ptp(wide))).astype(int)


@settings(max_examples=150, deadline=None)
@given(film_size=st.tuples(st.integers(3, 200), st.integers(3, 200)), size=st.tuples(sides, sides))
def test_both_engines_compute_the_same_film_up_and_down_and_at_the_borders(film_size, size):
    source = noise(*film_size, seed=sum(film_size))
    fast, reference = spline.resample(source, size=size), itk.resample(source, size=size)
    assert fast.shape == reference.shape == size
    assert fast.dtype == reference.dtype == np.float32
    assert np.abs(fast - reference).max() <= TOLERANCE * np.ptp(source)


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize(("film_size", "short_side"), [((1531, 1253), 518), ((640, 777), 224), ((301, 260), 518)])
def test_both_engines_give_the_same_grey_levels(film_size, short_side, antialias):
    size = target_size(*film_size, short_side=short_side)
    source = np.random.default_rng(1).integers(0, 65536, film_size).astype(np.float32)
    fast, reference = (engine.resample(source, size=size, antialias=antialias) for engine in (spline, itk))
    assert np.abs(fast - reference).max() <= (ANTIALIAS_TOLERANCE if antialias else TOLERANCE) * np.ptp(source)
    away = np.abs(levels(fast) - levels(reference))
    assert (away == 0).mean() >= 0.999
    assert away.max() <= 1


def test_a_film_of_full_size_is_the_same_in_both_engines():
    source = np.tile(film(0, short_side=500), (5, 5))[:3056, :2500] * np.float32(65535)
    source = np.ascontiguousarray(np.pad(source, ((0, 3056 - source.shape[0]), (0, 0)), mode="wrap"))
    fast, reference = (engine.resample(source, size=(633, 518)) for engine in (spline, itk))
    assert np.abs(fast - reference).max() <= TOLERANCE * np.ptp(source)
    away = np.abs(levels(fast) - levels(reference))
    assert (away == 0).mean() >= 0.999
    assert away.max() <= 1


@settings(max_examples=60, deadline=None)
@given(
    film_size=st.tuples(st.integers(3, 120), st.integers(3, 120)),
    size=st.tuples(st.integers(NARROWEST, 200), st.integers(NARROWEST, 200)),
)
def test_both_engines_smooth_alike_where_an_axis_shrinks(film_size, size):
    source = noise(*film_size, seed=sum(film_size))
    fast, reference = (engine.resample(source, size=size, antialias=True) for engine in (spline, itk))
    assert np.abs(fast - reference).max() <= ANTIALIAS_TOLERANCE * np.ptp(source)


@settings(max_examples=60, deadline=None)
@given(num_in=st.integers(2, 300), num_out=st.integers(1, 300))
def test_the_closed_form_is_the_inverse_of_the_mirrored_prefilter(num_in, num_out):
    """Against the definition: dense, in float64, by solving for the coefficients of the unit films."""
    prefilter = np.diag(np.full(num_in, 4 / 6)) + np.diag(np.full(num_in - 1, 1 / 6), 1)
    prefilter += np.diag(np.full(num_in - 1, 1 / 6), -1)
    prefilter[0, 1] = prefilter[-1, -2] = 2 / 6
    coefficients = linalg.solve(prefilter, np.eye(num_in))
    expected = np.zeros((num_out, num_in))
    for row, position in enumerate((np.arange(num_out) + 0.5) * num_in / num_out - 0.5):
        for index in range(int(np.floor(position)) - 1, int(np.floor(position)) + 3):
            away = abs(position - index)
            weight = 2 / 3 - away**2 + away**3 / 2 if away < 1 else max(0.0, 2 - away) ** 3 / 6
            folded = abs(index) % (2 * num_in - 2)
            expected[row] += weight * coefficients[min(folded, 2 * num_in - 2 - folded)]
    assert np.abs(spline.axis_matrix(num_in, num_out, antialias=False).toarray() - expected).max() < 1e-6


@settings(max_examples=60, deadline=None)
@given(num_in=st.integers(1, 3000), num_out=st.integers(1, 900), antialias=st.booleans())
def test_every_row_of_weights_sums_to_one_and_few_of_them_are_kept(num_in, num_out, antialias):
    matrix = spline.axis_matrix(num_in, num_out, antialias=antialias)
    assert np.abs(matrix.astype(np.float64).sum(axis=1) - 1).max() < 1e-6
    smoothing = 2 * 6.5 * spline.SIGMA_PER_STEP * num_in / num_out if antialias else 0
    assert np.diff(matrix.indptr).max() <= 40 + smoothing


@pytest.mark.parametrize("value", [0.0, 7.0, -1024.3, 65535.0, 1e30])
@pytest.mark.parametrize("antialias", [False, True])
def test_a_constant_film_stays_exactly_constant(value, antialias):
    constant = np.full((211, 180), value, np.float32)
    for size in ((97, 83), (300, 256)):
        assert (spline.resample(constant, size=size, antialias=antialias) == np.float32(value)).all()


def test_a_film_far_from_zero_keeps_its_own_precision():
    low_contrast = np.random.default_rng(2).integers(60_000, 60_100, (400, 300)).astype(np.float32)
    fast, reference = (engine.resample(low_contrast, size=(133, 100)) for engine in (spline, itk))
    assert np.abs(fast - reference).max() <= 2 * np.spacing(np.float32(60_100))


def test_an_axis_of_one_or_two_pixels_can_be_resampled():
    for side in (1, 2):
        result = spline.resample(noise(side, 50), size=(3, 20))
        assert result.shape == (3, 20)
        assert np.isfinite(result).all()


def test_resampling_to_the_same_size_changes_nothing():
    source = noise(90, 120)
    assert spline.resample(source, size=(90, 120)) is source
    assert np.array_equal(spline.resample(source, size=(90, 60)), spline.resample(source, size=(90, 60)))


def test_an_axis_whose_size_stays_is_not_touched():
    """The other axis alone decides: every row is resampled as if it were a film of its own."""
    source = noise(40, 120)
    whole = spline.resample(source, size=(40, 50))
    for row in (0, 17, 39):
        alone = spline.resample(np.repeat(source[row : row + 1], 3, axis=0), size=(3, 50))
        assert np.allclose(whole[row], alone[1], atol=1e-3)


@pytest.mark.parametrize("engine", [spline, itk])
@pytest.mark.parametrize("short_side", [40, 163, 400, 900])
def test_no_border_of_a_default_value_is_left(engine, short_side):
    source = noise(100, 120) + 5000  # the default value of a resampler, 0, would stand out
    result = engine.resample(source, size=target_size(100, 120, short_side=short_side))
    edges = np.concatenate([result[0], result[-1], result[:, 0], result[:, -1]])
    assert edges.min() > 5000
    assert np.abs(edges.mean() - result.mean()) < 60


@pytest.mark.parametrize("engine", [spline, itk])
def test_resampling_keeps_a_ramp_where_it_is(engine):
    ramp = np.broadcast_to(np.arange(200, dtype=np.float32), (150, 200)).copy()
    expected = (np.arange(100) + 0.5) * 2 - 0.5
    for antialias in (False, True):
        result = engine.resample(ramp, size=(75, 100), antialias=antialias)
        assert np.abs(result[40, 10:-10] - expected[10:-10]).max() < 1e-2


def test_resampling_commutes_with_turning_and_mirroring():
    source = noise(120, 150)
    result = spline.resample(source, size=(64, 80))
    assert np.allclose(spline.resample(source.T, size=(80, 64)), result.T, atol=1e-2)
    assert np.allclose(spline.resample(source[:, ::-1], size=(64, 80)), result[:, ::-1], atol=1e-2)
    assert np.allclose(spline.resample(-source, size=(64, 80)), -result, atol=1e-2)


def test_the_low_pass_takes_most_of_the_grain_and_only_where_an_axis_shrinks():
    source = noise(500, 500)
    plain, smooth = (spline.resample(source, size=(100, 100), antialias=antialias) for antialias in (False, True))
    assert plain.std() > 0.8 * source.std()
    assert smooth.std() < 0.25 * source.std()
    larger = [spline.resample(source, size=(600, 600), antialias=antialias) for antialias in (False, True)]
    assert np.array_equal(*larger)


@pytest.mark.parametrize("sigma_px", [0.3, 0.6, 2.0, 8.5])
def test_the_gaussian_has_the_variance_it_is_asked_for_and_keeps_the_mean(sigma_px):
    row = spline.gaussian_matrix(301, sigma_px=sigma_px).toarray()[150]
    away = np.arange(301) - 150
    assert row.sum() == pytest.approx(1, abs=1e-12)
    assert (row * away).sum() == pytest.approx(0, abs=1e-9)
    assert (row * away**2).sum() == pytest.approx(sigma_px**2, rel=1e-4)


def test_the_film_itself_is_not_changed():
    for source in (noise(60, 80), noise(60, 80) + 60_000):
        before = source.copy()
        spline.resample(source, size=(30, 40))
        assert np.array_equal(source, before)
