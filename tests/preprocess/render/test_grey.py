import io

import numpy as np
import pytest
from PIL import Image

from dinov2.config.preprocess import Intensity
from dinov2.errors import DicomRejected
from dinov2.preprocess.render.grey import equalise, png_bytes, to_eight_bits, to_grey
from dinov2.preprocess.render.spline import resample
from tests.preprocess.render.films import film, noise


def chunks(png: bytes) -> set[bytes]:
    names, at = set(), 8
    while at < len(png):
        names.add(png[at + 4 : at + 8])
        at += 12 + int.from_bytes(png[at : at + 4], "big")
    return names


def test_grey_levels_are_rounded_and_not_cut_down():
    levels = np.linspace(0, 1, 511, dtype=np.float32)[None]  # 0, 0.5, 1, ... 255
    grey = to_grey(levels, config=Intensity())
    assert np.abs(grey - levels * 255).max() <= 0.5 + 1e-4
    assert np.abs((grey - levels * 255).mean()) < 0.01, "cutting down would leave half a level"
    assert (to_grey(levels, config=Intensity(rounding="down")) - levels * 255).mean() < -0.2


def test_sixteen_bits_hold_what_eight_bits_hold_and_more():
    source = noise(80, 90)
    fine, coarse = to_grey(source, config=Intensity(bits=16)), to_grey(source, config=Intensity())
    assert (fine.dtype, coarse.dtype) == (np.uint16, np.uint8)
    assert (fine.min(), fine.max()) == (0, 65535)
    assert len(np.unique(fine)) > 10 * len(np.unique(coarse))
    assert np.abs(to_eight_bits(fine).astype(int) - coarse).max() <= 1
    assert (to_eight_bits(fine) == coarse).mean() > 0.99
    assert np.array_equal(to_eight_bits(coarse), coarse)


def test_every_level_of_sixteen_bits_comes_down_to_the_nearest_of_eight():
    every = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    assert np.array_equal(to_eight_bits(every), np.rint(every / 257).astype(np.uint8))


@pytest.mark.parametrize("bits", [8, 16])
def test_padding_sets_no_level_and_is_black(bits):
    source = noise(50, 60)
    padding = np.zeros(source.shape, bool)
    padding[:, :7] = True
    wild = np.where(padding, np.float32(1e6), source)
    grey = to_grey(wild, config=Intensity(bits=bits), padding=padding)
    assert (grey[padding] == 0).all()
    assert np.array_equal(grey[:, 7:], to_grey(source[:, 7:], config=Intensity(bits=bits)))


def test_levels_are_taken_after_resizing_so_that_the_picture_uses_all_of_them():
    spiky = np.full((200, 200), 100, np.float32)
    spiky[60:140, 60:140] = 200
    spiky[::40, ::40] = 10_000  # single bright pixels that most output pixels never see
    picture = to_grey(resample(spiky, size=(50, 50)), config=Intensity())
    assert (picture.min(), picture.max()) == (0, 255)
    pictures = [to_grey(resample(film(seed), size=(96, 96)), config=Intensity()) for seed in range(3)]
    assert all((p.min(), p.max()) == (0, 255) for p in pictures)


def test_percentile_levels_saturate_the_share_they_are_asked_to():
    picture = to_grey(noise(200, 200), config=Intensity(mapping="percentile", percentiles=(5.0, 90.0)))
    assert (picture == 0).mean() == pytest.approx(0.05, abs=0.005)
    assert (picture == 255).mean() == pytest.approx(0.10, abs=0.005)


def test_equalisation_makes_all_levels_equally_common_and_keeps_their_order():
    source = noise(600, 256)  # more rows than are looked at in one go
    flat = equalise(source)
    counts = np.histogram(flat, bins=8, range=(0, 256))[0] / flat.size
    assert np.abs(counts - 1 / 8).max() < 0.02
    order = np.argsort(source, axis=None)
    assert (np.diff(flat.ravel()[order]) >= 0).all()


def test_equalisation_follows_its_formula():
    """255 (C(v) - C0) / (n - C0), on levels cut down to integers; all at once and in float64."""
    source = noise(600, 70)
    low, high = float(source.min()), float(source.max())
    levels = ((source.astype(np.float64) - low) * (255 / (high - low))).astype(np.uint8)
    reached = np.array([(levels <= level).sum() for level in range(256)])
    expected = np.rint(255 * (reached - reached[0]) / (reached[-1] - reached[0]))[levels]
    assert np.array_equal(equalise(source), expected)


@pytest.mark.parametrize("mapping", ["minmax", "percentile", "equalise"])
@pytest.mark.parametrize("value", [0, 7, 65535])
def test_a_constant_film_is_refused_and_not_its_rounding_stretched(mapping, value):
    config = Intensity(mapping=mapping)
    constant = equalise(np.full((50, 50), value, np.float32))
    shaken = np.nextafter(constant, np.float32(1e9), where=np.eye(50, dtype=bool), out=constant.copy())
    for flat in (constant, resample(constant, size=(31, 31)), shaken if value else constant):
        with pytest.raises(DicomRejected, match="one value") as caught:
            to_grey(flat, config=config)
        assert caught.value.reason == "constant"


@pytest.mark.parametrize("mapping", ["minmax", "percentile", "equalise"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_refused(mapping, value):
    broken = noise(50, 50)
    broken[20, 20] = value
    with pytest.raises(DicomRejected, match="not finite") as caught:
        to_grey(equalise(broken), config=Intensity(mapping=mapping))
    assert caught.value.reason == "bad_header"


@pytest.mark.parametrize("bits", [8, 16])
def test_a_png_holds_pixels_and_nothing_else_and_is_the_same_every_time(bits):
    picture = to_grey(film(0, short_side=200), config=Intensity(bits=bits))
    content = png_bytes(picture)
    assert chunks(content) == {b"IHDR", b"IDAT", b"IEND"}
    assert png_bytes(picture.copy()) == content
    with Image.open(io.BytesIO(content)) as opened:
        assert opened.mode == ("L" if bits == 8 else "I;16")
        assert not opened.info
        assert np.array_equal(np.asarray(opened), picture)


def test_a_png_is_no_larger_than_pillows():
    picture = to_grey(film(1, short_side=400), config=Intensity())
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, format="PNG", compress_level=3)
    assert len(png_bytes(picture)) < 1.05 * len(stream.getvalue())


def test_a_view_of_a_larger_array_is_encoded_as_it_looks():
    picture = np.arange(256, dtype=np.uint8).reshape(16, 16)[::2, 3:11].T
    with Image.open(io.BytesIO(png_bytes(picture))) as opened:
        assert np.array_equal(np.asarray(opened), picture)
