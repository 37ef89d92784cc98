"""The configuration of `dinov2 preprocess`: frozen typed sections.

In: nothing. Out: types with the defaults of the preset `raddino`. Values come from `dinov2.config.load.load_typed`; the
shipped presets are in `configs/preprocess/`.
"""

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Filters:
    """`filters`: which films become pictures. An empty list switches a filter off; what a file does not state is not
    judged.
    """

    modalities: tuple[str, ...] = ("CR", "DX", "DR", "RG")
    body_parts: tuple[str, ...] = ("CHEST", "THORAX", "LUNG")  # a word of these within BodyPartExamined
    views: tuple[str, ...] = ()
    for_processing: Literal["reject", "accept"] = "reject"  # PresentationIntentType FOR PROCESSING: raw detector values
    burned_in: Literal["reject", "accept"] = (
        "reject"  # BurnedInAnnotation YES: text in the picture may name the patient
    )
    min_side_px: int = 64
    max_aspect: float = 3.0  # long side / short side


@dataclass(frozen=True)
class Decode:
    """`decode`: what is done with pixels that are not one grey film."""

    multi_frame: Literal["reject", "first"] = "reject"
    colour: Literal["reject", "luminance"] = "reject"  # colour with three equal channels is grey and always taken
    voi: bool = False  # apply the file's VOI LUT or window before the levels are taken


@dataclass(frozen=True)
class Resample:
    """`resample`: size of the picture."""

    short_side: int = 518  # pixels; the long side follows, rounded


@dataclass(frozen=True)
class Intensity:
    """`intensity`: from film values to grey levels 0..255."""

    mapping: Literal["minmax", "percentile", "equalise"] = "minmax"
    percentiles: tuple[float, float] = (0.5, 99.5)  # only read where mapping is percentile
    rounding: Literal["nearest", "down"] = "nearest"


@dataclass(frozen=True)
class PreprocessConfig:
    """A whole conversion."""

    filters: Filters = field(default_factory=Filters)
    decode: Decode = field(default_factory=Decode)
    resample: Resample = field(default_factory=Resample)
    intensity: Intensity = field(default_factory=Intensity)
    source_names: Literal["path", "hmac"] = "path"  # how manifest and rejects name an input file
    max_rejected_share: float = 0.2  # of the files that no filter excluded; above it the command ends with exit code 2
