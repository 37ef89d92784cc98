"""What opening a vision transformer gives, whatever it was opened from."""

from dataclasses import dataclass
from pathlib import Path

from dinov2.backbone_card import BackboneCard
from dinov2.models.processor import Three
from dinov2.models.vision_transformer import DinoVisionTransformer

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A vision transformer of DINOv2 and what its users must know of it."""

    vit: DinoVisionTransformer  # on the CPU, float32, in evaluation mode, gradients on
    place: Path  # the folder or file that was opened in the end
    mean: Three  # of pictures in 0..1
    std: Three
    input_size: int  # pixels, that it was trained at or is usually given
    card: BackboneCard | None  # None where nothing but the weights is known
    short_side: int | None = None  # of the picture that the square of `input_size` is cut from; None: the same


def three(values: tuple[float, ...]) -> Three:
    """One value for all channels, or three."""
    first, second, third = values * 3 if len(values) == 1 else values
    return (float(first), float(second), float(third))
