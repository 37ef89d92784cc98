"""Perceptual hashes: what a re-export changes, and what another film changes."""

import csv
import io
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from dinov2.config.preprocess import Quality
from dinov2.manifest.duplicates import near, words_of
from dinov2.preprocess.quality.perceptual import perceptual_hash

REAL_FILMS = Path(os.environ.get("DINOV2_CXR_DIR", Path(__file__).parents[4] / "shared" / "cxr"))
MOST_BITS = 10  # of 256 that a re-export may change; films of one patient differ in 29 and more
NEEDS_REAL_FILMS = pytest.mark.skipif(
    not (REAL_FILMS / "hannover.csv").is_file(),
    reason="no real films: set DINOV2_CXR_DIR to the folder of hannover.csv",
)


def scene(number, *, height=300, width=360):
    """Broad shapes with fine ones on top, another for every number."""
    rng = np.random.default_rng(number)
    coarse = rng.normal(size=(14, 14))
    fine = rng.normal(size=(60, 60)) * 0.2
    shapes = sum(cv2.resize(part, (width, height), interpolation=cv2.INTER_CUBIC) for part in (coarse, fine))
    low, high = shapes.min(), shapes.max()
    return np.rint((shapes - low) / (high - low) * 255).astype(np.uint8)


def differing(one, other):
    return (int(perceptual_hash(one), 16) ^ int(perceptual_hash(other), 16)).bit_count()


def jpeg(picture):
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "JPEG", quality=85)
    return np.asarray(Image.open(stream))


def resized(picture, share):
    size = [round(side * share) for side in picture.shape[::-1]]
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))


def windowed(picture, percent):
    low, high = np.percentile(picture, [percent, 100 - percent])
    return np.rint(np.clip((picture - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def gamma(picture, power):
    return np.rint(255 * (picture / 255) ** power).astype(np.uint8)


RE_EXPORTS = {
    "JPEG": jpeg,
    "smaller": lambda picture: resized(picture, 0.8),
    "larger": lambda picture: resized(picture, 1.7),
    "another window": lambda picture: windowed(picture, 0.5),
    "darker": lambda picture: gamma(picture, 1.1),
    "brighter": lambda picture: gamma(picture, 0.9),
    "all of it": lambda picture: jpeg(windowed(gamma(resized(picture, 0.9), 0.9), 0.5)),
}


@pytest.mark.parametrize("re_export", RE_EXPORTS.values(), ids=RE_EXPORTS.keys())
def test_a_re_export_of_a_film_keeps_nearly_all_bits(re_export):
    for number in range(5):
        assert differing(scene(number), re_export(scene(number))) <= MOST_BITS


def test_other_films_the_negative_and_the_mirror_image_are_far_away():
    for number in range(5):
        picture = scene(number)
        for other in (scene(number + 5), 255 - picture, np.ascontiguousarray(picture[:, ::-1])):
            assert differing(picture, other) > 80


def test_a_hash_is_64_hexadecimal_digits_and_the_same_every_time():
    first = perceptual_hash(scene(1))
    assert len(first) == 64
    assert first == perceptual_hash(scene(1)) == f"{int(first, 16):064x}"


@pytest.mark.parametrize("level", [0, 7, 255])
def test_a_picture_of_one_level_resembles_nothing(level):
    blank = perceptual_hash(np.full((40, 50), level, dtype=np.uint8))
    assert blank == "0" * 64
    assert near(words_of([blank, blank]), 6).tolist() == [-1, -1]


def test_any_curve_that_keeps_the_order_of_the_levels_keeps_the_bits():
    picture = scene(3)
    curve = np.rint(255 * np.linspace(0, 1, 256) ** 2.2)
    assert differing(picture, curve.astype(np.uint8)[picture]) <= MOST_BITS


@NEEDS_REAL_FILMS
def test_re_exports_of_real_films_are_recognised_and_no_two_real_films_are_taken_for_one():
    films = [np.asarray(Image.open(path).convert("L")) for path in sorted((REAL_FILMS / "hannover").glob("*.png"))]
    hashes = [perceptual_hash(film) for film in films]
    again = [perceptual_hash(RE_EXPORTS["all of it"](film)) for film in films[::6]]
    bits = max(MOST_BITS, Quality().near_duplicate_bits)
    assert (near(words_of(hashes), bits) == -1).all()
    found = near(words_of([*hashes, *again]), bits)[len(hashes) :]
    assert (found == np.arange(0, len(films), 6)).mean() > 0.97


@NEEDS_REAL_FILMS
def test_two_films_of_one_patient_are_two_films():
    with (REAL_FILMS / "nih64.csv").open(newline="") as stream:
        paths = [REAL_FILMS / row["file"] for row in csv.DictReader(stream)]
    hashes = words_of([perceptual_hash(np.asarray(Image.open(path).convert("L"))) for path in paths])
    assert (near(hashes, max(MOST_BITS, Quality().near_duplicate_bits)) == -1).all()
