"""Stored pixels out of a DICOM data set, by decoders pinned per transfer syntax.

In: a pydicom data set with its pixel data. Out: integers [H, W] or [H, W, 3], of the first frame. pydicom alone would
try whatever is installed in its own order; some decoders return garbage rows from a cut stream without a word, so the
order is fixed here and a stream that does not end in its end marker is not decoded at all.
"""

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.pixels import pixel_array
from pydicom.uid import HTJ2K as HTJ2KLossy
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from dinov2.errors import DicomRejected
from dinov2.preprocess.reasons import Reason

NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian)
DECODERS: Mapping[UID, tuple[str, ...]] = {
    **dict.fromkeys(NATIVE, ()),  # pydicom itself
    RLELossless: ("pylibjpeg", "pydicom"),
    JPEGBaseline8Bit: ("gdcm",),
    JPEGExtended12Bit: ("gdcm",),
    JPEGLossless: ("gdcm",),
    JPEGLosslessSV1: ("gdcm",),
    JPEGLSLossless: ("pyjpegls", "gdcm"),
    JPEGLSNearLossless: ("pyjpegls", "gdcm"),
    JPEG2000Lossless: ("pylibjpeg", "gdcm"),
    JPEG2000: ("pylibjpeg", "gdcm"),
    HTJ2KLossless: ("pylibjpeg",),
    HTJ2KLosslessRPCL: ("pylibjpeg",),
    HTJ2KLossy: ("pylibjpeg",),
}
ENCAPSULATED = frozenset(DECODERS) - frozenset(NATIVE)
END_OF_STREAM = b"\xff\xd9"  # EOI of the JPEG family, EOC of JPEG 2000
TRAILING_BYTES = 16  # padding that writers are seen to append; DICOM itself allows one byte


def decode(dataset: Dataset, *, num_frames: int) -> NDArray[Any]:
    """Stored values of the first frame: [H, W], or [H, W, 3] in RGB.

    Raises DicomRejected: unsupported (transfer syntax), truncated, undecodable.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax not in DECODERS:
        raise DicomRejected(
            f"(0002,0010) Transfer Syntax {UID(syntax).name if UID(syntax).is_transfer_syntax else 'unknown'} is "
            "not supported. "
            "Transcode the file, for example to Explicit VR Little Endian.",
            reason=Reason.UNSUPPORTED,
        )
    if syntax in NATIVE:
        return _decode_native(dataset)
    _check_end(dataset, syntax=syntax, num_frames=num_frames)
    refusals = []
    for plugin in DECODERS[syntax]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return np.asarray(pixel_array(dataset, index=0, decoding_plugin=plugin))
        except Exception as error:  # decoders raise whatever they like; the next one is asked
            refusals.append(f"{plugin} ({type(error).__name__})")
    raise DicomRejected(
        f"(7FE0,0010) Pixel Data: refused by {', '.join(refusals)}. Fetch the file again from its archive.",
        reason=Reason.UNDECODABLE,
    )


def _decode_native(dataset: Dataset) -> NDArray[Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # trailing padding is common and harmless
            return np.asarray(pixel_array(dataset, index=0))
    except ValueError as error:
        needed = _native_bytes(dataset)
        stored = len(dataset.PixelData)
        if stored < needed:
            raise DicomRejected(
                f"(7FE0,0010) Pixel Data holds {stored} of {needed} bytes. Fetch the file again from its archive.",
                reason=Reason.TRUNCATED,
            ) from error
        raise DicomRejected(
            f"(7FE0,0010) Pixel Data cannot be unpacked ({type(error).__name__}). Check Rows, Columns and Bits "
            "Allocated.",
            reason=Reason.UNDECODABLE,
        ) from error


def _native_bytes(dataset: Dataset) -> int:
    bits = (
        int(dataset.Rows) * int(dataset.Columns) * int(dataset.get("SamplesPerPixel", 1)) * int(dataset.BitsAllocated)
    )
    return -(-bits // 8) * int(dataset.get("NumberOfFrames", 1) or 1)


def _check_end(dataset: Dataset, *, syntax: UID, num_frames: int) -> None:
    """Refuse a stream that was cut, which some decoders would fill up with garbage."""
    try:
        stream = next(generate_frames(dataset.PixelData, number_of_frames=num_frames))
    except Exception as error:  # a fragment that claims more bytes than there are
        raise DicomRejected(
            "(7FE0,0010) Pixel Data: the encapsulation is cut. Fetch the file again from its archive.",
            reason=Reason.TRUNCATED,
        ) from error
    if syntax == RLELossless:
        _check_rle(stream, dataset=dataset)
        return
    body = stream.rstrip(b"\x00")
    if body[-1:] == b"\xff":  # one fill byte after the marker
        body = body.rstrip(b"\xff") if body.rstrip(b"\xff").endswith(END_OF_STREAM) else body
    if not body.endswith(END_OF_STREAM) or len(stream) - len(body) > TRAILING_BYTES:
        raise DicomRejected(
            "(7FE0,0010) Pixel Data: the compressed stream does not end in its end marker. Fetch the file again "
            "from its archive.",
            reason=Reason.TRUNCATED,
        )


def _check_rle(stream: bytes, *, dataset: Dataset) -> None:
    """The segments that the RLE header announces lie inside the stream (DICOM PS3.5 G.5)."""
    header = np.frombuffer(stream[:64].ljust(64, b"\0"), dtype="<u4")
    expected = int(dataset.get("SamplesPerPixel", 1)) * -(-int(dataset.BitsAllocated) // 8)
    if header[0] != expected or int(header[1 : 1 + expected].max(initial=0)) >= len(stream):
        raise DicomRejected(
            "(7FE0,0010) Pixel Data: the RLE header announces segments that are not there. Fetch the file again "
            "from its archive.",
            reason=Reason.TRUNCATED,
        )
