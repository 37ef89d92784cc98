"""A DICOM file -> its header, then its film.

In: a path. Out: `Header` without touching pixels, and `Radiograph` after decoding, modality LUT or rescale, and VOI
where asked for. Messages name the tag, never the file nor an element's free text: they are written into `rejected.csv`
beside the file's own column.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.errors import InvalidDicomError
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dinov2.config.preprocess import Decode
from dinov2.errors import DicomRejected
from dinov2.preprocess.decode.colour import grey
from dinov2.preprocess.decode.decoders import ENCAPSULATED, decode
from dinov2.preprocess.radiograph import Header, Radiograph
from dinov2.preprocess.reasons import Flag, Reason

PHOTOMETRIC = ("MONOCHROME1", "MONOCHROME2", "RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
FETCH_AGAIN = "Fetch the file again from its archive."


def read_header(path: Path) -> Header:
    """What the file states about itself; no pixel is read.

    Raises DicomRejected (not_an_image, unreadable, bad_header) and OSError where the file cannot be opened.
    """
    return _header_of(_open(path, pixels=False))


def read_dicom(path: Path, *, policy: Decode) -> Radiograph:
    """The film of a DICOM file: [H, W] float32 in modality units (after VOI: display units).

    Order of operations: PS3.3 C.11.1 (modality), then C.11.2 (VOI). Polarity is only stated here; `polarity` applies
    it, once. Raises DicomRejected: the reasons of `read_header`, and no_pixels, multi_frame, colour, unsupported,
    truncated, undecodable.
    """
    dataset = _open(path, pixels=True)
    header = _header_of(dataset)
    _check_pixels(dataset, header=header, policy=policy)
    stored, reduced = grey(decode(dataset, num_frames=header.num_frames), policy=policy.colour)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pixels = _modality(stored, dataset=dataset)
        has_voi = policy.voi and _has_voi(dataset)
        shown = _voi(pixels, dataset=dataset) if has_voi else pixels
    remarks = (
        (header.num_frames > 1, Flag.ONE_FRAME_OF_MANY),
        (reduced, Flag.COLOUR_REDUCED),
        (policy.voi and not has_voi, Flag.NO_VOI),
        (not dataset.file_meta.get("MediaStorageSOPClassUID"), Flag.NO_META),
    )
    return Radiograph(
        pixels=np.ascontiguousarray(shown, dtype=np.float32),
        larger_is_darker=_larger_is_darker(dataset),
        padding=_padding(stored, dataset=dataset),
        bits_stored=int(dataset.get("BitsStored") or dataset.BitsAllocated),
        header=header,
        flags=tuple(str(flag) for present, flag in remarks if present),
    )


def _open(path: Path, *, pixels: bool) -> Dataset:
    """The data set, with a transfer syntax stated; everything but the pixels is parsed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the texts of pydicom's warnings hold element values
        try:
            dataset = pydicom.dcmread(path, stop_before_pixels=not pixels)
        except InvalidDicomError:
            dataset = _open_bare(path, pixels=pixels)
        except OSError:
            raise
        except Exception as error:  # a damaged file makes pydicom raise many kinds
            raise _unparsable(error) from error
    _state_syntax(dataset)
    return dataset


def _open_bare(path: Path, *, pixels: bool) -> Dataset:
    """A file without preamble. Anything at all can be read by force, so what comes out must look like an image."""
    try:
        dataset = pydicom.dcmread(path, stop_before_pixels=not pixels, force=True)
        if int(dataset.get("Rows", 0)) and int(dataset.get("Columns", 0)):
            return dataset
    except OSError:
        raise
    except Exception as error:
        raise _not_an_image() from error
    raise _not_an_image()


def _state_syntax(dataset: Dataset) -> None:
    """Fill in the transfer syntax of a file without meta information, as pydicom found it while parsing."""
    if not hasattr(dataset, "file_meta"):
        dataset.file_meta = FileMetaDataset()
    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = UID(ImplicitVRLittleEndian if implicit else explicit)


def _header_of(dataset: Dataset) -> Header:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return Header(
                height=int(dataset.get("Rows") or 0),
                width=int(dataset.get("Columns") or 0),
                num_frames=int(dataset.get("NumberOfFrames") or 1),
                modality=_code(dataset, "Modality"),
                body_part=_code(dataset, "BodyPartExamined"),
                view=_view(dataset),
                for_processing=_code(dataset, "PresentationIntentType") == "FOR PROCESSING",
                burned_in=_code(dataset, "BurnedInAnnotation") == "YES",
                spacing_mm=_spacing(dataset),
                image_uid=str(dataset.get("SOPInstanceUID") or ""),
                study_uid=str(dataset.get("StudyInstanceUID") or ""),
                patient_id=str(dataset.get("PatientID") or ""),
            )
        except Exception as error:
            raise _unparsable(error) from error


def _code(dataset: Dataset, name: str) -> str:
    return str(dataset.get(name) or "").strip().upper()


def _view(dataset: Dataset) -> str:
    """ViewPosition, else what the meaning of the view code says (DX films may carry only the code)."""
    if stated := _code(dataset, "ViewPosition"):
        return stated
    items = dataset.get("ViewCodeSequence") or []
    meaning = str(items[0].get("CodeMeaning", "")).lower() if items else ""
    words = {"postero": "PA", "antero": "AP", "lateral": "LATERAL"}
    return next((view for word, view in words.items() if meaning.startswith(word) or f" {word}" in meaning), "")


