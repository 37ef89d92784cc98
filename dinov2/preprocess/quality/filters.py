"""Which films become pictures: judged by their header before a pixel is decoded, then by the flags that pixels earned.

In: a `Header`, flags, and the `filters` section. Out: flags for what is accepted with a remark; DicomRejected for what
is not.
"""

import difflib
from collections.abc import Sequence

from dinov2.config.preprocess import Filters
from dinov2.errors import ConfigError, DicomRejected
from dinov2.preprocess.radiograph import Header
from dinov2.preprocess.reasons import Flag, Reason


def check(header: Header, *, policy: Filters) -> tuple[str, ...]:
    """The flags of a film that every filter passes: screenshot, burned_in, for_processing.

    Raises DicomRejected with the first reason that excludes it. Messages show defined terms only (or OTHER, for which
    `decode` gives every text that is none), never what a person typed.
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
    flags = (
        (header.secondary_capture, Flag.SCREENSHOT),
        (header.burned_in, Flag.BURNED_IN),
        (header.for_processing, Flag.FOR_PROCESSING),
    )
    return tuple(str(flag) for present, flag in flags if present)


def refuse_flagged(flags: Sequence[str], *, policy: Filters) -> None:
    """Turn a film away for the first of its flags that `filters.flags` names.

    Raises DicomRejected with that flag as its reason. To be called as soon as flags are known: those of the header
    before decoding, those of the pixels before the picture is kept.
    """
    for flag in policy.flags:
        if flag in flags:
            raise DicomRejected(
                f"flagged {flag}: {Flag(flag).meaning}. Look at the film; take {flag} out of filters.flags to keep "
                "such films, with the flag.",
                reason=Reason(flag),
            )


def check_flags(names: Sequence[str]) -> None:
    """Whether every entry of `filters.flags` is a flag.  Raises ConfigError with a fault per entry that is none."""
    known = [str(flag) for flag in Flag]
    faults = []
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
            nearest = f"Perhaps {close[0]}? " if close else ""
            faults.append(f"filters.flags: {name!r} is no flag. {nearest}Flags are {', '.join(known)}.")
    if faults:
        raise ConfigError("\n".join(faults), faults=tuple(faults))


def _check_stated(header: Header, *, policy: Filters) -> None:
    modalities, views = ({v.upper() for v in wanted} for wanted in (policy.modalities, policy.views))
    if modalities and header.modality and header.modality not in modalities:
        raise DicomRejected(
            f"(0008,0060) Modality is {header.modality}; wanted {', '.join(sorted(modalities))}. Add it to "
            "filters.modalities to take it.",
            reason=Reason.MODALITY,
        )
    parts = [part.upper() for part in policy.body_parts]
    if parts and header.body_part and not any(part in header.body_part for part in parts):
        raise DicomRejected(
            f"(0018,0015) Body Part Examined is {header.body_part}; wanted {', '.join(parts)}. Add it to "
            "filters.body_parts to take it.",
            reason=Reason.BODY_PART,
        )
    if views and header.view and header.view not in views:
        raise DicomRejected(
            f"(0018,5101) View Position is {header.view}; wanted {', '.join(sorted(views))}. Add it to "
            "filters.views to take it.",
            reason=Reason.VIEW,
        )


def _check_shape(header: Header, *, policy: Filters) -> None:
    short, long = sorted((header.height, header.width))
    if short == 0:  # no size is stated: the decoder says whether pixels or their description are what is absent
        return
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
