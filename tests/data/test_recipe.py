import pytest

from dinov2.config.schema import Augmentation
from dinov2.data.augmentation import PRESETS, resolve
from dinov2.errors import ConfigError


def test_without_settings_the_recipe_is_the_preset():
    assert resolve(Augmentation()) == PRESETS["dinov2"]
    assert resolve(Augmentation(preset="cxr")) == PRESETS["cxr"]


def test_the_chest_preset_differs_in_blur_and_solarisation_only():
    public, chest = PRESETS["dinov2"], PRESETS["cxr"]
    assert [(public.blur_p(c), chest.blur_p(c)) for c in (0, 1, 2)] == [(1.0, 0.5), (0.1, 0.1), (0.5, 0.5)]
    assert [(public.solarize_p(c), chest.solarize_p(c)) for c in (0, 1, 2)] == [(0.0, 0.0), (0.2, 0.0), (0.0, 0.0)]


def test_a_value_that_is_set_wins_over_the_preset_even_where_it_is_zero():
    recipe = resolve(Augmentation(preset="cxr", hflip_p=0.0, global2_solarize_p=0.3))
    assert (recipe.hflip_p, recipe.global2_solarize_p) == (0.0, 0.3)


def test_every_key_of_the_section_reaches_the_recipe():
    keys = set(Augmentation.__dataclass_fields__) - {"preset"}
    assert keys == set(PRESETS["dinov2"].__dataclass_fields__)


def test_all_faults_are_told_together():
    with pytest.raises(ConfigError) as caught:
        resolve(Augmentation(hflip_p=1.5, blur_kernel=8, crop_ratio=(2.0, 0.5), contrast=-1.0, solarize_threshold=300))
    told = "\n".join(caught.value.faults)
    assert len(caught.value.faults) == 5
    for words in (
        "augmentation.hflip_p=1.5 is a probability",
        "augmentation.blur_kernel=8 is a centred kernel's side; give an odd number",
        "augmentation.crop_ratio=[2.0, 0.5] is a range",
        "augmentation.contrast=-1.0 is the half-width of a range",
        "augmentation.solarize_threshold=300 is a grey level",
    ):
        assert words in told
