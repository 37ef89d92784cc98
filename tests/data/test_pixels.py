import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from dinov2.data.dataset import read_picture
from dinov2.data.pixels import CropBox, gamma_table, resample, shade, turn

PLAIN = {
    "brightness": None,
    "contrast": None,
    "contrast_first": False,
    "gamma": None,
    "blur_sigma": None,
    "blur_kernel": 9,
    "solarize_threshold": None,
}


def film(height: int, width: int) -> np.ndarray:
    """Broad shapes with edges and a little grain, as radiographs have."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:height, 0:width]
    waves = 60 * np.sin(x / 31) * np.cos(y / 23) + 40 * (((x - 150) ** 2 + (y - 170) ** 2) < 9000)
    return np.clip(110 + waves + rng.normal(0, 2, (height, width)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [
        (300, 340, 518),
        (196, 196, 196),
        (210, 205, 196),
        (260, 300, 196),
        (400, 330, 196),
        (330, 170, 196),
        (500, 480, 96),
    ],
)
def test_resizing_agrees_with_pillows_antialiased_bicubic(height, width, size):
    region = film(height, width)
    ours = resample(region, size=size, hflip=False, vflip=False).astype(float)
    pillow = np.asarray(Image.fromarray(region).resize((size, size), Image.Resampling.BICUBIC)).astype(float)
    difference = ours - pillow
    assert np.abs(difference).mean() < 0.75
    assert abs(difference.mean()) < 0.25  # no shift in brightness to speak of


def test_resizing_a_crop_is_resizing_that_box_of_the_picture():
    picture = film(400, 420)
    ours = resample(picture[20:320, 50:350], size=196, hflip=False, vflip=False).astype(float)
    pillow = Image.fromarray(picture).crop((50, 20, 350, 320)).resize((196, 196), Image.Resampling.BICUBIC)
    assert np.abs(ours - np.asarray(pillow).astype(float)).mean() < 0.75


@pytest.mark.parametrize("size", [300, 267, 200, 180, 160])
def test_a_grating_finer_than_the_crop_can_hold_fades_and_does_not_alias(size):
    stripes = np.tile(np.array([0, 255], np.uint8), (400, 200))
    pillow = np.asarray(Image.fromarray(stripes).resize((size, size), Image.Resampling.BICUBIC))
    assert resample(stripes, size=size, hflip=False, vflip=False).std() < pillow.std() + 30  # 127.5 before


@pytest.mark.parametrize(("hflip", "vflip"), [(True, False), (False, True), (True, True)])
def test_mirroring_is_mirroring_of_the_plain_crop(hflip, vflip):
    region = film(150, 140)
    plain = resample(region, size=98, hflip=False, vflip=False)
    mirrored = plain[:: -1 if vflip else 1, :: -1 if hflip else 1]
    assert np.array_equal(resample(region, size=98, hflip=hflip, vflip=vflip), mirrored)


def test_a_crop_never_shares_memory_with_the_picture():
    picture = film(196, 196)
    assert not np.shares_memory(resample(picture, size=196, hflip=False, vflip=False), picture)


@pytest.mark.parametrize("brightness", [0.6, 0.93, 1.4, None])
@pytest.mark.parametrize("contrast", [0.6, 1.17, 1.4, None])
@pytest.mark.parametrize("contrast_first", [True, False])
def test_jitter_as_one_table_equals_pillows_enhancers_one_after_the_other(brightness, contrast, contrast_first):
    crop = film(120, 120)
    steps = [(ImageEnhance.Brightness, brightness), (ImageEnhance.Contrast, contrast)]
    picture = Image.fromarray(crop)
    for enhancer, factor in reversed(steps) if contrast_first else steps:
        picture = picture if factor is None else enhancer(picture).enhance(factor)
    settings = PLAIN | {"brightness": brightness, "contrast": contrast, "contrast_first": contrast_first}
    assert np.array_equal(shade(crop, **settings), np.asarray(picture))


def test_solarisation_is_pillows():
    crop = film(60, 60)
    expected = np.asarray(ImageOps.solarize(Image.fromarray(crop), 128))
    assert np.array_equal(shade(crop, **PLAIN | {"solarize_threshold": 128}), expected)


def test_blur_comes_after_jitter_and_before_solarisation():
    crop = film(80, 80)
    jittered = shade(crop, **PLAIN | {"brightness": 1.4, "gamma": 0.8})
    blurred = shade(jittered, **PLAIN | {"blur_sigma": 1.5})
    solarised = shade(blurred, **PLAIN | {"solarize_threshold": 128})
    together = PLAIN | {"brightness": 1.4, "gamma": 0.8, "blur_sigma": 1.5, "solarize_threshold": 128}
    assert np.array_equal(shade(crop, **together), solarised)


@pytest.mark.parametrize("sigma", [0.1, 0.7, 2.0])
def test_blur_is_the_nine_tap_gaussian_with_mirrored_borders(sigma):
    crop = film(40, 50)
    taps = np.exp(-0.5 * (np.arange(-4, 5) / sigma) ** 2)
    taps /= taps.sum()
    padded = np.pad(crop.astype(float), 4, mode="reflect")
    rows = sum(t * padded[i : i + 40] for i, t in enumerate(taps))
    expected = sum(t * rows[:, i : i + 50] for i, t in enumerate(taps))
    assert np.abs(shade(crop, **PLAIN | {"blur_sigma": sigma}) - expected).max() < 1.01


def test_gamma_keeps_black_and_white_and_moves_the_middle():
    table = gamma_table(0.5)
    assert (table[0], table[255]) == (0, 255)
    assert table[64] == round(255 * (64 / 255) ** 0.5)
    assert np.all(np.diff(table.astype(int)) >= 0)


def test_turning_by_nothing_is_cutting_and_by_a_half_circle_is_mirroring_both_ways():
    picture = film(100, 120)
    box = CropBox(top=20, left=30, height=41, width=51)
    cut = picture[20:61, 30:81]
    assert np.array_equal(turn(picture, box, degrees=0.0), cut)
    assert np.abs(turn(picture, box, degrees=180.0).astype(int) - cut[::-1, ::-1].astype(int)).max() <= 1


def test_a_turned_box_at_the_edge_shows_the_film_mirrored_and_no_black():
    bright = np.full((60, 60), 200, np.uint8)
    assert turn(bright, CropBox(0, 0, 60, 60), degrees=20.0).min() == 200


CXR = Path(os.environ.get("DINOV2_CXR_DIR", Path(__file__).parents[2] / ".." / "shared" / "cxr")) / "hannover"


@pytest.mark.skipif(not CXR.is_dir(), reason="no radiographs: set DINOV2_CXR_DIR to the folder that holds hannover/")
@pytest.mark.parametrize(("side", "size"), [(400, 518), (215, 196), (260, 196), (330, 196), (400, 196), (500, 96)])
def test_resizing_agrees_with_pillow_on_real_radiographs(side, size):
    differences = []
    for path in sorted(CXR.glob("*.png"))[:8]:
        picture = read_picture(path)
        ours = resample(picture[10 : 10 + side, 12 : 12 + side], size=size, hflip=False, vflip=False).astype(float)
        pillow = Image.fromarray(picture).crop((12, 10, 12 + side, 10 + side))
        pillow = pillow.resize((size, size), Image.Resampling.BICUBIC)
        differences.append(np.abs(ours - np.asarray(pillow).astype(float)).mean())
    assert np.mean(differences) < 0.6  # grey levels of 255
