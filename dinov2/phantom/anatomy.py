"""From a drawn body to a film: what X-rays lose on their way through it.

In: a `Body` and a size. Out: a `Phantom`: film float32 [H, W] in 0..1, larger where more is absorbed, and a mask uint8
[H, W]. A caricature, made for tests of software: every organ is a smooth shape whose thickness is added or, for air,
taken away.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dinov2.phantom.body import Body
from dinov2.phantom.bones import bones
from dinov2.phantom.texture import grain, vessels, writing

Plane = NDArray[np.float32]
BACKGROUND, LEFT_LUNG, RIGHT_LUNG, HEART = range(4)


@dataclass(frozen=True)
class Phantom:
    """A film and what is where on it; left and right are the patient's."""

    film: Plane
    mask: NDArray[np.uint8]  # 0 background, 1 left lung, 2 right lung, 3 heart


@dataclass(frozen=True)
class Grid:
    """Coordinates of every pixel, in shares of the film's height."""

    x: Plane  # 0 in the middle of the chest, positive to the patient's left
    y: Plane  # 0 at the top

    @property
    def softness(self) -> float:
        """Width of the edge of an organ."""
        return 0.006


def render(body: Body, *, short_side: int) -> Phantom:
    """Draw the film of a body; the same body and size give the same values."""
    grid = _grid(body, short_side=short_side)
    left, right = (_lung(body, grid, side=side) for side in (1, -1))
    heart = _heart(body, grid)
    rng = np.random.default_rng(body.texture_seed)
    air = (left + right) * (1 - 0.75 * heart) * (1 - _fluid(body, grid))
    tree = vessels(grid.x, grid.y, rng=rng)
    film = _trunk(body, grid) * (1 + 0.3 * body.fat)
    film += -0.62 * air + 0.30 * air * tree + 0.22 * heart + _middle(grid) + _nodules(body, grid)
    film += bones(grid.x, grid.y, body=body) * (film > 0.05)
    film += _abdomen(body, grid)
    film = np.clip((film - film.min()) / (np.percentile(film, 99.8) - film.min()), 0, 1) ** np.float32(body.exposure)
    film = np.clip(film + grain(film, level=body.noise, rng=rng), 0, 1)
    film = np.maximum(film, writing(film.shape, has_marker=body.has_marker))
    return Phantom(film=film.astype(np.float32), mask=_mask(left, right, heart))


def _grid(body: Body, *, short_side: int) -> Grid:
    height = short_side if body.aspect >= 1 else round(short_side / body.aspect)
    width = round(short_side * body.aspect) if body.aspect >= 1 else short_side
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    x = (x + 0.5 - width / 2) / height - body.shift
    y = (y + 0.5) / height
    angle = np.deg2rad(body.tilt_degrees)
    turned = x * np.cos(angle) + (y - 0.5) * np.sin(angle)
    return Grid(x=turned.astype(np.float32), y=((y - 0.5) * np.cos(angle) - x * np.sin(angle) + 0.5).astype(np.float32))


def _edge(distance: Plane, *, softness: float) -> Plane:
    """0 outside, 1 inside, soft between; `distance` is positive inside."""
    return np.asarray(1 / (1 + np.exp(-np.clip(distance / softness, -30, 30))), np.float32)


def _smoothstep(t: Plane) -> Plane:
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)


def _trunk(body: Body, grid: Grid) -> Plane:
    """Soft tissue: a neck that widens to shoulders and narrows to the flanks; thick in the middle, thin at the skin."""
    shoulders = 0.10 + (body.trunk + 0.10 - 0.10) * _smoothstep((grid.y + 0.02) / 0.20)
    half = shoulders - 0.08 * _smoothstep((grid.y - 0.20) / 0.25)
    inside = np.clip(1 - (grid.x / half) ** 2, 0, 1)
    return (0.25 * _edge(half - abs(grid.x), softness=0.004) + 0.75 * np.sqrt(inside)).astype(np.float32)


def _lung_edges(body: Body, down: Plane) -> tuple[Plane, Plane]:
    """Distance of the inner and the outer edge from the middle, at a share of the way down the lung."""
    t = np.clip(down, 0, 1.6)
    inner = 0.050 + 0.050 * np.exp(-t / 0.10) + 0.012 * np.exp(-(((t - 0.5) / 0.2) ** 2))
    outer = 0.105 + (body.lung_outer - 0.105) * np.sin(np.pi / 2 * np.clip(t * 1.15, 0, 1)) ** 0.75
    return inner.astype(np.float32), outer.astype(np.float32)


def _dome(body: Body, *, side: int) -> float:
    return body.dome + (body.dome_step if side > 0 else 0)


