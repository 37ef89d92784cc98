"""Films in memory for the tests of this room: drawn ones, and noise, the hardest input of an interpolation."""

import numpy as np

from dinov2.phantom.anatomy import render
from dinov2.phantom.body import Findings, draw_body
from dinov2.preprocess.radiograph import Header, Radiograph


def film(seed: int = 0, short_side: int = 160) -> np.ndarray:
    """A drawn chest film in 0..1."""
    return render(draw_body(np.random.default_rng(seed), view="PA", findings=Findings()), short_side=short_side).film


def noise(height: int, width: int, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(1000, 200, (height, width)).astype(np.float32)


def radiograph(pixels: np.ndarray, *, larger_is_darker=False, padding=None, spacing_mm=None) -> Radiograph:
    height, width = pixels.shape
    header = Header(height=height, width=width, spacing_mm=spacing_mm)
    return Radiograph(pixels=pixels, larger_is_darker=larger_is_darker, padding=padding, bits_stored=16, header=header)
