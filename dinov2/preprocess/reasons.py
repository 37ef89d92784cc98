"""Why an input file did not become a picture, and what is remarked on one that did.

In: nothing. Out: `Reason` and `Flag`, each with a sentence; `docs/preprocess.md` shows the same lists (a test compares them).
"""

from enum import StrEnum


class Reason(StrEnum):
    """A code of `rejected.csv`; `kind` is filter (a policy excluded the film), duplicate, or fault (it could not be used)."""

    kind: str
    meaning: str

    def __new__(cls, code: str, kind: str, meaning: str) -> "Reason":
        """A member that is its code, with two attributes."""
        member = str.__new__(cls, code)
        member._value_, member.kind, member.meaning = code, kind, meaning
        return member

    MODALITY = "modality", "filter", "Modality is stated and not in filters.modalities"
    BODY_PART = "body_part", "filter", "BodyPartExamined is stated and holds no word of filters.body_parts"
    VIEW = "view", "filter", "the view is stated and not in filters.views"
    FOR_PROCESSING = (
        "for_processing",
        "filter",
        "raw detector values, not meant for looking at (filters.for_processing)",
    )
    BURNED_IN = "burned_in", "filter", "BurnedInAnnotation is YES (filters.burned_in)"
    TOO_SMALL = "too_small", "filter", "a side is shorter than filters.min_side_px"
    ASPECT = "aspect", "filter", "long side over short side is above filters.max_aspect"
    MULTI_FRAME = "multi_frame", "filter", "more than one frame or page (decode.multi_frame)"
    COLOUR = "colour", "filter", "channels that differ, so no plain radiograph (decode.colour)"
    DUPLICATE_UID = (
        "duplicate_uid",
        "duplicate",
        "another file of this input carries the same SOPInstanceUID and was kept",
    )
    NOT_AN_IMAGE = "not_an_image", "fault", "neither DICOM nor PNG, JPEG or TIFF"
    UNREADABLE = "unreadable", "fault", "the file cannot be opened or its structure cannot be parsed"
    NO_PIXELS = "no_pixels", "fault", "no pixel data in the file"
    UNSUPPORTED = "unsupported", "fault", "a transfer syntax or photometric interpretation that is not supported"
    TRUNCATED = "truncated", "fault", "the pixel data ends before the picture does"
    UNDECODABLE = "undecodable", "fault", "every decoder pinned for the transfer syntax refused the pixel data"
    BAD_HEADER = "bad_header", "fault", "a tag that decoding or rescaling needs is absent or contradictory"
    CONSTANT = "constant", "fault", "all pixels have one value"
    WORKER_DIED = "worker_died", "fault", "the process that converted this file ended without an answer"


class Flag(StrEnum):
    """A remark in the manifest's column `flags`."""

    meaning: str

    def __new__(cls, code: str, meaning: str) -> "Flag":
        """A member that is its code, with one attribute."""
        member = str.__new__(cls, code)
        member._value_, member.meaning = code, meaning
        return member

    POLARITY_SUSPECT = "polarity_suspect", "the picture looks like the negative of a frontal chest film"
    DUPLICATE_PIXELS = "duplicate_pixels", "the same picture as an earlier row, under another identity"
    COLOUR_REDUCED = "colour_reduced", "channels differed and their luminance was taken"
    FIRST_FRAME = "first_frame", "the first of several frames or pages was taken"
    NO_VOI = "no_voi", "decode.voi is on and the file has no usable VOI LUT or window"
    FOR_PROCESSING = "for_processing", "raw detector values, accepted by filters.for_processing"
    BURNED_IN = "burned_in", "BurnedInAnnotation YES, accepted by filters.burned_in"
    NO_META = "no_meta", "DICOM without file meta information; Implicit VR Little Endian was assumed"