def _spacing(dataset: Dataset) -> tuple[float, float] | None:
    """Millimetres between rows and between columns; ImagerPixelSpacing is what CR and DX carry (PS3.3 10.7.1.3)."""
    for name in ("ImagerPixelSpacing", "PixelSpacing"):
        values = dataset.get(name)
        if values and len(values) == 2 and min(float(v) for v in values) > 0:
            return float(values[0]), float(values[1])
    return None


def _check_pixels(dataset: Dataset, *, header: Header, policy: Decode) -> None:
    """Refuse what cannot be decoded, or should not be, before any decoder runs."""
    if not dataset.get("PixelData"):
        raise DicomRejected(
            "(7FE0,0010) Pixel Data is absent. A report, or a cut file? Exclude it.", reason=Reason.NO_PIXELS
        )
    for name in ("Rows", "Columns", "BitsAllocated", "PixelRepresentation"):
        if dataset.get(name) is None:
            raise DicomRejected(
                f"{name} is absent, so the pixels cannot be unpacked. {FETCH_AGAIN}", reason=Reason.BAD_HEADER
            )
    photometric = _code(dataset, "PhotometricInterpretation")
    if photometric not in PHOTOMETRIC:
        raise DicomRejected(
            f"(0028,0004) Photometric Interpretation is {photometric[:16]!r}; expected MONOCHROME1 or MONOCHROME2. "
            "Exclude the file.",
            reason=Reason.UNSUPPORTED,
        )
    if header.num_frames > 1 and policy.multi_frame == "reject":
        raise DicomRejected(
            f"(0028,0008) Number of Frames is {header.num_frames}. Exclude it, or set decode.multi_frame=first.",
            reason=Reason.MULTI_FRAME,
        )
    syntax = dataset.file_meta.TransferSyntaxUID
    if not dataset["PixelData"].is_undefined_length and syntax in ENCAPSULATED:
        raise DicomRejected(
            f"(7FE0,0010) Pixel Data is not encapsulated as its transfer syntax asks. {FETCH_AGAIN}",
            reason=Reason.BAD_HEADER,
        )


def _modality(stored: NDArray[Any], *, dataset: Dataset) -> NDArray[Any]:
    """Modality units; a negative slope turns the order of values round here and nowhere else."""
    try:
        # int32: pydicom subtracts the LUT's first value in the stored type, which overflows at 16 bits
        values = apply_modality_lut(stored.astype(np.int32), dataset)
    except Exception as error:
        raise DicomRejected(
            "(0028,3000) Modality LUT or (0028,1053) Rescale Slope cannot be applied. Check the header.",
            reason=Reason.BAD_HEADER,
        ) from error
    if not np.isfinite(values).all():
        raise DicomRejected(
            "(0028,1053) Rescale Slope or Intercept is not finite. Check the header.", reason=Reason.BAD_HEADER
        )
    return np.asarray(values)


def _has_voi(dataset: Dataset) -> bool:
    items = dataset.get("VOILUTSequence")
    if items and items[0].get("LUTDescriptor") is not None and items[0].get("LUTData") is not None:
        return True
    width = dataset.get("WindowWidth")
    first = width[0] if isinstance(width, pydicom.multival.MultiValue) and len(width) else width
    # PS3.3 C.11.2.1.2: LINEAR needs a width of at least 1; a width of 0 is a common way to say "none"
    return dataset.get("WindowCenter") is not None and first not in (None, "") and float(first) >= 1


def _voi(values: NDArray[Any], *, dataset: Dataset) -> NDArray[Any]:
    """The LUT of the sequence where there is one, else the first window."""
    integral = values.astype(np.int32)
    try:
        return np.asarray(apply_voi_lut(integral if np.array_equal(integral, values) else values, dataset))
    except Exception as error:
        raise DicomRejected(
            "(0028,3010) VOI LUT or (0028,1050) Window Center cannot be applied. Check the header, or set "
            "decode.voi=false.",
            reason=Reason.BAD_HEADER,
        ) from error


def _larger_is_darker(dataset: Dataset) -> bool:
    """MONOCHROME1 and PresentationLUTShape INVERSE say the same one thing (PS3.3 C.8.11.3.1.2); both together are not
    two inversions.
    """
    return (
        _code(dataset, "PhotometricInterpretation") == "MONOCHROME1"
        or _code(dataset, "PresentationLUTShape") == "INVERSE"
    )


def _padding(stored: NDArray[Any], *, dataset: Dataset) -> NDArray[np.bool_] | None:
    """Pixels that are padding, by stored value (PS3.3 C.7.5.1.1.2); None where the file states none,
    or no pixel has it.
    """
    value = dataset.get("PixelPaddingValue")
    if not isinstance(value, int):
        return None
    limit = dataset.get("PixelPaddingRangeLimit")
    low, high = sorted((value, limit if isinstance(limit, int) else value))
    mask = (stored >= low) & (stored <= high)
    return mask if mask.any() else None


def _unparsable(error: Exception) -> DicomRejected:
    return DicomRejected(
        f"the DICOM structure cannot be parsed ({type(error).__name__}). {FETCH_AGAIN}", reason=Reason.UNREADABLE
    )


def _not_an_image() -> DicomRejected:
    return DicomRejected("neither DICOM nor PNG, JPEG or TIFF. Exclude it from the input.", reason=Reason.NOT_AN_IMAGE)
