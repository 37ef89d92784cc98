import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from dinov2.config.preprocess import Intensity, PreprocessConfig, Resample
from dinov2.errors import DicomRejected
from dinov2.preprocess.render import engines, itk, spline
from dinov2.preprocess.render.grey import equalise, to_grey
from dinov2.preprocess.render.picture import render
from dinov2.preprocess.render.upright import without_padding
from tests.preprocess.render.films import film, noise, radiograph

SMALL = PreprocessConfig(resample=Resample(short_side=96))
MAPPINGS = ("minmax", "percentile", "equalise")


def corner(shape: tuple[int, int]) -> np.ndarray:
    padding = np.zeros(shape, bool)
    padding[:, : shape[1] // 5] = True
    return padding


def turned_at_full_size(pixels: np.ndarray, padding: np.ndarray | None) -> np.ndarray:
    """The plain definition: mirrored within its own range before anything else, padding at the darkest value."""
    inside = pixels if padding is None else pixels[~padding]
    turned = inside.min() + inside.max() - pixels
    return turned if padding is None else np.where(padding, inside.min(), turned)


def equal_but_for_rounding(picture: np.ndarray, other: np.ndarray) -> bool:
    away = np.abs(picture.astype(int) - other)
    return bool((away == 0).mean() >= 0.999 and away.max() <= 1)


@pytest.mark.parametrize("mapping", MAPPINGS)
@pytest.mark.parametrize("is_padded", [False, True])
def test_a_film_turned_after_resampling_is_the_film_turned_before(mapping, is_padded):
    pixels = np.rint(film(0, short_side=300) * 4095)
    padding = corner(pixels.shape) if is_padded else None
    config = replace(SMALL, intensity=Intensity(mapping=mapping))
    first = turned_at_full_size(pixels, padding)
    ours = render(radiograph(pixels, larger_is_darker=True, padding=padding), config=config)
    assert equal_but_for_rounding(ours, render(radiograph(first, padding=padding), config=config))


@pytest.mark.parametrize("mapping", MAPPINGS)
def test_a_negative_film_that_says_so_gives_the_picture_of_the_positive_one(mapping):
    pixels = np.rint(film(1, short_side=300) * 4095)
    config = replace(SMALL, intensity=Intensity(mapping=mapping))
    positive = render(radiograph(pixels), config=config)
    assert equal_but_for_rounding(positive, render(radiograph(4095 - pixels, larger_is_darker=True), config=config))
    assert not equal_but_for_rounding(positive, render(radiograph(4095 - pixels), config=config))


@pytest.mark.parametrize("larger_is_darker", [False, True])
@pytest.mark.parametrize("mapping", MAPPINGS)
def test_what_the_padding_holds_does_not_matter(mapping, larger_is_darker):
    pixels, config = noise(200, 240), replace(SMALL, intensity=Intensity(mapping=mapping))
    padding = corner(pixels.shape)
    pictures = [
        render(
            radiograph(
                np.where(padding, np.float32(value), pixels), larger_is_darker=larger_is_darker, padding=padding
            ),
            config=config,
        )
        for value in (-5000, 0, 99_999)
    ]
    assert np.array_equal(pictures[0], pictures[1])
    assert np.array_equal(pictures[0], pictures[2])
    assert (pictures[0][:, :19] == 0).all()
    assert (pictures[0].min(), pictures[0].max()) == (0, 255)


def test_padding_takes_the_darkest_value_of_the_film():
    pixels = np.array([[1, 5], [9, 100]], np.float32)
    padding = pixels == 100
    assert without_padding(radiograph(pixels, padding=padding))[1, 1] == 1
    assert without_padding(radiograph(pixels, padding=padding, larger_is_darker=True))[1, 1] == 9
    assert without_padding(radiograph(pixels, padding=np.zeros((2, 2), bool))) is pixels


def test_a_film_of_nothing_but_padding_is_refused():
    pixels = noise(100, 100)
    with pytest.raises(DicomRejected) as caught:
        render(radiograph(pixels, padding=np.ones(pixels.shape, bool)), config=SMALL)
    assert caught.value.reason == "constant"


@pytest.mark.parametrize("config", [SMALL, replace(SMALL, intensity=Intensity(mapping="equalise"))])
@pytest.mark.parametrize("short_side", [96, 150])
def test_rendering_leaves_the_film_as_it_was(config, short_side):
    pixels = noise(150, 160)
    padding = corner(pixels.shape)
    for one in (radiograph(pixels, larger_is_darker=True), radiograph(pixels, padding=padding)):
        before = one.pixels.copy()
        render(one, config=replace(config, resample=Resample(short_side=short_side)))
        assert np.array_equal(one.pixels, before)


def test_a_film_at_its_own_size_is_only_mapped():
    pixels = noise(96, 110)
    assert np.array_equal(render(radiograph(pixels), config=SMALL), to_grey(pixels, config=SMALL.intensity))
    flat = replace(SMALL, intensity=Intensity(mapping="equalise"))
    assert np.array_equal(render(radiograph(pixels), config=flat), equalise(pixels))


@pytest.mark.parametrize("name", ["separable", "simpleitk"])
def test_the_engine_is_the_one_that_the_settings_name(name, monkeypatch):
    asked = []
    for module in (spline, itk):
        real = module.resample
        monkeypatch.setattr(
            module,
            "resample",
            lambda pixels, *, size, antialias, module=module, real=real: (
                asked.append((module.__name__.rpartition(".")[2], antialias)),
                real(pixels, size=size, antialias=antialias),
            )[1],
        )
    engines.engine.cache_clear()
    try:
        for antialias in (False, True):
            config = PreprocessConfig(resample=Resample(short_side=96, engine=name, antialias=antialias))
            render(radiograph(noise(150, 160)), config=config)
    finally:
        engines.engine.cache_clear()
    module = {"separable": "spline", "simpleitk": "itk"}[name]
    assert asked == [(module, False), (module, True)]


@pytest.mark.parametrize("antialias", [False, True])
def test_both_engines_give_the_same_picture(antialias):
    pixels = np.rint(film(2, short_side=700) * 65535)
    pictures = [
        render(
            radiograph(pixels),
            config=PreprocessConfig(resample=Resample(short_side=224, engine=name, antialias=antialias)),
        )
        for name in ("separable", "simpleitk")
    ]
    assert equal_but_for_rounding(*pictures)


def test_the_low_pass_makes_a_grainy_film_smoother():
    plain, smooth = (
        render(
            radiograph(noise(800, 700)),
            config=PreprocessConfig(resample=Resample(short_side=96, antialias=antialias)),
        )
        for antialias in (False, True)
    )
    roughness = [
        np.abs(np.diff(p.astype(float), axis=1)).mean() / p.std() for p in (plain, smooth)
    ]  # of white noise both look alike but for the overlap of neighbouring pixels
    assert roughness[1] < 0.97 * roughness[0]


@pytest.mark.parametrize("bits", [8, 16])
def test_bars_set_no_level_and_the_film_between_them_is_the_plain_picture(bits):
    pixels = noise(300, 200) + 3000  # far from the black of the bars
    intensity = Intensity(bits=bits)
    boxed = render(
        radiograph(pixels),
        config=PreprocessConfig(resample=Resample(short_side=150, letterbox=True), intensity=intensity),
    )
    plain = render(radiograph(pixels), config=PreprocessConfig(resample=Resample(short_side=100), intensity=intensity))
    assert boxed.shape == (150, 150)
    assert np.array_equal(boxed[:, 25:125], plain)
    assert (boxed[:, :25] == 0).all()
    assert (boxed[:, 125:] == 0).all()


def test_isotropic_is_one_resampling_that_makes_round_things_round():
    rows, columns = np.mgrid[0:200, 0:400]
    disc = (((rows - 99.5) * 0.2) ** 2 + ((columns - 199.5) * 0.1) ** 2 < 12**2).astype(np.float32)  # 24 mm across
    config = PreprocessConfig(resample=Resample(short_side=100, isotropic=True))
    picture = render(radiograph(disc, spacing_mm=(0.2, 0.1)), config=config) > 127
    assert picture.shape == (100, 100)
    assert abs(int(picture.any(axis=0).sum()) - int(picture.any(axis=1).sum())) <= 1
    plain = render(radiograph(disc, spacing_mm=(0.2, 0.1)), config=PreprocessConfig(resample=Resample(short_side=100)))
    assert plain.shape == (100, 200)


def test_the_default_engine_does_not_load_simpleitk():
    lines = (
        "import sys",
        "from dinov2.preprocess.render import engines, picture",
        "engines.engine('separable')",
        "assert 'SimpleITK' not in sys.modules",
        "engines.engine('simpleitk')",
        "assert 'SimpleITK' in sys.modules",
    )
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True)
