from pathlib import Path

import cv2
import numpy as np
import pytest

from dinov2.manifest import Manifest, from_folder

HEIGHT, WIDTH = 72, 90


def film(number: int, *, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A smooth shape with some grain; every number gives another picture."""
    rng = np.random.default_rng(number)
    y, x = np.mgrid[0:height, 0:width]
    waves = np.sin(y / rng.uniform(5, 20)) + np.cos(x / rng.uniform(5, 20))
    return np.clip(128 + 50 * waves + rng.normal(0, 6, (height, width)), 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 24 small grey PNGs."""
    folder = tmp_path_factory.mktemp("films")
    for number in range(24):
        assert cv2.imwrite(str(folder / f"{number:03d}.png"), film(number))
    return folder


@pytest.fixture(scope="session")
def manifest(films: Path) -> Manifest:
    return from_folder(films)
