"""What is drawn by lot before anything is drawn with a brush: one person's chest, and how it is filmed.

In: a random generator, the findings wanted. Out: a `Body`. Lengths are shares of the film's height; x is 0 at the
middle of the chest and positive towards the patient's left, which is on the right of the film.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

View = Literal["PA", "AP"]


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What is wrong with the chest."""

    nodule: bool = False
    effusion: bool = False
    cardiomegaly: bool = False


@dataclass(frozen=True, kw_only=True)
class Nodule:
    """A round dense spot within a lung."""

    side: int  # +1 the patient's left, -1 the right
    across: float  # 0 at the inner edge of the lung, 1 at the outer
    down: float  # 0 at the apex, 1 at the dome
    radius: float


@dataclass(frozen=True, kw_only=True)
class Effusion:
    """Fluid that fills the base of one side."""

    side: int
    level: float  # share of the lung's height that is under fluid


@dataclass(frozen=True, kw_only=True)
class Body:
    """One film's worth of chest; `texture_seed` decides vessels and noise."""

    view: View
    aspect: float  # width / height of the film
    shift: float
    tilt_degrees: float
    trunk: float  # half width of the trunk
    apex: float  # y of the lungs' tips
    dome: float  # y of the right dome of the diaphragm
    dome_step: float  # by how much the left dome lies lower
    lung_outer: float  # half width of the thorax at its widest, inside
    heart_ratio: float  # width of the heart / inner width of the thorax
    rib_slope: float
    fat: float  # soft tissue around the ribs
    exposure: float  # exponent on the film's values; above 1 the film is darker
    noise: float  # standard deviation of the grain, as a share of the film's range
    has_marker: bool
    nodules: tuple[Nodule, ...]
    effusion: Effusion | None
    texture_seed: int


def draw_body(rng: np.random.Generator, *, view: View, findings: Findings) -> Body:
    """Draw one chest.  AP films are of patients lying down: the diaphragm is higher, the heart is magnified, the grain
    coarser.
    """
    supine = view == "AP"
    ratio = rng.uniform(0.58, 0.68) if findings.cardiomegaly else rng.uniform(0.40, 0.48)
    nodules = tuple(_draw_nodule(rng) for _ in range(int(rng.integers(1, 4)))) if findings.nodule else ()
    effusion = Effusion(side=_side(rng), level=rng.uniform(0.22, 0.5)) if findings.effusion else None
    return Body(
        view=view,
        aspect=rng.uniform(0.84, 1.05) if not supine else rng.uniform(0.95, 1.18),
        shift=rng.normal(0, 0.012),
        tilt_degrees=rng.normal(0, 2.5 if supine else 1.0),
        trunk=rng.uniform(0.37, 0.45),
        apex=rng.uniform(0.10, 0.16),
        dome=rng.uniform(0.66, 0.74) - 0.07 * supine,
        dome_step=rng.uniform(0.01, 0.035),
        lung_outer=rng.uniform(0.29, 0.34),
        heart_ratio=ratio * (1.08 if supine else 1.0),
        rib_slope=rng.uniform(0.10, 0.18),
        fat=rng.uniform(0.15, 0.35),
        exposure=rng.uniform(0.8, 1.25),
        noise=rng.uniform(0.006, 0.012) * (1.6 if supine else 1.0),
        has_marker=bool(rng.random() < 0.7),
        nodules=nodules,
        effusion=effusion,
        texture_seed=int(rng.integers(2**32)),
    )


def _draw_nodule(rng: np.random.Generator) -> Nodule:
    return Nodule(
        side=_side(rng), across=rng.uniform(0.3, 0.75), down=rng.uniform(0.25, 0.8), radius=rng.uniform(0.014, 0.032)
    )


def _side(rng: np.random.Generator) -> int:
    return 1 if rng.random() < 0.5 else -1
