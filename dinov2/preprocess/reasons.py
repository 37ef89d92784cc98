"""Why an input file did not become a picture, and what is remarked on one that did.

In: nothing. Out: `Reason` and `Flag`, each code with a sentence; `docs/preprocess.md` shows the same lists (a test
compares them).
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Literal


class Reason(StrEnum):
    """A code of `rejected.csv`."""

    MODALITY = "modality"
    BODY_PART = "body_part"
    VIEW = "view"
    FOR_PROCESSING = "for_processing"
    BURNED_IN = "burned_in"
    TOO_SMALL = "too_small"
    ASPECT = "aspect"
    MULTI_FRAME = "multi_frame"
    COLOUR = "colour"
    DUPLICATE_UID = "duplicate_uid"
    NOT_AN_IMAGE = "not_an_image"
    UNREADABLE = "unreadable"
    NO_PIXELS = "no_pixels"
    UNSUPPORTED = "unsupported"
    TRUNCATED = "truncated"
    UNDECODABLE = "undecodable"
    BAD_HEADER = "bad_header"
    CONSTANT = "constant"
    WORKER_DIED = "worker_died"

    @property
    def kind(self) -> Literal["filter", "duplicate", "fault"]:
        """Whether a policy excluded the film, another copy was kept, or it could not be used."""
        if self is Reason.DUPLICATE_UID:
            return "duplicate"
        return "filter" if self in FILTERS else "fault"

    @property
    def meaning(self) -> str:
        """A sentence for tables."""
        return REASON_MEANINGS[self]


class Flag(StrEnum):
    """A remark in the manifest's column `flags`."""

    POLARITY_SUSPECT = "polarity_suspect"
    DUPLICATE_PIXELS = "duplicate_pixels"
    COLOUR_REDUCED = "colour_reduced"
    FIRST_FRAME = "first_frame"
    NO_VOI = "no_voi"
    FOR_PROCESSING = "for_processing"
    BURNED_IN = "burned_in"
    NO_META = "no_meta"

    @property
    def meaning(self) -> str:
        """A sentence for tables."""
        return FLAG_MEANINGS[self]


FILTERS = frozenset(
    {
        Reason.MODALITY,
        Reason.BODY_PART,
        Reason.VIEW,
        Reason.FOR_PROCESSING,
        Reason.BURNED_IN,
        Reason.TOO_SMALL,
        Reason.ASPECT,
        Reason.MULTI_FRAME,
        Reason.COLOUR,
    }
)
REASON_MEANINGS: Mapping[Reason, str] = {
    Reason.MODALITY: "Modality is stated and not in filters.modalities",
    Reason.BODY_PART: "BodyPartExamined is stated and holds no word of filters.body_parts",
    Reason.VIEW: "the view is stated and not in filters.views",
    Reason.FOR_PROCESSING: "raw detector values, not meant for looking at (filters.for_processing)",
    Reason.BURNED_IN: "BurnedInAnnotation is YES (filters.burned_in)",
    Reason.TOO_SMALL: "a side is shorter than filters.min_side_px",
    Reason.ASPECT: "long side over short side is above filters.max_aspect",
    Reason.MULTI_FRAME: "more than one frame or page (decode.multi_frame)",
    Reason.COLOUR: "channels that differ, so no plain radiograph (decode.colour)",
    Reason.DUPLICATE_UID: "another file of this input carries the same SOPInstanceUID and was kept",
    Reason.NOT_AN_IMAGE: "neither DICOM nor PNG, JPEG or TIFF",
    Reason.UNREADABLE: "the file cannot be opened, or its structure cannot be parsed",
    Reason.NO_PIXELS: "no pixel data in the file",
    Reason.UNSUPPORTED: "a transfer syntax or photometric interpretation that is not supported",
    Reason.TRUNCATED: "the pixel data ends before the picture does",
    Reason.UNDECODABLE: "every decoder pinned for the transfer syntax refused the pixel data",
    Reason.BAD_HEADER: "a tag that decoding or rescaling needs is absent or contradictory",
    Reason.CONSTANT: "all pixels have one value",
    Reason.WORKER_DIED: "the process that converted this file ended without an answer",
}
FLAG_MEANINGS: Mapping[Flag, str] = {
    Flag.POLARITY_SUSPECT: "the picture looks like the negative of a frontal chest film",
    Flag.DUPLICATE_PIXELS: "the same picture as an earlier row, under another identity",
    Flag.COLOUR_REDUCED: "channels differed and their luminance was taken",
    Flag.FIRST_FRAME: "the first of several frames or pages was taken",
    Flag.NO_VOI: "decode.voi is on and the file has no usable VOI LUT or window",
    Flag.FOR_PROCESSING: "raw detector values, accepted by filters.for_processing",
    Flag.BURNED_IN: "BurnedInAnnotation is YES, accepted by filters.burned_in",
    Flag.NO_META: "DICOM without file meta information; its encoding was guessed",
}
