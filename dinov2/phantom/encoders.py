"""Stored pixels -> a compressed stream, in every transfer syntax that a film may come in.

In: integers [H, W] and how many bits of them are used. Out: the bytes of one frame. What the package itself depends on
writes most of them; two forms that nothing of it can write take `imagecodecs`, which only tests need.
"""

import io
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import gdcm
import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import generate_frames
from pydicom.uid import HTJ2K as HTJ2KLossy
from pydicom.uid import (
    JPEG2000,
    UID,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
    generate_uid,
)

from dinov2.errors import LaunchError

Stored = NDArray[np.uint8] | NDArray[np.uint16]
JPEG_QUALITY = 97
NEAR_LEVELS = 2  # of the stored values, for near-lossless JPEG-LS
J2K_RATIO = 4.0
HT_STEP = 0.0002  # of the range, for lossy HTJ2K


def encode(stored: Stored, *, syntax: UID, bits_stored: int) -> bytes:
    """One frame of `syntax`.

    Raises ValueError where the syntax takes other bits or is none of `ENCODERS`, LaunchError where `imagecodecs` is
    needed and absent.
    """
    if syntax not in ENCODERS:
        raise ValueError(f"no encoder for {syntax.name}")
    return ENCODERS[syntax](stored, bits_stored)


def _by_pydicom(syntax: UID, plugin: str, **options: Any) -> Callable[[Stored, int], bytes]:
    def encoder(stored: Stored, bits_stored: int) -> bytes:
        dataset = _plain(stored, bits_stored=bits_stored)
        dataset.compress(syntax, stored, encoding_plugin=plugin, generate_instance_uid=False, **options)
        return bytes(next(generate_frames(dataset.PixelData, number_of_frames=1)))

    return encoder


def _by_pillow(stored: Stored, bits_stored: int) -> bytes:
    _check_bits(bits_stored, takes=8, name="JPEG baseline")
    stream = io.BytesIO()
    Image.fromarray(stored).save(stream, "JPEG", quality=JPEG_QUALITY)
    return stream.getvalue()


def _by_gdcm(syntax: UID) -> Callable[[Stored, int], bytes]:
    def encoder(stored: Stored, bits_stored: int) -> bytes:
        """Through two files: objects of gdcm that share memory do not outlive one another safely in Python."""
        with tempfile.TemporaryDirectory() as folder:
            plain, packed = (str(Path(folder) / name) for name in ("plain.dcm", "packed.dcm"))
            _plain(stored, bits_stored=bits_stored).save_as(plain, enforce_file_format=True)
            reader = gdcm.ImageReader()
            reader.SetFileName(plain)
            change = gdcm.ImageChangeTransferSyntax()
            change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(syntax))))
            done = reader.Read()
            change.SetInput(reader.GetImage())
            done = done and change.Change()
            writer = gdcm.ImageWriter()
            writer.SetFileName(packed)
            writer.SetFile(reader.GetFile())
            writer.SetImage(change.GetOutput())
            if not (done and writer.Write()):
                raise ValueError(f"gdcm cannot write {syntax.name}")
            return bytes(next(generate_frames(pydicom.dcmread(packed).PixelData, number_of_frames=1)))

    return encoder


def _jpeg_extended(stored: Stored, bits_stored: int) -> bytes:
    _check_bits(bits_stored, takes=12, name="JPEG extended")
    return bytes(_imagecodecs().jpeg8_encode(stored, level=JPEG_QUALITY, bitspersample=12))


def _high_throughput(*, is_lossless: bool) -> Callable[[Stored, int], bytes]:
    def encoder(stored: Stored, bits_stored: int) -> bytes:  # noqa: ARG001  the stream states the container's bits
        level = None if is_lossless else HT_STEP
        return bytes(_imagecodecs().htj2k_encode(stored, level=level, reversible=is_lossless))

    return encoder


def _imagecodecs() -> ModuleType:
    try:
        import imagecodecs
    except ImportError:
        raise LaunchError(
            "JPEG extended and HTJ2K phantoms are written by imagecodecs, which is not installed: "
            "pip install 'dinov2[test]'"
        ) from None
    return imagecodecs


def _check_bits(bits_stored: int, *, takes: int, name: str) -> None:
    if bits_stored != takes:
        raise ValueError(f"{name} holds {takes} bits, not {bits_stored}")


def _plain(stored: Stored, *, bits_stored: int) -> Dataset:
    """The pixels as an uncompressed image of no one."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    uid = generate_uid(entropy_srcs=["plain"])
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid
    dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel, dataset.PixelRepresentation = 1, 0
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = stored.dtype.itemsize * 8
    dataset.BitsStored, dataset.HighBit = bits_stored, bits_stored - 1
    dataset.PixelData = stored.tobytes() + b"\0" * (stored.nbytes % 2)
    dataset["PixelData"].VR = "OB" if stored.dtype == np.uint8 else "OW"
    return dataset


ENCODERS: Mapping[UID, Callable[[Stored, int], bytes]] = {
    RLELossless: _by_pydicom(RLELossless, "pylibjpeg"),
    JPEGBaseline8Bit: _by_pillow,
    JPEGExtended12Bit: _jpeg_extended,
    JPEGLossless: _by_gdcm(JPEGLossless),
    JPEGLosslessSV1: _by_gdcm(JPEGLosslessSV1),
    JPEGLSLossless: _by_pydicom(JPEGLSLossless, "pyjpegls"),
    JPEGLSNearLossless: _by_pydicom(JPEGLSNearLossless, "pyjpegls", jls_error=NEAR_LEVELS),
    JPEG2000Lossless: _by_pydicom(JPEG2000Lossless, "pylibjpeg"),
    JPEG2000: _by_pydicom(JPEG2000, "pylibjpeg", j2k_cr=[J2K_RATIO]),
    HTJ2KLossless: _high_throughput(is_lossless=True),
    HTJ2KLosslessRPCL: _high_throughput(is_lossless=True),
    HTJ2KLossy: _high_throughput(is_lossless=False),
}
LOSSY = frozenset({JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless, JPEG2000, HTJ2KLossy})
FOR_TESTS = frozenset({JPEGExtended12Bit, HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2KLossy})
