from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from dinov2.config.schema import Crops
from dinov2.data.augmentation import AugmentationRecipe, apply_crop, draw_crops
from dinov2.data.preview_steps import Step, steps_of
from tests.data.conftest import film

EVERYTHING = AugmentationRecipe(
    vflip_p=0.5,
    rotation_p=0.5,
    gamma_p=0.5,
    jitter_p=0.5,
    global1_blur_p=0.5,
    global1_solarize_p=0.5,
    local_solarize_p=0.5,
)


def steps(
    position: int, *, crop: int = 0, recipe: AugmentationRecipe = EVERYTHING
) -> tuple[tuple[Step, ...], np.ndarray]:
    """The steps of a crop, and the crop that a network gets."""
    draw = draw_crops(recipe, crops=Crops(local_crops_number=1), seed=0, position=position)[crop]
    picture = film(position)
    return steps_of(picture, draw, size=48, recipe=recipe, crop=crop), apply_crop(picture, draw, size=48)


@pytest.mark.parametrize("position", range(12))
@pytest.mark.parametrize("crop", [0, 1, 2])
def test_the_last_step_is_the_crop_that_a_network_gets(position, crop):
    found, expected = steps(position, crop=crop)
    done = [step.picture for step in found if step.picture is not None]
    assert np.array_equal(done[-1], expected)


def test_each_step_changes_the_picture_and_one_that_was_not_drawn_has_none():
    seen = set()
    for position in range(12):
        found, _ = steps(position)
        assert [step.drawn == "" for step in found] == [step.picture is None for step in found]
        done = [step for step in found if step.picture is not None]
        for before, after in pairwise(done):
            if not np.array_equal(before.picture, after.picture):
                seen.add(after.name)
    assert seen == {"turn", "flip", "brightness", "contrast", "gamma", "blur", "solarise"}


def test_brightness_and_contrast_come_in_the_order_that_was_drawn():
    orders = {tuple(s.name for s in steps(p)[0] if s.name in ("brightness", "contrast")) for p in range(12)}
    assert orders == {("brightness", "contrast"), ("contrast", "brightness")}


def test_what_no_crop_can_get_is_left_out_and_what_another_crop_can_get_is_named():
    recipe = replace(AugmentationRecipe(), jitter_p=0.0, global1_blur_p=0.0)
    found, _ = steps(0, recipe=recipe)
    assert [step.name for step in found] == ["cut and resize", "flip", "blur", "solarise"]
    assert {step.name: step.chance for step in found}["blur"] == "never for this crop"


def test_a_step_tells_its_numbers_and_its_range():
    found = [step for position in range(12) for step in steps(position)[0] if step.name == "blur" and step.drawn]
    assert found
    assert all(step.chance == "p 0.5, 0.1 to 2 px" and step.drawn.endswith(" px") for step in found)
    assert steps(0)[0][0].drawn.endswith("of the film, to 48")
    assert steps(0)[0][0].levels.startswith("mean level ")
    white = Step("cut", "all", "always", np.full((4, 4), 255, np.uint8))
    assert white.levels == "mean level 255, 100.0 % at 0 or 255"
