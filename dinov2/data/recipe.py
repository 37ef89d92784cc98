"""What is done to a crop, and how often: the presets and the `augmentation` section.

In: the `augmentation` section. Out: an `AugmentationRecipe` in which every value is set.
"""

from dataclasses import dataclass, fields, replace

from dinov2.batch import NUM_GLOBAL_CROPS
from dinov2.config.schema import Augmentation
from dinov2.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class AugmentationRecipe:
    """Every probability and range of the augmentations; the names are those of the `augmentation` section."""

    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)  # width / height of the crop box
    hflip_p: float = 0.5
    vflip_p: float = 0.0
    rotation_p: float = 0.0
    rotation_degrees: float = 10.0
    jitter_p: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    gamma_p: float = 0.0
    gamma: tuple[float, float] = (0.7, 1.5)
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    blur_kernel: int = 9
    global1_blur_p: float = 1.0
    global2_blur_p: float = 0.1
    local_blur_p: float = 0.5
    global1_solarize_p: float = 0.0
    global2_solarize_p: float = 0.2
    local_solarize_p: float = 0.0
    solarize_threshold: int = 128

    def blur_p(self, crop: int) -> float:
        """Probability of blur for crop 0, 1 (the global crops) or any later one (local)."""
        return (self.global1_blur_p, self.global2_blur_p)[crop] if crop < NUM_GLOBAL_CROPS else self.local_blur_p

    def solarize_p(self, crop: int) -> float:
        """Probability of solarisation for crop 0, 1 (the global crops) or any later one (local)."""
        if crop < NUM_GLOBAL_CROPS:
            return (self.global1_solarize_p, self.global2_solarize_p)[crop]
        return self.local_solarize_p


PRESETS = {
    # The public DINOv2 set (Oquab et al. 2023). Its saturation, hue and grey steps are left out, because they do
    # nothing to a grey picture: all three channels are equal before and after.
    "dinov2": AugmentationRecipe(),
    # What RAD-DINO is reported to use: less blur on the first global crop, no solarisation (which turns lungs white and
    # bones black).
    "cxr": AugmentationRecipe(global1_blur_p=0.5, global2_solarize_p=0.0),
}


def resolve(section: Augmentation) -> AugmentationRecipe:
    """The preset, with every value that the section sets itself.  Raises ConfigError with all faults at once."""
    chosen = {f.name: getattr(section, f.name) for f in fields(AugmentationRecipe)}
    recipe = replace(PRESETS[section.preset], **{name: value for name, value in chosen.items() if value is not None})
    faults = _faults(recipe)
    if faults:
        raise ConfigError("augmentation: " + "; ".join(faults), faults=faults)
    return recipe


def _faults(recipe: AugmentationRecipe) -> tuple[str, ...]:
    faults = []
    for name in (f.name for f in fields(recipe)):
        value = getattr(recipe, name)
        if name.endswith("_p") and not 0 <= value <= 1:
            faults.append(f"augmentation.{name}={value} is a probability; give 0 .. 1")
        if isinstance(value, tuple) and not 0 < value[0] <= value[1]:
            faults.append(f"augmentation.{name}={list(value)} is a range; give two positive numbers, the smaller first")
        if name in ("brightness", "contrast", "rotation_degrees") and value < 0:
            faults.append(f"augmentation.{name}={value} is the half-width of a range; give 0 or more")
    if recipe.blur_kernel < 1 or recipe.blur_kernel % 2 == 0:
        faults.append(f"augmentation.blur_kernel={recipe.blur_kernel} is a centred kernel's side; give an odd number")
    if not 0 <= recipe.solarize_threshold <= 256:
        faults.append(f"augmentation.solarize_threshold={recipe.solarize_threshold} is a grey level; give 0 .. 256")
    return tuple(faults)
