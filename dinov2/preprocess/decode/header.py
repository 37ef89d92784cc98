"""What a DICOM data set states about itself, as the rest of the house may see it.

In: a parsed data set. Out: `Header`: numbers, defined terms, a maker's usual name; identifiers only in the fields that
are never shown.
"""

import math
from typing import Any

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.uid import UID

from dinov2.errors import DicomRejected
from dinov2.preprocess.decode import refusals, terms
from dinov2.preprocess.radiograph import Header

SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"  # and the multi-frame classes below it (PS3.4 B.5)
CONVERSIONS = frozenset({"DV", "DI", "DF", "WSD", "SD", "SI", "DRW", "SYN"})  # PS3.3 C.8.6.1.1.1
MOST_FRAMES = 1_000_000


def header_of(dataset: Dataset, *, syntax: UID) -> Header:
    """Everything that filters and ids need; no pixel is looked at.

    Raises DicomRejected: unreadable where an element cannot be read as what it has to be, bad_header where Number of
    Frames is no count.
    """
    try:
        return Header(
            height=integer(dataset, "Rows") or 0,
            width=integer(dataset, "Columns") or 0,
            num_frames=_num_frames(dataset),
            modality=terms.modality(text(dataset, "Modality")),
            body_part=terms.body_part(text(dataset, "BodyPartExamined")),
            view=_view(dataset),
            for_processing=text(dataset, "PresentationIntentType") == "FOR PROCESSING",
            burned_in=text(dataset, "BurnedInAnnotation") == "YES",
            secondary_capture=_is_secondary_capture(dataset),
            manufacturer=terms.maker(text(dataset, "Manufacturer")),
            transfer_syntax=syntax.name if syntax.is_transfer_syntax else terms.OTHER,
            spacing_mm=_spacing(dataset),
            image_uid=_identifier(dataset, "SOPInstanceUID"),
            study_uid=_identifier(dataset, "StudyInstanceUID"),
            patient_id=_identifier(dataset, "PatientID"),
        )
    except DicomRejected:
        raise
    except Exception as error:  # a damaged element makes pydicom raise many kinds; their texts may hold values
        raise refusals.unreadable(f"the header cannot be read ({type(error).__name__})") from None


def element(dataset: Dataset, keyword: str) -> Any:
    """The value of an element; None where there is none.

    pydicom converts an element when it is asked for. Raises DicomRejected (unreadable) where that fails.
    """
    try:
        return dataset.get(keyword)
    except MemoryError:
        raise
    except Exception as error:
        raise refusals.unreadable(f"{keyword} cannot be read ({type(error).__name__})") from None


def text(dataset: Dataset, keyword: str) -> str:
    """The first value of an element in capitals; empty where there is none."""
    value = first(element(dataset, keyword))
    return str(value).strip().upper() if value is not None else ""


def integer(dataset: Dataset, keyword: str) -> int | None:
    """The first value of an element as a whole number; None where it states none."""
    value = first(element(dataset, keyword))
    if value is None or isinstance(value, bytes):
        return None
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return None


def decimal(dataset: Dataset, keyword: str) -> float | None:
    """The first value of an element as a number, which may be infinite; None where it states none."""
    value = first(element(dataset, keyword))
    try:
        return None if value is None or str(value).strip() == "" else float(value)
    except (TypeError, ValueError):
        return math.nan


def first(value: Any) -> Any:
    """The first of several values, or the one; None where there is none."""
    if isinstance(value, MultiValue | list | tuple):
        return value[0] if len(value) else None
    return None if value is None or value == "" else value


def _identifier(dataset: Dataset, keyword: str) -> str:
    return str(dataset.get(keyword) or "")


def _num_frames(dataset: Dataset) -> int:
    value = first(dataset.get("NumberOfFrames"))
    if value is None:
        return 1
    count = integer(dataset, "NumberOfFrames")
    if count is None or not 0 <= count <= MOST_FRAMES:
        raise refusals.bad_header("(0028,0008) Number of Frames is no possible count")
    return count or 1  # some writers state 0 for a single frame


def _view(dataset: Dataset) -> str:
    """ViewPosition where it is a term that is known; else the view code, which DX films may carry alone."""
    stated = terms.view(text(dataset, "ViewPosition"))
    if stated not in ("", terms.OTHER):
        return stated
    items = dataset.get("ViewCodeSequence") or []
    for item in list(items)[:1]:
        coded = terms.view_of_code(text(item, "CodeValue"), text(item, "CodeMeaning"))
        stated = coded if coded not in ("", terms.OTHER) else stated or coded
    return stated


def _spacing(dataset: Dataset) -> tuple[float, float] | None:
    """Millimetres between rows and between columns; ImagerPixelSpacing is what CR and DX carry (PS3.3 10.7.1.3)."""
    for keyword in ("ImagerPixelSpacing", "PixelSpacing"):
        values = dataset.get(keyword)
        if isinstance(values, MultiValue | list) and len(values) == 2:
            rows, columns = (float(value or 0) for value in values)
            if min(rows, columns) > 0 and math.isfinite(rows) and math.isfinite(columns):
                return rows, columns
    return None


def _is_secondary_capture(dataset: Dataset) -> bool:
    """A screen, a scanned sheet or a drawing.

    SECONDARY in ImageType alone does not make one: a detector's image that was processed is DERIVED\\SECONDARY too
    (PS3.3 C.7.6.1.1.2), so it only counts where no class says what the image is.
    """
    uid = _identifier(dataset, "SOPClassUID")
    if uid == SECONDARY_CAPTURE or uid.startswith(f"{SECONDARY_CAPTURE}."):
        return True
    if text(dataset, "ConversionType") in CONVERSIONS:
        return True
    value = dataset.get("ImageType")
    words = [str(word).upper() for word in (value if isinstance(value, MultiValue | list) else [value or ""])]
    if any("SCREEN" in word for word in words):
        return True
    return not uid and "SECONDARY" in words and terms.modality(text(dataset, "Modality")) in ("", "OT", "SC")
