"""Which films become pictures, judged by their header before a pixel is decoded.

In: a `Header` and the `filters` section. Out: flags for what is accepted with a remark; DicomRejected for what is not.
"""

from dinov2.config.preprocess import Filters
from dinov2.errors import DicomRejected
from dinov2.preprocess.radiograph import Header
from dinov2.preprocess.reasons import Flag, Reason


def check(header: Header, *, policy: Filters) -> tuple[str, ...]:
    """The flags of a film that every filter passes.

    Raises DicomRejected with the first reason that excludes it. Messages show coded values only, never a free text.
    """
    _check_stated(header, policy=policy)
    _check_shape(header, policy=policy)
    if header.for_processing and policy.for_processing == "reject":
        raise DicomRejected(
            "(0008,0068) Presentation Intent Type is FOR PROCESSING. Convert the FOR PRESENTATION copy, or set "
            "filters.for_processing=accept.",
            reason=Reason.FOR_PROCESSING,
        )
    if header.burned_in and policy.burned_in == "reject":
        raise DicomRejected(
            "(0028,0301) Burned In Annotation is YES. Look at the film; if it names nobody, set "
            "filters.burned_in=accept.",
            reason=Reason.BURNED_IN,
        )
    flags = ((header.for_processing, Flag.FOR_PROCESSING), (header.burned_in, Flag.BURNED_IN))
    return tuple(str(flag) for present, flag in flags if present)


def _check_stated(header: Header, *, policy: Filters) -> None:
    modalities, views = ({v.upper() for v in wanted} for wanted in (policy.modalities, policy.views))
    if modalities and header.modality and header.modality not in modalities:
        raise DicomRejected(
            f"(0008,0060) Modality is {_shown(header.modality)}; wanted {', '.join(sorted(modalities))}. Add it to "
            "filters.modalities to take it.",
            reason=Reason.MODALITY,
        )
    parts = [part.upper() for part in policy.body_parts]
    if parts and header.body_part and not any(part in header.body_part for part in parts):
        raise DicomRejected(
            f"(0018,0015) Body Part Examined is {_shown(header.body_part)}; wanted {', '.join(parts)}. Add it to "
            "filters.body_parts to take it.",
            reason=Reason.BODY_PART,
        )
    if views and header.view and header.view not in views:
        raise DicomRejected(
            f"(0018,5101) View Position is {_shown(header.view)}; wanted {', '.join(sorted(views))}. Add it to "
            "filters.views to take it.",
            reason=Reason.VIEW,
        )


def _check_shape(header: Header, *, policy: Filters) -> None:
    short, long = sorted((header.height, header.width))
    if short < policy.min_side_px:
        raise DicomRejected(
            f"{header.height} x {header.width} pixels; the short side should be at least {policy.min_side_px} "
            "(filters.min_side_px).",
            reason=Reason.TOO_SMALL,
        )
    if long > policy.max_aspect * short:
        raise DicomRejected(
            f"{header.height} x {header.width} pixels; the long side may be {policy.max_aspect:g} times the short "
            "one (filters.max_aspect).",
            reason=Reason.ASPECT,
        )


def _shown(code: str) -> str:
    """A coded value as DICOM allows it (16 characters); anything longer may be a free text and is not repeated."""
    return repr(code) if len(code) <= 16 else "a longer text"
