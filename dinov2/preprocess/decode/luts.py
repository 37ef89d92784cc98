"""Stored values -> modality values -> display values.

In: settled stored values and the data set. Out: float32 [H, W]. Sources: PS3.3 C.11.1 (modality LUT and rescale),
C.11.2 (VOI LUT and window). A film without any of them is converted to float32 and nothing else.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from dinov2.preprocess.decode import refusals
from dinov2.preprocess.decode.bits import Settled
from dinov2.preprocess.decode.header import decimal, element, text
from dinov2.preprocess.radiograph import Film

RESCALE = "(0028,1053) Rescale Slope or (0028,1052) Rescale Intercept"
FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")


@dataclass(frozen=True)
class Window:
    """The first window of the file."""

    centre: float
    width: float
    function: str


def modality(stored: Settled, *, dataset: Dataset) -> Film:
    """Modality units; a negative slope turns the order of values round here and nowhere else.

    The sequence goes before the rescale. Raises DicomRejected (bad_header) where either cannot be applied.
    """
    if element(dataset, "ModalityLUTSequence"):
        try:
            # int32: the LUT's first value is subtracted in the stored type, which would overflow at 16 bits
            return np.asarray(apply_modality_lut(stored.values.astype(np.int32), dataset)).astype(np.float32)
        except MemoryError:
            raise
        except Exception:
            raise refusals.bad_header("(0028,3000) Modality LUT Sequence cannot be applied") from None
    slope, intercept = decimal(dataset, "RescaleSlope"), decimal(dataset, "RescaleIntercept")
    slope, intercept = 1.0 if slope is None else slope, 0.0 if intercept is None else intercept
    ends = [slope * end + intercept for end in (stored.low, stored.high)]
    if not all(math.isfinite(end) and abs(end) <= float(np.finfo(np.float32).max) for end in ends):
        raise refusals.bad_header(f"{RESCALE} leads out of all bounds")
    film: Film = stored.values.astype(np.float32)
    if slope != 1:
        film *= np.float32(slope)
    if intercept != 0:
        film += np.float32(intercept)
    return film


def voi(film: Film, *, stored: Settled, dataset: Dataset) -> Film | None:
    """Display values by the VOI LUT where there is one, else by the first window; None where neither can be used.

    Values run from 0 to what `stored.bits` hold, whatever the modality units are: the levels of a picture are taken
    from the film's own range. Raises DicomRejected (bad_header) where a LUT is there and damaged.
    """
    if _has_voi_lut(dataset):
        integral = film.astype(np.int32)
        try:
            return np.asarray(apply_voi_lut(integral, dataset, prefer_lut=True)).astype(np.float32)
        except MemoryError:
            raise
        except Exception:
            raise refusals.bad_header(
                "(0028,3010) VOI LUT Sequence cannot be applied", advice="Check the header, or set decode.voi=false."
            ) from None
    window = _window(dataset)
    return None if window is None else windowed(film, window=window, top=float(2**stored.bits - 1))


def windowed(film: Film, *, window: Window, top: float) -> Film:
    """The function of C.11.2.1.2 and C.11.2.1.3, from 0 to `top`."""
    if window.function == "SIGMOID":
        with np.errstate(over="ignore"):
            shown: NDArray[Any] = np.float32(top) / (1 + np.exp((film - window.centre) * (-4 / window.width)))
        return shown.astype(np.float32, copy=False)
    is_exact = window.function == "LINEAR_EXACT"
    centre, width = (window.centre, window.width) if is_exact else (window.centre - 0.5, window.width - 1)
    if width == 0:  # LINEAR with a width of 1: a threshold
        return np.where(film > centre, np.float32(top), np.float32(0))
    shown = film - np.float32(centre)
    shown *= np.float32(top / width)
    shown += np.float32(top / 2)
    return np.clip(shown, np.float32(0), np.float32(top), out=shown)


def _has_voi_lut(dataset: Dataset) -> bool:
    items = element(dataset, "VOILUTSequence")
    return bool(items) and all(element(items[0], name) is not None for name in ("LUTDescriptor", "LUTData"))


def _window(dataset: Dataset) -> Window | None:
    """None where the file has no window, or one that means none: a width of 0 is a common way to say so."""
    centre, width = decimal(dataset, "WindowCenter"), decimal(dataset, "WindowWidth")
    function = text(dataset, "VOILUTFunction") or "LINEAR"
    if centre is None or width is None or function not in FUNCTIONS:
        return None
    is_usable = math.isfinite(centre) and math.isfinite(width) and (width >= 1 if function == "LINEAR" else width > 0)
    return Window(centre, width, function) if is_usable else None
