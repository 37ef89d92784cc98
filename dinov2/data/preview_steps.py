"""A crop before and after every operation.

In: a film, what was drawn for one of its crops, the recipe that it was drawn from. Out: a `Step` an operation, in the
order in which they are done; the last picture is the crop that a network gets.

Nothing is computed in a second way: a step is the crop with the operations up to it (`apply_crop`) and without those
after it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinov2.data.augmentation import AugmentationRecipe, CropDraw, apply_crop, place_box

Picture = NDArray[np.uint8]


@dataclass(frozen=True)
class Step:
    """One operation on one crop."""

    name: str
    drawn: str  # the numbers that were drawn; "" where it was not done
    chance: str  # how often it is done, and from what range numbers come
    picture: Picture | None  # [S, S] after it; None where it was not done

    @property
    def levels(self) -> str:
        """Mean grey level of 255, and the share of pixels that lie at 0 or 255 where there are some."""
        if self.picture is None:
            return ""
        ends = float(np.mean((self.picture == 0) | (self.picture == 255)))
        clipped = f", {100 * ends:.1f} % at 0 or 255" if ends >= 0.0005 else ""
        return f"mean level {self.picture.mean():.0f}{clipped}"


@dataclass(frozen=True)
class _Operation:
    name: str
    keys: tuple[str, ...]  # of the draw
    probability: float
    drawn: str
    among: str  # the range


def steps_of(
    film: Picture, draw: CropDraw, *, size: int, recipe: AugmentationRecipe, crop: int, kinds: Sequence[int] = (0, 1, 2)
) -> tuple[Step, ...]:
    """The cut, then every operation that the recipe can do to one of the crops `kinds` (0 and 1 global, 2 local).

    uint8 [H, W] -> pictures uint8 [size, size]. `crop` is the number of this one.
    """
    operations = _operations(draw, recipe=recipe, crop=crop)
    possible = {one.name for kind in kinds for one in _operations(draw, recipe=recipe, crop=kind) if one.probability}
    nothing: dict[str, Any] = {key: False if key.endswith("flip") else None for one in operations for key in one.keys}
    done = replace(draw, **nothing)
    steps = [Step("cut and resize", _cut(film, draw, size=size), "always", apply_crop(film, done, size=size))]
    for one in operations:
        if one.name not in possible:
            continue
        chance = f"p {one.probability:g}{one.among}" if one.probability else "never for this crop"
        if not one.drawn:
            steps.append(Step(one.name, "", chance, None))
            continue
        done = replace(done, **{key: getattr(draw, key) for key in one.keys})
        steps.append(Step(one.name, one.drawn, chance, apply_crop(film, done, size=size)))
    return tuple(steps)


def _operations(draw: CropDraw, *, recipe: AugmentationRecipe, crop: int) -> tuple[_Operation, ...]:
    jitter = [
        _Operation(
            "brightness",
            ("brightness",),
            recipe.jitter_p if recipe.brightness > 0 else 0.0,
            "" if draw.brightness is None else f"x {draw.brightness:.2f}",
            _around(recipe.brightness),
        ),
        _Operation(
            "contrast",
            ("contrast",),
            recipe.jitter_p if recipe.contrast > 0 else 0.0,
            "" if draw.contrast is None else f"x {draw.contrast:.2f} about the mean",
            _around(recipe.contrast),
        ),
    ]
    flips = [word for word, is_done in (("left-right", draw.hflip), ("top-bottom", draw.vflip)) if is_done]
    angle = draw.angle_degrees
    return (
        _Operation(
            "turn",
            ("angle_degrees",),
            recipe.rotation_p if recipe.rotation_degrees > 0 else 0.0,
            "" if angle is None else f"{angle:+.1f} degrees",
            f", {-recipe.rotation_degrees:g} to {recipe.rotation_degrees:g}",
        ),
        _Operation(
            "flip", ("hflip", "vflip"), max(recipe.hflip_p, recipe.vflip_p), " and ".join(flips), _vertical(recipe)
        ),
        *(reversed(jitter) if draw.contrast_first else jitter),
        _Operation(
            "gamma",
            ("gamma",),
            recipe.gamma_p,
            "" if draw.gamma is None else f"power {draw.gamma:.2f}",
            f", {recipe.gamma[0]:g} to {recipe.gamma[1]:g}",
        ),
        _Operation(
            "blur",
            ("blur_sigma",),
            recipe.blur_p(crop),
            "" if draw.blur_sigma is None else f"sigma {draw.blur_sigma:.2f} px",
            f", {recipe.blur_sigma[0]:g} to {recipe.blur_sigma[1]:g} px",
        ),
        _Operation(
            "solarise",
            ("solarize_threshold",),
            recipe.solarize_p(crop),
            "" if draw.solarize_threshold is None else f"levels from {draw.solarize_threshold} inverted",
            "",
        ),
    )


def _cut(film: Picture, draw: CropDraw, *, size: int) -> str:
    box = place_box(draw, height=film.shape[0], width=film.shape[1])
    share = box.width * box.height / film.size
    return f"{box.width} x {box.height} px, {100 * share:.0f} % of the film, to {size}"


def _around(spread: float) -> str:
    return f", {max(0.0, 1 - spread):g} to {1 + spread:g}"


def _vertical(recipe: AugmentationRecipe) -> str:
    return f", top-bottom p {recipe.vflip_p:g}" if recipe.vflip_p else ""
