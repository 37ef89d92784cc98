"""A compressed stream -> containers, by decoders that are pinned per transfer syntax.

In: the stream of one frame and the layout that the header states. Out: unsigned integers [H, W] or [H, W, 3]. pydicom
alone would try whatever is installed in its own order, and some decoders return garbage rows from a damaged stream
without a word. So the order is fixed here, the stream's structure is walked first and compared with the header, and a
decoder that complains of damage has not decoded.
"""

from collections.abc import Callable, Mapping
from typing import Any

import gdcm
import jpeg_ls
import numpy as np
import openjpeg
from numpy.typing import NDArray
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
from rle.utils import decode_frame as decode_rle_frame

from dinov2.preprocess.decode import refusals
from dinov2.preprocess.decode.codestream import jpeg, jpeg2000, rle
from dinov2.preprocess.decode.codestream.found import Codestream
from dinov2.preprocess.decode.complaints import overhearing, unspoken
from dinov2.preprocess.decode.layout import Layout

Decoder = Callable[[bytes, Codestream, UID], NDArray[Any]]
NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian)
SEQUENTIAL = ("baseline", "extended", "progressive")
PROCESSES: Mapping[UID, tuple[str, ...]] = {
    JPEGBaseline8Bit: SEQUENTIAL,
    JPEGExtended12Bit: SEQUENTIAL,
    JPEGLossless: ("lossless",),
    JPEGLosslessSV1: ("lossless",),
    JPEGLSLossless: ("jpeg-ls",),
    JPEGLSNearLossless: ("jpeg-ls",),
    JPEG2000Lossless: ("jpeg-2000",),
    JPEG2000: ("jpeg-2000",),
    HTJ2KLossless: ("high-throughput",),
    HTJ2KLosslessRPCL: ("high-throughput",),
    HTJ2KLossy: ("high-throughput",),
}
GUESSES: Mapping[str, UID] = {
    "baseline": JPEGBaseline8Bit,
    "progressive": JPEGBaseline8Bit,
    "extended": JPEGExtended12Bit,
    "lossless": JPEGLossless,
    "jpeg-ls": JPEGLSLossless,
    "jpeg-2000": JPEG2000,
    "high-throughput": HTJ2KLossy,
}
J2K_STARTS = (b"\xff\x4f", b"\x00\x00\x00\x0c")


def decode(stream: bytes, *, syntax: UID, layout: Layout) -> NDArray[Any]:
    """Containers of one frame, as many bits wide as its stream needs; colour is RGB, or YBR where the header says so.

    Raises DicomRejected: unsupported (transfer syntax), bad_header (the stream is of another size or kind), truncated,
    undecodable.
    """
    if syntax == RLELossless:
        return _decode_rle(stream, layout=layout)
    if syntax not in DECODERS:
        raise refusals.unsupported(
            f"(0002,0010) Transfer Syntax {syntax.name if syntax.is_transfer_syntax else 'unknown'} is not supported",
            advice="Transcode the file, for example to Explicit VR Little Endian.",
        )
    found = examine(stream)
    _compare(found, syntax=syntax, layout=layout)
    decoded = run(stream, found=found, syntax=syntax, decoders=DECODERS[syntax])
    shape = (layout.rows, layout.columns) if layout.samples == 1 else (layout.rows, layout.columns, layout.samples)
    if decoded.size != int(np.prod(shape)):
        raise refusals.undecodable(f"{refusals.PIXEL_DATA}: the decoder gave another number of pixels")
    return decoded.reshape(shape)


def examine(stream: bytes) -> Codestream:
    """What a stream of either family says about itself.  Raises DicomRejected: truncated, undecodable."""
    return jpeg2000.examine(stream) if stream.startswith(J2K_STARTS) else jpeg.examine(stream)


def guess_syntax(stream: bytes) -> UID:
    """The transfer syntax of a file that states none, by its stream; RLE begins as neither family does."""
    if not stream.startswith((b"\xff", J2K_STARTS[1])):
        return RLELossless
    return GUESSES[examine(stream).process]


def run(stream: bytes, *, found: Codestream, syntax: UID, decoders: tuple[Decoder, ...]) -> NDArray[Any]:
    """The first decoder that gives pixels and complains of nothing.  Raises DicomRejected (undecodable)."""
    refused = []
    for decoder in decoders:
        name = decoder.__name__.removeprefix("_by_")
        try:
            with overhearing() as heard, unspoken():
                decoded = decoder(stream, found, syntax)
        except (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError):
            raise
        except BaseException as error:  # decoders raise whatever they like; a panic of Rust is no Exception
            refused.append(f"{name} ({type(error).__name__})")
            continue
        if heard.is_damage:  # another decoder would only be less careful
            raise refusals.undecodable(f"{refusals.PIXEL_DATA}: {name} complained of damage")
        return decoded
    raise refusals.undecodable(f"{refusals.PIXEL_DATA}: refused by {', '.join(refused)}")


