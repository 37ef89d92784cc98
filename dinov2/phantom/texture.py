"""What gives a film its grain: vessels, noise, and writing.

In: coordinates or a film, a random generator. Out: float32 [H, W].
"""

import cv2
import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]
WORD = "SYNTHETIC"


def vessels(x: Plane, y: Plane, *, rng: np.random.Generator) -> Plane:
    """Share of a lung's air that vessels take: branches that leave both hila and grow thinner, 0..1."""
    height = x.shape[0]
    canvas = np.zeros(x.shape, np.uint8)  # cv2 draws smooth lines on bytes only
    column, row = (x.shape[1] / 2 - float(x[0].mean()) * height, -float(y[:, 0].mean() - 0.5) * height + height / 2)
    for side in (1, -1):
        hilum = np.array([column + side * 0.075 * height, row - 0.08 * height])
        for direction in rng.uniform(-1.25, 1.25, size=16):
            _branch(canvas, start=hilum, heading=direction if side > 0 else np.pi - direction, height=height, rng=rng)
    return np.asarray(cv2.GaussianBlur(canvas.astype(np.float32) / 255, (0, 0), max(0.6, 0.0016 * height)), np.float32)


def _branch(canvas: NDArray[np.uint8], *, start: Plane, heading: float, height: int, rng: np.random.Generator) -> None:
    """One vessel of some twenty short pieces, drawn in place; it bends at random and forks once."""
    point, width = start.astype(np.float64), 0.011 * height
    pieces = int(rng.integers(14, 24))
    for piece in range(pieces):
        heading += rng.normal(0, 0.16)
        end = point + 0.014 * height * np.array([np.cos(heading), np.sin(heading)])
        strength = round(230 * (1 - piece / pieces))
        for tip in (end, point + 0.03 * height * np.array([np.cos(heading + 0.7), np.sin(heading + 0.7)]))[
            : 1 + (piece % 5 == 3)
        ]:
            first, last = ([int(v) for v in np.rint(p)] for p in (point, tip))
            cv2.line(canvas, first, last, strength, max(1, round(width)), cv2.LINE_AA)
        point, width = end, width * 0.9


def grain(film: Plane, *, level: float, rng: np.random.Generator) -> Plane:
    """Noise that is stronger where fewer photons arrive, half of it fine and half blurred by the detector."""
    fine = rng.standard_normal(film.shape, dtype=np.float32)
    coarse = cv2.GaussianBlur(rng.standard_normal(film.shape, dtype=np.float32), (0, 0), 1.2) * 3
    return np.asarray(level * (0.5 + film) * (0.7 * fine + 0.7 * coarse), np.float32)


def writing(shape: tuple[int, ...], *, has_marker: bool) -> Plane:
    """White letters: the word that says what this is, and the L of the patient's left."""
    height, width = shape
    canvas = np.zeros(shape, np.uint8)
    thickness = max(1, height // 500)
    corner = (round(0.03 * width), round(0.975 * height))
    cv2.putText(canvas, WORD, corner, cv2.FONT_HERSHEY_SIMPLEX, height / 1300, 230, thickness, cv2.LINE_AA)
    if has_marker:
        corner = (round(0.91 * width), round(0.10 * height))
        cv2.putText(canvas, "L", corner, cv2.FONT_HERSHEY_DUPLEX, height / 480, 255, 2 * thickness, cv2.LINE_AA)
    return canvas.astype(np.float32) / np.float32(255)
