"""What every writer of a format is given, and what it gives back."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from torch import Tensor

from dinov2.backbone_card import BackboneCard
from dinov2.layers import DINOHead
from dinov2.models.vision_transformer import DinoVisionTransformer

Dtype = Literal["float32", "float16", "bfloat16"]
DTYPES: tuple[Dtype, ...] = ("float32", "float16", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class Source:
    """A backbone that leaves, with all that is known of it."""

    backbone: DinoVisionTransformer  # on the CPU, float32, in evaluation mode
    card: BackboneCard
    heads: Mapping[str, DINOHead] = field(default_factory=dict)  # "dino_head", "ibot_head": those to write
    centers: Mapping[str, Tensor] = field(default_factory=dict)  # "dino_center", "ibot_center" [K]
    network: Literal["teacher", "student"] = "teacher"
    origin: str = ""  # what it was read from


@dataclass(frozen=True, kw_only=True)
class Written:
    """What was written, and how it was checked."""

    folder: Path
    files: tuple[Path, ...]
    checks: tuple[str, ...]  # sentences: what was read back, by which library, and how large the difference was
    next_step: str  # a line that loads it
