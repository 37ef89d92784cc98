"""Draw, then apply.

In: a recipe, a seed and a position of the sample stream. Out: what happens to each crop (`CropDraw`), known before the
picture is opened; and, with the picture, the crops themselves.

All draws of a picture are one table of uniform numbers in a fixed order, a row a crop. So a crop's draws depend neither
on the number of local crops nor on the picture's size, and a picture that takes another's place gets the same draws.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dinov2.batch import NUM_GLOBAL_CROPS
from dinov2.config.schema import Crops
from dinov2.data.pixels import CropBox, resample, shade, turn
from dinov2.data.randomness import Purpose, generator
from dinov2.data.recipe import PRESETS, AugmentationRecipe, resolve

__all__ = ["NUM_TRIES", "PRESETS", "AugmentationRecipe", "CropDraw", "apply_crop", "draw_crops", "place_box", "resolve"]

NUM_TRIES = 10  # boxes drawn before the fallback of `place_box`
# A row of the table: NUM_TRIES x (area, ratio, top, left), then one number for each of these.
SWITCHES = (
    *("hflip", "vflip", "rotate", "angle", "jitter", "brightness", "contrast", "order"),
    *("gamma_on", "gamma", "blur", "sigma", "solarize"),
)
NUM_DRAWS = 4 * NUM_TRIES + len(SWITCHES)

Picture = NDArray[np.uint8]


class Candidate(NamedTuple):
    """A crop box before the picture's size is known."""

    area: float  # share of the picture's
    ratio: float  # width / height
    top: float  # 0 .. 1 of the room there is
    left: float


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """The candidate boxes of a crop; each is worked out when it is looked at, which is mostly the first alone."""

    draws: tuple[float, ...]  # NUM_TRIES x (area, ratio, top, left), each 0 .. 1
    scale: tuple[float, float]
    ratio: tuple[float, float]

    def __iter__(self) -> Iterator[Candidate]:
        low, span = math.log(self.ratio[0]), math.log(self.ratio[1] / self.ratio[0])
        for i in range(0, len(self.draws), 4):
            area, ratio, top, left = self.draws[i : i + 4]
            yield Candidate(_between(area, self.scale), math.exp(low + span * ratio), top, left)


@dataclass(frozen=True, kw_only=True)
class CropDraw:
    """One crop: candidate boxes, and what is done to it. None stands for: not done."""

    boxes: Candidates
    ratio_range: tuple[float, float]
    hflip: bool
    vflip: bool
    angle_degrees: float | None
    brightness: float | None
    contrast: float | None
    contrast_first: bool
    gamma: float | None
    blur_sigma: float | None
    blur_kernel: int
    solarize_threshold: int | None


def draw_crops(recipe: AugmentationRecipe, *, crops: Crops, seed: int, position: int) -> tuple[CropDraw, ...]:
    """The draws of every crop of one picture: the global crops, then the local ones."""
    num_crops = NUM_GLOBAL_CROPS + crops.local_crops_number
    table = generator(seed, position, purpose=Purpose.CROPS).random((num_crops, NUM_DRAWS))
    scales = [crops.global_crops_scale] * NUM_GLOBAL_CROPS + [crops.local_crops_scale] * crops.local_crops_number
    return tuple(_draw(recipe, crop=i, scale=scale, row=table[i]) for i, scale in enumerate(scales))


def place_box(draw: CropDraw, *, height: int, width: int) -> CropBox:
    """The first candidate that fits into the picture, in whole pixels.

    Where none of the ten fits (a very long or very wide picture), the largest box whose ratio is allowed, placed where
    the first candidate lay; the public transform takes that box from the centre, and would never see the ends of such a
    picture.
    """
    for area, ratio, top, left in draw.boxes:
        w = round(math.sqrt(area * height * width * ratio))
        h = round(math.sqrt(area * height * width / ratio))
        if 0 < w <= width and 0 < h <= height:
            return CropBox(int(top * (height - h + 1)), int(left * (width - w + 1)), h, w)
    low, high = draw.ratio_range
    w = max(1, min(width, round(height * high)))
    h = max(1, min(height, round(width / low)))
    _, _, top, left = next(iter(draw.boxes))
    return CropBox(int(top * (height - h + 1)), int(left * (width - w + 1)), h, w)


def apply_crop(picture: Picture, draw: CropDraw, *, size: int) -> Picture:
    """Cut, resize, flip and shade one crop; deterministic.  uint8 [H, W] -> uint8 [size, size]"""
    box = place_box(draw, height=picture.shape[0], width=picture.shape[1])
    if draw.angle_degrees is None:
        region = picture[box.top : box.top + box.height, box.left : box.left + box.width]
    else:
        region = turn(picture, box, degrees=draw.angle_degrees)
    return shade(
        resample(region, size=size, hflip=draw.hflip, vflip=draw.vflip),
        brightness=draw.brightness,
        contrast=draw.contrast,
        contrast_first=draw.contrast_first,
        gamma=draw.gamma,
        blur_sigma=draw.blur_sigma,
        blur_kernel=draw.blur_kernel,
        solarize_threshold=draw.solarize_threshold,
    )


def _draw(recipe: AugmentationRecipe, *, crop: int, scale: tuple[float, float], row: NDArray[np.float64]) -> CropDraw:
    values: list[float] = row.tolist()
    u = dict(zip(SWITCHES, values[4 * NUM_TRIES :], strict=True))
    jitter = u["jitter"] < recipe.jitter_p
    return CropDraw(
        boxes=Candidates(draws=tuple(values[: 4 * NUM_TRIES]), scale=scale, ratio=recipe.crop_ratio),
        ratio_range=recipe.crop_ratio,
        hflip=u["hflip"] < recipe.hflip_p,
        vflip=u["vflip"] < recipe.vflip_p,
        angle_degrees=recipe.rotation_degrees * (2 * u["angle"] - 1) if u["rotate"] < recipe.rotation_p else None,
        brightness=_factor(u["brightness"], spread=recipe.brightness) if jitter else None,
        contrast=_factor(u["contrast"], spread=recipe.contrast) if jitter else None,
        contrast_first=u["order"] < 0.5,
        gamma=_between(u["gamma"], recipe.gamma) if u["gamma_on"] < recipe.gamma_p else None,
        blur_sigma=_between(u["sigma"], recipe.blur_sigma) if u["blur"] < recipe.blur_p(crop) else None,
        blur_kernel=recipe.blur_kernel,
        solarize_threshold=recipe.solarize_threshold if u["solarize"] < recipe.solarize_p(crop) else None,
    )


def _between(u: float, limits: tuple[float, float]) -> float:
    return limits[0] + (limits[1] - limits[0]) * u


def _factor(u: float, *, spread: float) -> float | None:
    """A factor in 1 - spread .. 1 + spread, never below 0; None where the spread is 0: the factor would be 1."""
    return _between(u, (max(0.0, 1 - spread), 1 + spread)) if spread > 0 else None
