from dataclasses import replace

import numpy as np
import pytest

from dinov2.config.schema import Augmentation, Crops
from dinov2.data.augmentation import PRESETS, apply_crop, draw_crops, place_box, resolve

CROPS = Crops(global_crops_scale=(0.5, 1.0), local_crops_scale=(0.2, 0.5), local_crops_number=4)
OFF = {
    "hflip_p": 0,
    "jitter_p": 0,
    "global1_blur_p": 0,
    "global2_blur_p": 0,
    "local_blur_p": 0,
    "global2_solarize_p": 0,
}


def draws(num: int, *, preset: str = "dinov2", crops: Crops = CROPS, seed: int = 0, **keys: object):
    recipe = resolve(Augmentation(preset=preset, **keys))
    return [draw_crops(recipe, crops=crops, seed=seed, position=p) for p in range(num)]


def test_draws_are_a_function_of_seed_and_position():
    first, second = draws(2), draws(2)
    assert first == second
    assert first[0] != first[1]
    assert first[0] != draws(1, seed=1)[0]


def test_the_number_of_local_crops_changes_no_other_draw():
    many, few = draws(3)[2], draws(3, crops=replace(CROPS, local_crops_number=1))[2]
    assert many[:3] == few


def test_switching_one_step_off_changes_no_other_draw():
    plain, quiet = draws(1)[0][0], draws(1, jitter_p=0.0)[0][0]
    assert replace(plain, brightness=None, contrast=None) == quiet


def test_boxes_lie_in_the_picture_and_have_the_area_and_ratio_asked_for():
    height, width = 518, 622
    for drawn in draws(300):
        for i, draw in enumerate(drawn):
            low, high = (0.5, 1.0) if i < 2 else (0.2, 0.5)
            box = place_box(draw, height=height, width=width)
            assert 0 <= box.top <= height - box.height
            assert 0 <= box.left <= width - box.width
            assert low * 0.98 < box.height * box.width / (height * width) <= high * 1.01
            assert 0.74 < box.width / box.height < 1.35


def test_boxes_reach_every_edge():
    boxes = [place_box(d[2], height=100, width=120) for d in draws(500)]
    assert min(b.top for b in boxes) == 0
    assert min(b.left for b in boxes) == 0
    assert max(b.top + b.height for b in boxes) == 100
    assert max(b.left + b.width for b in boxes) == 120


def test_a_picture_too_long_for_any_box_gives_the_largest_allowed_ones_along_its_whole_length():
    boxes = [place_box(d[0], height=1000, width=200) for d in draws(200)]
    assert all((b.width, b.height) == (200, round(200 / 0.75)) for b in boxes)
    assert min(b.top for b in boxes) < 50
    assert max(b.top + b.height for b in boxes) > 950


def share(flags: list[bool]) -> float:
    return sum(flags) / len(flags)


@pytest.mark.parametrize(("preset", "blur", "solarize"), [("dinov2", (1, 0.1, 0.5), 0.2), ("cxr", (0.5, 0.1, 0.5), 0)])
def test_every_step_happens_as_often_as_the_preset_says(preset, blur, solarize):
    drawn = draws(2000, preset=preset)
    off = 5 * 0.5 / np.sqrt(2000)
    for crop in (0, 1, 2):
        assert share([d[crop].blur_sigma is not None for d in drawn]) == pytest.approx(blur[crop], abs=off)
        assert share([d[crop].hflip for d in drawn]) == pytest.approx(0.5, abs=off)
        assert share([d[crop].brightness is not None for d in drawn]) == pytest.approx(0.8, abs=off)
        assert share([d[crop].contrast_first for d in drawn]) == pytest.approx(0.5, abs=off)
    assert share([d[1].solarize_threshold == 128 for d in drawn]) == pytest.approx(solarize, abs=off)
    assert not any(d[i].vflip or d[i].angle_degrees or d[i].gamma for d in drawn for i in range(6))


def test_values_fill_their_ranges_and_stay_inside():
    drawn = draws(1000)
    sigmas = [d[0].blur_sigma for d in drawn]
    factors = [d[0].contrast for d in drawn if d[0].contrast is not None]
    assert 0.1 <= min(sigmas) < 0.15
    assert 1.95 < max(sigmas) <= 2.0
    assert 0.6 <= min(factors) < 0.63
    assert 1.37 < max(factors) <= 1.4


def test_steps_that_are_off_by_default_can_be_switched_on():
    drawn = draws(50, vflip_p=1.0, rotation_p=1.0, rotation_degrees=15.0, gamma_p=1.0, gamma=(0.5, 0.6))
    assert all(d[0].vflip for d in drawn)
    assert all(abs(d[0].angle_degrees) <= 15 for d in drawn)
    assert max(d[0].angle_degrees for d in drawn) > 5
    assert all(0.5 <= d[0].gamma <= 0.6 for d in drawn)


def test_applying_a_draw_twice_gives_the_same_crop_and_leaves_the_picture_alone():
    picture = np.random.default_rng(0).integers(0, 256, (90, 80), dtype=np.uint8)
    before = picture.copy()
    for draw in draws(1, rotation_p=1.0, gamma_p=1.0)[0]:
        crop = apply_crop(picture, draw, size=42)
        assert (crop.shape, crop.dtype) == ((42, 42), np.uint8)
        assert np.array_equal(crop, apply_crop(picture, draw, size=42))
    assert np.array_equal(picture, before)


def test_with_every_step_off_a_crop_of_the_whole_picture_is_the_picture():
    picture = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    whole = Crops(global_crops_scale=(1.0, 1.0))
    draw = draws(1, crops=whole, crop_ratio=(1.0, 1.0), **OFF)[0][0]
    assert np.array_equal(apply_crop(picture, draw, size=64), picture)


def test_no_step_of_the_presets_needs_colour():
    assert not {"saturation", "hue", "grayscale"} & set(PRESETS["dinov2"].__dataclass_fields__)
