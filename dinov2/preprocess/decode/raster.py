"""A PNG, JPEG or TIFF file -> its header, then its film. The only reader of rasters in this room; Pillow decodes.

In: a path. Out: `Header` and `Radiograph`, MONOCHROME2 by nature (a TIFF may say otherwise). 8 and 16 bits keep their
values.
"""

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from dinov2.config.preprocess import Decode
from dinov2.errors import DicomRejected
from dinov2.preprocess.decode.colour import grey
from dinov2.preprocess.radiograph import Header, Radiograph
from dinov2.preprocess.reasons import Flag, Reason

FORMATS = ("PNG", "JPEG", "TIFF")
MAGIC = (b"\x89PNG", b"\xff\xd8\xff", b"II*\x00", b"MM\x00*")
TIFF_PHOTOMETRIC, TIFF_MIN_IS_WHITE = 262, 0
EIGHT_BIT_MODES = {"1": "L", "P": "RGB", "PA": "RGB", "CMYK": "RGB", "YCbCr": "RGB", "HSV": "RGB", "LAB": "RGB"}


def is_raster(path: Path) -> bool:
    """Whether the first bytes are those of a PNG, JPEG or TIFF file.  Raises OSError where it cannot be opened.

    A DICOM file may carry a TIFF header in its preamble (PS3.10 7.1); it is DICOM all the same.
    """
    with path.open("rb") as stream:
        start = stream.read(132)
    return start.startswith(MAGIC) and start[128:] != b"DICM"


def read_header(path: Path) -> Header:
    """Size and page count.  Raises DicomRejected (unreadable)."""
    with _open(path) as image:
        return Header(height=image.height, width=image.width, num_frames=_pages(image))


def read_raster(path: Path, *, policy: Decode) -> Radiograph:
    """The picture as [H, W] float32.  Raises DicomRejected: unreadable, truncated, multi_frame, colour."""
    with _open(path) as image:
        pages = _pages(image)
        if pages > 1 and policy.multi_frame == "reject":
            raise DicomRejected(
                f"the file has {pages} pages. Exclude it, or set decode.multi_frame=first.", reason=Reason.MULTI_FRAME
            )
        # Pillow gives WhiteIsZero TIFFs of 8 bits already turned round, those of 16 bits as stored
        stored_inverted = image.format == "TIFF" and _white_is_zero(image) and image.mode.startswith("I")
        try:
            image.load()
        except (OSError, ValueError, SyntaxError) as error:
            raise DicomRejected(
                "the picture data ends early or is damaged. Fetch the file again.", reason=Reason.TRUNCATED
            ) from error
        values = np.asarray(image.convert(EIGHT_BIT_MODES.get(image.mode, image.mode)))
    channel, reduced = grey(values, policy=policy.colour)
    flags = [str(Flag.ONE_FRAME_OF_MANY)] * (pages > 1) + [str(Flag.COLOUR_REDUCED)] * reduced
    return Radiograph(
        pixels=np.ascontiguousarray(channel, dtype=np.float32),
        larger_is_darker=stored_inverted,
        padding=None,
        bits_stored=8 if values.dtype == np.uint8 else 16,
        header=Header(height=channel.shape[0], width=channel.shape[1], num_frames=pages),
        flags=tuple(flags),
    )


def _open(path: Path) -> Image.Image:
    try:
        return Image.open(path, formats=FORMATS)
    except (UnidentifiedImageError, SyntaxError, ValueError) as error:
        raise DicomRejected(
            "the picture's header cannot be parsed. Fetch the file again.", reason=Reason.UNREADABLE
        ) from error
    except Image.DecompressionBombError as error:
        raise DicomRejected(
            "the picture claims more pixels than a film has. Exclude it.", reason=Reason.UNREADABLE
        ) from error


def _pages(image: Image.Image) -> int:
    return int(getattr(image, "n_frames", 1))


def _white_is_zero(image: Image.Image) -> bool:
    tags = getattr(image, "tag_v2", {})
    return bool(tags.get(TIFF_PHOTOMETRIC) == TIFF_MIN_IS_WHITE)
