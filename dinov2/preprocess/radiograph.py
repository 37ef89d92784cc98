"""One film in memory, whatever file it came from.

In: values from `read` or `raster`. Out: `Header` (what filters judge, before any pixel is decoded) and `Radiograph`.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Film = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a file states about itself; an empty text or None where it states nothing."""

    height: int
    width: int
    num_frames: int = 1
    modality: str = ""
    body_part: str = ""
    view: str = ""
    for_processing: bool = False
    burned_in: bool = False
    secondary_capture: bool = False  # a Secondary Capture SOP class, or a ConversionType or ImageType that says so
    manufacturer: str = ""  # a known maker's name, or "other"; never the free text of the file
    transfer_syntax: str = ""  # its name in DICOM; of a raster its format
    spacing_mm: tuple[float, float] | None = None  # between rows, between columns
    # Never shown, not even in a traceback; they leave this room only as HMACs.
    image_uid: str = field(default="", repr=False)
    study_uid: str = field(default="", repr=False)
    patient_id: str = field(default="", repr=False)


@dataclass(frozen=True, kw_only=True)
class Radiograph:
    """Pixels as the file means them, still in the polarity it states."""

    pixels: Film  # [H, W] after the modality LUT or rescale, and after VOI where asked for
    larger_is_darker: bool  # MONOCHROME1 or PresentationLUTShape INVERSE
    padding: NDArray[np.bool_] | None  # [H, W] True where the stored value is padding; found before any LUT
    bits_stored: int
    header: Header
    flags: tuple[str, ...] = ()
