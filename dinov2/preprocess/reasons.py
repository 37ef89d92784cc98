"""Why an input file did not become a picture, and what is remarked on one that did.

In: nothing. Out: `Reason` and `Flag`, each code with a sentence; `docs/preprocess.md` shows the same lists (a test
compares them). Every flag is a reason too: `filters.flags` names those that turn a film away.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Literal


class Flag(StrEnum):
    """A remark in the manifest's column `flags`."""

    POLARITY_SUSPECT = "polarity_suspect"
    TRUNCATED = "truncated"
    SATURATED = "saturated"
    NEAR_CONSTANT = "near_constant"
    SCREENSHOT = "screenshot"
    BURNED_IN = "burned_in"
    FOR_PROCESSING = "for_processing"
    DUPLICATE_PIXELS = "duplicate_pixels"
    NEAR_DUPLICATE = "near_duplicate"
    COLOUR_REDUCED = "colour_reduced"
    ONE_FRAME_OF_MANY = "one_frame_of_many"
    NO_VOI = "no_voi"
    NO_META = "no_meta"
    HEADER_DISAGREES = "header_disagrees"

    @property
    def meaning(self) -> str:
        """A sentence for tables."""
        return FLAG_MEANINGS[self]


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
    POLARITY_SUSPECT = "polarity_suspect"
    SATURATED = "saturated"
    NEAR_CONSTANT = "near_constant"
    SCREENSHOT = "screenshot"
    COLOUR_REDUCED = "colour_reduced"
    ONE_FRAME_OF_MANY = "one_frame_of_many"
    NO_VOI = "no_voi"
    NO_META = "no_meta"
    HEADER_DISAGREES = "header_disagrees"
    DUPLICATE_UID = "duplicate_uid"
    DUPLICATE_PIXELS = "duplicate_pixels"
    NEAR_DUPLICATE = "near_duplicate"
    NOT_AN_IMAGE = "not_an_image"
    UNREADABLE = "unreadable"
    NO_PIXELS = "no_pixels"
    UNSUPPORTED = "unsupported"
    TRUNCATED = "truncated"
    UNDECODABLE = "undecodable"
    BAD_HEADER = "bad_header"
    TOO_LARGE = "too_large"
    CONSTANT = "constant"
    TIME_LIMIT = "time_limit"
    WORKER_DIED = "worker_died"

    @property
    def kind(self) -> Literal["filter", "duplicate", "fault"]:
        """Whether a policy excluded the film, another copy was kept, or it could not be used."""
        if self in DUPLICATES:
            return "duplicate"
        return "fault" if self in FAULTS else "filter"

    @property
    def meaning(self) -> str:
        """A sentence for tables."""
        return REASON_MEANINGS[self]


DUPLICATES = frozenset({Reason.DUPLICATE_UID, Reason.DUPLICATE_PIXELS, Reason.NEAR_DUPLICATE})
FAULTS = frozenset(
    {
        Reason.NOT_AN_IMAGE,
        Reason.UNREADABLE,
        Reason.NO_PIXELS,
        Reason.UNSUPPORTED,
        Reason.TRUNCATED,
        Reason.UNDECODABLE,
        Reason.BAD_HEADER,
        Reason.TOO_LARGE,
        Reason.CONSTANT,
        Reason.TIME_LIMIT,
        Reason.WORKER_DIED,
    }
)
FLAG_MEANINGS: Mapping[Flag, str] = {
    Flag.POLARITY_SUSPECT: "the picture looks like the negative of a frontal chest film",
    Flag.TRUNCATED: "rows at the bottom look filled up after the pixel data ended",
    Flag.SATURATED: "a large share of the film is at its brightest value (quality.saturated_share)",
    Flag.NEAR_CONSTANT: "hardly any contrast (quality.near_constant_levels)",
    Flag.SCREENSHOT: "a secondary capture: a screen or a scanned sheet, not a detector's image",
    Flag.BURNED_IN: "BurnedInAnnotation is YES, accepted by filters.burned_in",
    Flag.FOR_PROCESSING: "raw detector values, accepted by filters.for_processing",
    Flag.DUPLICATE_PIXELS: "the same picture as an earlier row, under another identity",
    Flag.NEAR_DUPLICATE: "nearly the picture of an earlier row (quality.near_duplicate_bits)",
    Flag.COLOUR_REDUCED: "channels differed and their luminance was taken",
    Flag.ONE_FRAME_OF_MANY: "a frame or page of a file that holds several",
    Flag.NO_VOI: "decode.voi is on and the file has no usable VOI LUT or window",
    Flag.NO_META: "DICOM without file meta information; its encoding was guessed",
    Flag.HEADER_DISAGREES: "the header states other bits than the pixels have; the pixels were believed",
}
REASON_MEANINGS: Mapping[Reason, str] = {
    **{Reason(flag): f"{meaning} (in filters.flags)" for flag, meaning in FLAG_MEANINGS.items()},
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
    Reason.UNDECODABLE: "the decoders pinned for the transfer syntax refused the pixel data or complained of damage",
    Reason.BAD_HEADER: "a tag that decoding or rescaling needs is absent or contradictory",
    Reason.TOO_LARGE: "claims more than `limits` allow: pixels, bytes once unpacked, or memory",
    Reason.CONSTANT: "all pixels have one value",
    Reason.TIME_LIMIT: "took longer than limits.seconds_per_file",
    Reason.WORKER_DIED: "the process that converted this file ended without an answer",
}