def _compare(found: Codestream, *, syntax: UID, layout: Layout) -> None:
    if (found.rows, found.columns) != (layout.rows, layout.columns):
        raise refusals.bad_header(
            f"the header states {layout.rows} x {layout.columns} pixels, the compressed stream has {found.rows} x "
            f"{found.columns}"
        )
    if found.components != layout.samples:
        raise refusals.bad_header(
            f"the header states {layout.samples} sample(s) per pixel, the compressed stream has {found.components}"
        )
    if found.process not in PROCESSES[syntax]:
        raise refusals.bad_header(f"(0002,0010) Transfer Syntax is {syntax.name}, the stream is {found.process}")


def _decode_rle(stream: bytes, *, layout: Layout) -> NDArray[Any]:
    num_segments = layout.samples * layout.bits_allocated // 8
    rle.check(stream, num_segments=num_segments, segment_bytes=layout.num_pixels)

    def by_pylibjpeg(stream: bytes, found: Codestream, syntax: UID) -> NDArray[Any]:  # noqa: ARG001
        planes = decode_rle_frame(stream, layout.num_pixels, layout.bits_allocated, "<")
        if _holds_more(stream, layout=layout):
            raise ValueError("more pixels than the header states")
        return np.frombuffer(planes, f"<u{layout.bits_allocated // 8}")

    found = Codestream(
        process="rle",
        rows=layout.rows,
        columns=layout.columns,
        components=layout.samples,
        precision=layout.bits_allocated,
    )
    values = run(stream, found=found, syntax=RLELossless, decoders=(by_pylibjpeg,))
    if values.size != layout.num_pixels * layout.samples:
        raise refusals.undecodable(f"{refusals.PIXEL_DATA}: the decoder gave another number of pixels")
    planes = values.reshape(layout.samples, layout.rows, layout.columns)
    return planes[0] if layout.samples == 1 else np.moveaxis(planes, 0, -1)


def _holds_more(stream: bytes, *, layout: Layout) -> bool:
    """Whether every segment goes on beyond its last pixel, which the decoder does not mind where a run ends there."""
    try:
        decode_rle_frame(stream.rstrip(b"\0"), layout.num_pixels + 1, layout.bits_allocated, "<")
    except ValueError:
        return False
    return True


def _by_openjpeg(stream: bytes, found: Codestream, syntax: UID) -> NDArray[Any]:  # noqa: ARG001
    # colour-by-pixel; YBR_ICT and YBR_RCT come out as RGB
    return np.frombuffer(openjpeg.decode_pixel_data(stream, version=2), _container(found.precision))


def _by_pyjpegls(stream: bytes, found: Codestream, syntax: UID) -> NDArray[Any]:  # noqa: ARG001
    decoded, info = jpeg_ls.decode_pixel_data(stream)
    values = np.frombuffer(decoded, _container(found.precision))
    if found.components > 1 and info["interleave_mode"] == 0:  # colour-by-plane
        values = np.moveaxis(values.reshape(found.components, found.rows, found.columns), 0, -1)
    return values


def _by_gdcm(stream: bytes, found: Codestream, syntax: UID) -> NDArray[Any]:
    """Values are asked for without a sign and as wide as the stream has them, whatever the header says."""
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(stream)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((found.columns, found.rows, 1))
    image.SetDataElement(element)
    kind = "MONOCHROME2" if found.components == 1 else "YBR_FULL"
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.GetPIType(kind)))
    if found.components > 1:
        image.SetPlanarConfiguration(0)
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(str(syntax))))
    width = _container(found.precision).itemsize * 8
    bits = found.precision
    image.SetPixelFormat(gdcm.PixelFormat(found.components, width, bits, bits - 1, 0))
    # SWIG hands the buffer over as text
    return np.frombuffer(image.GetBuffer().encode("utf-8", "surrogateescape"), _container(found.precision))


def _container(precision: int) -> np.dtype[Any]:
    return np.dtype("<u1" if precision <= 8 else "<u2" if precision <= 16 else "<u4")


DECODERS: Mapping[UID, tuple[Decoder, ...]] = {
    JPEGBaseline8Bit: (_by_gdcm,),
    JPEGExtended12Bit: (_by_gdcm,),
    JPEGLossless: (_by_gdcm,),
    JPEGLosslessSV1: (_by_gdcm,),
    JPEGLSLossless: (_by_pyjpegls, _by_gdcm),
    JPEGLSNearLossless: (_by_pyjpegls, _by_gdcm),
    JPEG2000Lossless: (_by_openjpeg, _by_gdcm),
    JPEG2000: (_by_openjpeg, _by_gdcm),
    HTJ2KLossless: (_by_openjpeg,),
    HTJ2KLosslessRPCL: (_by_openjpeg,),
    HTJ2KLossy: (_by_openjpeg,),
}
SUPPORTED = frozenset({*NATIVE, RLELossless, *DECODERS})
ENCAPSULATED = SUPPORTED - frozenset(NATIVE)
