"""A phantom -> a DICOM file that says what it is.

In: a film in 0..1, a `Technique`, an `Identification`. Out: bytes on disk, the same ones for the same input.
"""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from dinov2.phantom.encoders import ENCODERS, LOSSY, Stored, encode

NATIVE: tuple[UID, ...] = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
)
SYNTAXES = (*NATIVE, RLELossless, JPEGLSLossless, JPEG2000Lossless)  # of a series: all bit depths, nothing lost
WRITABLE = (*NATIVE, *ENCODERS)  # everything; some take one bit depth, some need the extra `test`
BITS_STORED = (8, 10, 12, 14, 16)
FILM_HEIGHT_MM = 400.0
REMARK = "SYNTHETIC PHANTOM, NOT A PATIENT"


@dataclass(frozen=True, kw_only=True)
class Technique:
    """How a film is written down; none of it changes what is seen."""

    syntax: UID = ExplicitVRLittleEndian
    bits_stored: int = 12
    monochrome1: bool = False
    slope: float = 1.0  # RescaleSlope; a negative one turns the stored values round
    modality: Literal["CR", "DX"] = "DX"


@dataclass(frozen=True, kw_only=True)
class Identification:
    """Who and what; every UID is derived from these texts."""

    series: str  # of the whole set of films, e.g. "seed 0"
    patient: str
    number: int  # of the film within the set
    view: str


def write_film(path: Path, film: NDArray[np.float32], *, technique: Technique, identification: Identification) -> None:
    """Write `film` [H, W] in 0..1, larger where more is absorbed, as one CR or DX image.

    Raises the errors of `film_bytes`.
    """
    path.write_bytes(film_bytes(film, technique=technique, identification=identification))


def film_bytes(film: NDArray[np.float32], *, technique: Technique, identification: Identification) -> bytes:
    """The file of `film` [H, W] in 0..1, larger where more is absorbed, as one CR or DX image.

    Raises ValueError where `bits_stored` is not 2..16 or the syntax does not take it, or the slope is 0; LaunchError
    where the syntax needs the extra `test`.
    """
    if not 2 <= technique.bits_stored <= 16 or technique.slope == 0:
        raise ValueError(f"cannot store {technique.bits_stored} bits with slope {technique.slope}")
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = technique.syntax
    _describe(dataset, technique=technique, identification=identification)
    stored = _stored(film, technique=technique)
    _describe_pixels(dataset, stored=stored, technique=technique)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    _set_pixels(dataset, stored=stored, technique=technique)
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def _set_pixels(dataset: Dataset, *, stored: Stored, technique: Technique) -> None:
    """Pixel data in the technique's transfer syntax (PS3.5 A)."""
    if technique.syntax not in ENCODERS:
        is_big = technique.syntax == ExplicitVRBigEndian
        ordered = stored.astype(stored.dtype.newbyteorder(">" if is_big else "<"))
        dataset.PixelData = ordered.tobytes() + b"\0" * (stored.nbytes % 2)
        dataset["PixelData"].VR = "OB" if stored.dtype == np.uint8 else "OW"
        return
    stream = encode(stored, syntax=technique.syntax, bits_stored=technique.bits_stored)
    dataset.PixelData = encapsulate([stream])
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    if technique.syntax in LOSSY:
        dataset.LossyImageCompression = "01"


def _stored(film: NDArray[np.float32], *, technique: Technique) -> Stored:
    """Integers that use the middle nine tenths of the range, as detectors do; turned round once per reason to."""
    top = 2**technique.bits_stored - 1
    values: NDArray[np.float64] = np.rint(top * (0.05 + 0.9 * film.astype(np.float64)))
    if technique.monochrome1 != (technique.slope < 0):
        values = top - values
    return values.astype(np.uint8) if technique.bits_stored <= 8 else values.astype(np.uint16)


def _describe(dataset: Dataset, *, technique: Technique, identification: Identification) -> None:
    """Patient, study, series, image (PS3.3 C.7, C.8.11.1)."""
    words = (identification.series, identification.patient)
    dataset.SOPClassUID = (
        DigitalXRayImageStorageForPresentation if technique.modality == "DX" else ComputedRadiographyImageStorage
    )
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=[*words, "image", str(identification.number)])
    dataset.StudyInstanceUID = generate_uid(entropy_srcs=[*words, "study", str(identification.number)])
    dataset.SeriesInstanceUID = generate_uid(entropy_srcs=[*words, "series", str(identification.number)])
    dataset.PatientName = f"PHANTOM^{identification.patient}"
    dataset.PatientID = identification.patient
    dataset.PatientBirthDate, dataset.PatientSex = "", "O"
    dataset.StudyDate, dataset.StudyTime, dataset.ContentDate = "20000101", "000000", "20000101"
    dataset.StudyID, dataset.AccessionNumber, dataset.ReferringPhysicianName = "1", "", ""
    dataset.Manufacturer, dataset.SeriesDescription, dataset.ImageComments = "dinov2 phantom", REMARK, REMARK
    dataset.SeriesNumber, dataset.InstanceNumber = 1, identification.number + 1
    dataset.Modality, dataset.BodyPartExamined, dataset.ViewPosition = technique.modality, "CHEST", identification.view
    dataset.ImageType, dataset.BurnedInAnnotation = ["ORIGINAL", "PRIMARY", ""], "NO"
    dataset.PatientOrientation = ["L", "F"]
    dataset.ImageLaterality = "U"
    if technique.modality == "DX":
        dataset.PresentationIntentType = "FOR PRESENTATION"
        dataset.PresentationLUTShape = "INVERSE" if technique.monochrome1 else "IDENTITY"


def _describe_pixels(dataset: Dataset, *, stored: Stored, technique: Technique) -> None:
    """Image pixel, modality and window (PS3.3 C.7.6.3, C.11.1, C.11.2)."""
    top = 2**technique.bits_stored - 1
    dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 0
    dataset.PhotometricInterpretation = "MONOCHROME1" if technique.monochrome1 else "MONOCHROME2"
    dataset.BitsAllocated = stored.dtype.itemsize * 8
    dataset.BitsStored, dataset.HighBit = technique.bits_stored, technique.bits_stored - 1
    spacing = f"{FILM_HEIGHT_MM / stored.shape[0]:.6g}"
    dataset.ImagerPixelSpacing = [spacing, spacing]
    dataset.RescaleSlope = f"{technique.slope:g}"
    dataset.RescaleIntercept = f"{-technique.slope * top:g}" if technique.slope < 0 else "0"
    dataset.RescaleType = "US"
    dataset.WindowCenter = f"{abs(technique.slope) * top / 2:.6g}"
    dataset.WindowWidth = f"{abs(technique.slope) * top:.6g}"
    dataset.WindowCenterWidthExplanation = "FULL"