def _lung(body: Body, grid: Grid, *, side: int) -> Plane:
    """Thickness 0..1 of the air of one lung, down to the curve of the diaphragm with its sharp outer angle."""
    across, dome = side * grid.x, _dome(body, side=side)
    inner, outer = _lung_edges(body, (grid.y - body.apex) / (dome - body.apex))
    floor = (
        dome + 0.11 * np.clip((across - 0.15) / 0.17, 0, 1.2) ** 2 + 0.05 * np.clip((0.12 - across) / 0.1, 0, 1) ** 2
    )
    inside = _edge(across - inner, softness=grid.softness) * _edge(outer - across, softness=grid.softness)
    inside *= _edge(grid.y - body.apex, softness=grid.softness) * _edge(floor - grid.y, softness=grid.softness)
    middle, half = (inner + outer) / 2, (outer - inner) / 2
    return (inside * (0.55 + 0.45 * np.sqrt(np.clip(1 - ((across - middle) / half) ** 2, 0, 1)))).astype(np.float32)


def _heart(body: Body, grid: Grid) -> Plane:
    """Thickness 0..1 of the heart: a slanted ellipse, two thirds of it on the left, its tip on the diaphragm."""
    half = body.heart_ratio * body.lung_outer
    angle = np.deg2rad(35)
    x, y = grid.x - 0.30 * half, grid.y - (_dome(body, side=1) - 0.62 * half)
    u, v = x * np.cos(angle) + y * np.sin(angle), -x * np.sin(angle) + y * np.cos(angle)
    radius = np.sqrt((u / (1.06 * half)) ** 2 + (v / (0.88 * half)) ** 2)
    body_of_it = _edge((1 - radius) * half, softness=0.008) * np.sqrt(np.clip(1.15 - radius**2, 0, 1))
    return np.asarray(np.clip(body_of_it, 0, 1), np.float32)


def _middle(grid: Grid) -> Plane:
    """Mediastinum, the knob of the aorta, and the air of the windpipe."""
    band = _edge(0.055 - abs(grid.x), softness=0.012) * _smoothstep((grid.y - 0.08) / 0.2)
    knob = _edge(0.038 - np.hypot(grid.x - 0.050, grid.y - 0.30), softness=0.006)
    pipe = _edge(0.016 - abs(grid.x + 0.004), softness=0.004) * _edge(0.33 - grid.y, softness=0.02)
    return np.asarray(0.14 * band + 0.10 * knob - 0.16 * pipe, np.float32)


def _abdomen(body: Body, grid: Grid) -> Plane:
    """Liver and the rest below the domes, with the bubble of the stomach on the left."""
    dense = _smoothstep((grid.y - body.dome) / 0.15) * _edge(body.trunk - 0.02 - abs(grid.x), softness=0.02)
    bubble_y = body.dome + body.dome_step + 0.07
    bubble = _edge(1 - np.hypot((grid.x - 0.16) / 0.07, (grid.y - bubble_y) / 0.045), softness=0.15)
    return np.asarray(0.16 * dense - 0.20 * bubble, np.float32)


def _fluid(body: Body, grid: Grid) -> Plane:
    """0..1 where fluid has taken the place of air; its surface climbs the chest wall."""
    if body.effusion is None:
        return np.zeros_like(grid.x)
    across = body.effusion.side * grid.x
    dome = _dome(body, side=body.effusion.side)
    surface = dome - body.effusion.level * (dome - body.apex) - 0.12 * np.clip((across - 0.16) / 0.16, 0, 1) ** 2
    return 0.9 * _edge(grid.y - surface, softness=0.012) * _edge(across - 0.02, softness=0.01)


def _nodules(body: Body, grid: Grid) -> Plane:
    found = np.zeros_like(grid.x)
    for nodule in body.nodules:
        dome = _dome(body, side=nodule.side)
        y = body.apex + nodule.down * (dome - body.apex)
        inner, outer = (float(edge) for edge in _lung_edges(body, np.array(nodule.down, np.float32)))
        x = nodule.side * (inner + nodule.across * (outer - inner))
        found += 0.20 * _edge(nodule.radius - np.hypot(grid.x - x, grid.y - y), softness=0.0035)
    return found


def _mask(left: Plane, right: Plane, heart: Plane) -> NDArray[np.uint8]:
    mask = np.full(left.shape, BACKGROUND, np.uint8)
    mask[left > 0.4] = LEFT_LUNG
    mask[right > 0.4] = RIGHT_LUNG
    mask[heart > 0.4] = HEART
    return np.asarray(cv2.medianBlur(mask, 3), np.uint8)
