import numpy as np
import pytest
from scipy import ndimage

from dinov2.config.preprocess import Intensity
from dinov2.errors import DicomRejected
from dinov2.preprocess.render.grey import equalise, png_bytes, to_grey
from dinov2.preprocess.render.itk import resample, target_size
from tests.preprocess.films import film

MARGIN = 6  # output pixels; the two differ in how they continue the film beyond its border


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).normal(1000, 200, (height, width)).astype(np.float32)


@pytest.mark.parametrize("size", [(300, 260), (97, 131), (260, 260), (64, 200)])
@pytest.mark.parametrize("short_side", [70, 128, 310])
def test_resampling_is_the_half_pixel_centred_cubic_spline_that_scipy_computes(size, short_side):
    source = noise(*size)
    ours = resample(source, short_side=short_side)
    zoom = [new / old for new, old in zip(ours.shape, size, strict=True)]
    theirs = ndimage.zoom(source.astype(np.float64), zoom, order=3, mode="nearest", grid_mode=True)
    assert ours.shape == theirs.shape
    inner = (slice(4 * MARGIN, -4 * MARGIN),) * 2
    assert np.abs(ours[inner] - theirs[inner]).max() < 1e-3 * np.ptp(source)


@pytest.mark.parametrize("short_side", [40, 163, 400, 900])
def test_upsampling_and_downsampling_leave_no_border_of_the_default_value(short_side):
    source = noise(100, 120) + 5000  # the default value of a resampler, 0, would stand out
    result = resample(source, short_side=short_side)
    edges = np.concatenate([result[0], result[-1], result[:, 0], result[:, -1]])
    assert edges.min() > 5000
    assert np.abs(edges.mean() - result.mean()) < 60


def test_resampling_keeps_a_ramp_where_it_is():
    ramp = np.broadcast_to(np.arange(200, dtype=np.float32), (150, 200)).copy()
    result = resample(ramp, short_side=75)
    expected = (np.arange(100) + 0.5) * 2 - 0.5
    assert np.abs(result[40, 10:-10] - expected[10:-10]).max() < 1e-2


def test_resampling_to_the_same_size_changes_nothing():
    source = noise(90, 120)
    assert np.array_equal(resample(source, short_side=90), source)


def test_resampling_commutes_with_turning_and_mirroring():
    source = noise(120, 150)
    assert np.allclose(resample(source.T.copy(), short_side=64), resample(source, short_side=64).T, atol=1e-2)
    assert np.allclose(
        resample(source[:, ::-1].copy(), short_side=64), resample(source, short_side=64)[:, ::-1], atol=1e-2
    )


def test_the_short_side_is_exact_and_the_long_side_is_rounded():
    assert target_size(3056, 2544, short_side=518) == (622, 518)
    assert target_size(2544, 3056, short_side=518) == (518, 622)
    assert target_size(1000, 1000, short_side=518) == (518, 518)


def test_grey_levels_are_rounded_and_not_cut_down():
    levels = np.linspace(0, 1, 511, dtype=np.float32)[None]  # 0, 0.5, 1, ... 255
    grey = to_grey(levels, config=Intensity())
    assert np.abs(grey - levels * 255).max() <= 0.5 + 1e-4
    assert np.abs((grey - levels * 255).mean()) < 0.01, "cutting down would leave half a level"
    assert (to_grey(levels, config=Intensity(rounding="down")) - levels * 255).mean() < -0.2


def test_levels_are_taken_after_resizing_so_that_the_picture_uses_all_of_them():
    spiky = np.full((200, 200), 100, np.float32)
    spiky[60:140, 60:140] = 200
    spiky[::40, ::40] = 10_000  # single bright pixels that most output pixels never see
    picture = to_grey(resample(spiky, short_side=50), config=Intensity())
    assert (picture.min(), picture.max()) == (0, 255)
    pictures = [to_grey(resample(film(seed), short_side=96), config=Intensity()) for seed in range(3)]
    assert all((p.min(), p.max()) == (0, 255) for p in pictures)


def test_percentile_levels_saturate_the_share_they_are_asked_to():
    picture = to_grey(noise(200, 200), config=Intensity(mapping="percentile", percentiles=(5.0, 90.0)))
    assert (picture == 0).mean() == pytest.approx(0.05, abs=0.005)
    assert (picture == 255).mean() == pytest.approx(0.10, abs=0.005)


def test_equalisation_makes_all_levels_equally_common_and_keeps_their_order():
    source = noise(256, 256)
    flat = equalise(source)
    counts = np.histogram(flat, bins=8, range=(0, 256))[0] / flat.size
    assert np.abs(counts - 1 / 8).max() < 0.02
    order = np.argsort(source, axis=None)
    assert (np.diff(flat.ravel()[order]) >= 0).all()


@pytest.mark.parametrize("mapping", ["minmax", "percentile", "equalise"])
def test_a_constant_film_is_refused(mapping):
    config = Intensity(mapping=mapping)
    with pytest.raises(DicomRejected, match="one value") as caught:
        to_grey(equalise(np.full((50, 50), 7, np.float32)), config=config)
    assert caught.value.reason == "constant"


def test_a_png_holds_pixels_and_nothing_else():
    content = png_bytes(np.arange(256, dtype=np.uint8).reshape(16, 16))
    names, at = [], 8
    while at < len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        names.append(content[at + 4 : at + 8])
        at += 12 + length
    assert set(names) == {b"IHDR", b"IDAT", b"IEND"}
