"""Frontal and lateral chests to judge, drawn; and the real ones where they are."""

import functools
from pathlib import Path

import numpy as np
from PIL import Image

from dinov2.phantom.anatomy import render
from dinov2.phantom.body import Findings, draw_body
from dinov2.preprocess.radiograph import Header, Radiograph
from tests.preprocess.films import CXR


@functools.cache
def frontal(seed: int, *, short_side: int = 320) -> np.ndarray:
    """A phantom's film, float32 [H, W], larger brighter."""
    view = ("PA", "AP")[seed % 2]
    body = draw_body(np.random.default_rng(seed), view=view, findings=Findings(effusion=seed % 3 == 0))
    return render(body, short_side=short_side).film.astype(np.float32)


def lateral(seed: int, *, side: int = 256) -> np.ndarray:
    """A coarse lateral film: a body between air, a dark lung with a heart in it, spine and abdomen bright."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:side, 0:side] / (side - 1)

    def ellipse(y: float, x: float, high: float, wide: float) -> np.ndarray:
        return 1 / (1 + np.exp((np.hypot((rows - y) / high, (columns - x) / wide) - 1) / 0.06))

    middle = 0.5 + rng.normal(0, 0.04)
    body = np.maximum(ellipse(0.6, middle, 0.62, rng.uniform(0.32, 0.42)), ellipse(0, middle + 0.08, 0.27, 0.25))
    lung, heart = ellipse(0.42, middle, 0.3, 0.24), ellipse(0.58, middle - 0.1, 0.14, 0.13)
    spine = np.exp(-(((columns - middle - 0.24) / 0.06) ** 2)) * body
    abdomen = body / (1 + np.exp(-(rows - 0.72) / 0.03))
    film = 0.55 * body - 0.38 * lung * body + 0.28 * heart + 0.2 * spine + 0.25 * abdomen
    film += rng.normal(0, 0.02, film.shape)
    return (film[:, ::-1] if seed % 2 else film).astype(np.float32)


def levels(film: np.ndarray) -> np.ndarray:
    """Grey levels of a film, smallest to largest value."""
    low, high = film.min(), film.max()
    return np.rint(255 * (film - low) / (high - low)).astype(np.uint8)


def radiograph(pixels: np.ndarray, *, larger_is_darker: bool = False, padding: np.ndarray | None = None) -> Radiograph:
    pixels = np.ascontiguousarray(pixels, dtype=np.float32)
    height, width = pixels.shape
    return Radiograph(
        pixels=pixels,
        larger_is_darker=larger_is_darker,
        padding=padding,
        bits_stored=12,
        header=Header(height=height, width=width),
    )


def real_films(step: int = 1) -> list[np.ndarray]:
    """Every `step`-th of the public films, uint8 [h, w]."""
    paths: list[Path] = [p for name in ("hannover", "lungs/images", "nih64") for p in (CXR / name).glob("*.png")]
    return [np.asarray(Image.open(path)) for path in sorted(paths)[::step]]
