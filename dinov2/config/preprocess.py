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
    flags: tuple[str, ...] = ("truncated",)  # flags that turn a film away, with the flag as the reason


@dataclass(frozen=True)
class Decode:
    """`decode`: what is done with pixels that are not one grey film."""

    multi_frame: Literal["reject", "first", "all"] = "reject"  # all: a picture per frame
    colour: Literal["reject", "luminance"] = "reject"  # colour with three equal channels is grey and always taken
    voi: bool = False  # apply the file's VOI LUT or window before the levels are taken


@dataclass(frozen=True)
class Resample:
    """`resample`: size of the picture."""

    engine: Literal["separable", "simpleitk"] = "separable"  # the same cubic B-spline; simpleitk is the reference
    short_side: int = 518  # pixels; the long side follows, rounded
    antialias: bool = False  # a Gaussian low-pass before the spline; the published encoders' pictures had none
    isotropic: bool = False  # pixels that are not square (rows and columns spaced differently) become square first
    letterbox: bool = False  # the long side becomes short_side pixels and black bars make the picture square


@dataclass(frozen=True)
class Intensity:
    """`intensity`: from film values to grey levels."""

    mapping: Literal["minmax", "percentile", "equalise"] = "minmax"
    percentiles: tuple[float, float] = (0.5, 99.5)  # only read where mapping is percentile
    rounding: Literal["nearest", "down"] = "nearest"
    bits: Literal[8, 16] = 8  # of the PNG: levels 0..255 or 0..65535


@dataclass(frozen=True)
class Quality:
    """`quality`: when a film is remarked on. Shares are of the pixels of a picture."""

    saturated_share: float = 0.1  # at the brightest value, bars and padding left out
    near_constant_levels: int = 16  # grey levels between the 5th and 95th percentile of the picture, bars left out
    near_duplicate_bits: int = 10  # of the 256 of two perceptual hashes; more differ: two films


@dataclass(frozen=True)
class Limits:
    """`limits`: what one file may cost before it is given up."""

    seconds_per_file: float = 120.0
    max_megapixels: float = 100.0  # Rows x Columns of a frame, as the header claims them; checked before allocation
    max_file_mb: float = 2048.0  # of the file, or of an archive's member once unpacked
    memory_mb: int = 4096  # a worker's own data; 0: no limit

    @property
    def max_file_bytes(self) -> int:
        """`max_file_mb` in bytes."""
        return round(self.max_file_mb * 1_000_000)

    @property
    def max_pixels(self) -> int:
        """`max_megapixels` in pixels."""
        return round(self.max_megapixels * 1_000_000)


@dataclass(frozen=True)
class Privacy:
    """`privacy`: what leaves the input. Nothing that names a person does, unless it is asked for here."""

    source_names: Literal["hmac", "path"] = "hmac"  # how manifest, rejects and messages name an input file
    keep_columns: tuple[str, ...] = ()  # columns of a table that look like names, ids or dates and are wanted anyway
    crosswalk: bool = True  # write the table of ids and what they stand for, apart from the pictures


@dataclass(frozen=True)
class PreprocessConfig:
    """A whole conversion."""

    filters: Filters = field(default_factory=Filters)
    decode: Decode = field(default_factory=Decode)
    resample: Resample = field(default_factory=Resample)
    intensity: Intensity = field(default_factory=Intensity)
    quality: Quality = field(default_factory=Quality)
    limits: Limits = field(default_factory=Limits)
    privacy: Privacy = field(default_factory=Privacy)
    max_rejected_share: float = 0.2  # of the files that no filter excluded; above it the command ends with exit code 2
