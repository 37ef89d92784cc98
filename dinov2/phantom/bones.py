"""Ribs, collar bones and spine.

In: coordinates and a `Body`. Out: what bone adds to a film, float32 [H, W]. Ribs are tubes: denser at their edges than
in their middle.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from dinov2.phantom.body import Body

Plane = NDArray[np.float32]
NUM_RIBS = 10
RIB_WIDTH = 0.020
SUBPIXEL_BITS = 4  # cv2 takes fixed-point coordinates


def bones(x: Plane, y: Plane, *, body: Body) -> Plane:
    """Everything that is bone."""
    back = [_back_rib(body, number=n, side=side) for n in range(NUM_RIBS) for side in (1, -1)]
    front = [_front_rib(body, number=n, side=side) for n in range(1, 7) for side in (1, -1)]
    collar = [_collar_bone(body, side=side) for side in (1, -1)]
    tubes = 0.13 * _tubes(back, x=x, y=y, width=RIB_WIDTH) + 0.07 * _tubes(front, x=x, y=y, width=RIB_WIDTH * 1.2)
    tubes += 0.16 * _tubes(collar, x=x, y=y, width=0.024) + _spine(x, y)
    return tubes


def _back_rib(body: Body, *, number: int, side: int) -> Plane:
    """Points (x, y): out of the spine, over its highest point, down along the side."""
    t = np.linspace(0, 1, 40)
    reach = (body.lung_outer + 0.012) * np.sin(np.pi / 2 * min(1, 0.42 + 0.16 * number)) ** 0.8
    start = body.apex - 0.01 + number * (body.dome - body.apex + 0.06) / NUM_RIBS
    sag = body.rib_slope * (0.5 + 0.06 * number)
    return np.stack(
        [side * (0.02 + (reach - 0.02) * np.sin(np.pi / 2 * t)), start - 0.03 * np.sin(np.pi * t) + sag * t**2.5], 1
    )


def _front_rib(body: Body, *, number: int, side: int) -> Plane:
    """Points (x, y): from the side, downwards to the middle, ending in cartilage that no film shows."""
    t = np.linspace(0, 0.8, 30)
    reach = (body.lung_outer + 0.012) * np.sin(np.pi / 2 * min(1, 0.5 + 0.16 * number)) ** 0.8
    start = body.apex + 0.05 + number * (body.dome - body.apex) / 9
    return np.stack([side * (reach * np.cos(np.pi / 2 * t)), start + body.rib_slope * 1.1 * np.sin(np.pi / 2 * t)], 1)


def _collar_bone(body: Body, *, side: int) -> Plane:
    t = np.linspace(0, 1, 30)
    return np.stack([side * (0.035 + 0.30 * t), body.apex + 0.055 - 0.055 * t - 0.018 * np.sin(2 * np.pi * t)], 1)


def _tubes(lines: list[Plane], *, x: Plane, y: Plane, width: float) -> Plane:
    """Lines drawn as tubes; x and y say how the chest lies on the film."""
    height = x.shape[0]
    walls, cores = (np.zeros(x.shape, np.uint8) for _ in range(2))
    pixels = [_to_pixels(line, x=x, y=y) for line in lines]
    for canvas, share in ((walls, 1.0), (cores, 0.55)):
        thickness = max(1, round(width * share * height))
        cv2.polylines(canvas, pixels, False, 255, thickness, cv2.LINE_AA, SUBPIXEL_BITS)
    tube = walls.astype(np.float32) - 0.35 * cores.astype(np.float32)
    return np.asarray(cv2.GaussianBlur(tube / 255, (0, 0), max(0.6, 0.0022 * height)), np.float32)


def _to_pixels(line: Plane, *, x: Plane, y: Plane) -> NDArray[np.int32]:
    """Fixed-point pixels of points; the grid is a rotation and shift, so its corner and steps invert it."""
    origin = np.array([x[0, 0], y[0, 0]])
    # differences over the whole film: neighbouring float32 values differ by too few digits
    column_step = np.array([x[0, -1] - x[0, 0], y[0, -1] - y[0, 0]]) / (x.shape[1] - 1)
    row_step = np.array([x[-1, 0] - x[0, 0], y[-1, 0] - y[0, 0]]) / (x.shape[0] - 1)
    pixels = np.linalg.solve(np.stack([column_step, row_step], 1), (line - origin).T).T
    return np.asarray(np.rint(pixels * 2**SUBPIXEL_BITS).reshape(-1, 1, 2), np.int32)


def _spine(x: Plane, y: Plane) -> Plane:
    """Vertebrae, with gaps between them."""
    column = 1 / (1 + np.exp(-np.clip((0.030 - abs(x)) / 0.004, -30, 30)))
    return np.asarray(column * (0.13 + 0.05 * np.cos(2 * np.pi * y / 0.052)), np.float32)
