"""A PNG, JPEG or TIFF film in memory: its header, then the pages that are asked for. Pillow decodes.

In: the content of a file. Out: `RasterFilm` with its `Header`, and a `Radiograph` per page, MONOCHROME2 by nature (a
TIFF may say otherwise). 8 and 16 bits keep their values.
"""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from pydicom.uid import JPEGBaseline8Bit

from dinov2.config.preprocess import Decode, Limits
from dinov2.errors import DicomRejected
from dinov2.preprocess.decode import decoders, refusals
from dinov2.preprocess.decode.codestream import jpeg, png, tiff
from dinov2.preprocess.decode.colour import grey
from dinov2.preprocess.decode.complaints import overhearing, unspoken
from dinov2.preprocess.radiograph import Header, Radiograph
from dinov2.preprocess.reasons import Flag, Reason

FORMATS = ("PNG", "JPEG", "TIFF")
MAGIC = (b"\x89PNG", b"\xff\xd8\xff", b"II*\x00", b"MM\x00*")
TIFF_PHOTOMETRIC, TIFF_MIN_IS_WHITE = 262, 0
EIGHT_BIT_MODES = {"1": "L", "P": "RGB", "PA": "RGB", "CMYK": "RGB", "YCbCr": "RGB", "HSV": "RGB", "LAB": "RGB"}
BYTES_PER_SAMPLE = {"1": 0.125, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2, "I": 4, "F": 4}


def is_raster(data: bytes) -> bool:
    """Whether the first bytes are those of a PNG, JPEG or TIFF file.

    A DICOM file may carry a TIFF header in its preamble (PS3.10 7.1); it is DICOM all the same.
    """
    return data.startswith(MAGIC) and data[128:132] != b"DICM"


class RasterFilm:
    """A raster whose header is parsed and whose pixels are not decoded yet."""

    def __init__(self, data: bytes, *, policy: Decode, limits: Limits) -> None:
        """Raises DicomRejected: unreadable, truncated or undecodable (PNG, by its checksums), too_large."""
        self._data, self._policy, self._limits = data, policy, limits
        if data.startswith(MAGIC[0]):
            png.check(data)
        with overhearing(), unspoken():
            self._image = _open(data)
            try:
                num_frames = int(getattr(self._image, "n_frames", 1))
            except Exception as error:
                raise refusals.unreadable(f"the pages cannot be counted ({type(error).__name__})") from None
        self._format = "JPEG" if data.startswith(MAGIC[1]) else str(self._image.format)
        self.header: Header = Header(
            height=self._image.height, width=self._image.width, num_frames=num_frames, transfer_syntax=self._format
        )

    def frame(self, index: int) -> Radiograph:
        """Page `index` [H, W] as stored.

        Raises DicomRejected: truncated, undecodable, multi_frame, colour, too_large.
        """
        pages = self.header.num_frames
        if not 0 <= index < pages:
            raise IndexError(f"page {index} of {pages}")
        if pages > 1 and self._policy.multi_frame == "reject":
            raise DicomRejected(
                f"the file has {pages} pages. Exclude it, or set decode.multi_frame=first.", reason=Reason.MULTI_FRAME
            )
        values, is_inverted = self._values(index)
        channel, reduced = grey(values, policy=self._policy.colour)
        film = np.ascontiguousarray(channel, dtype=np.float32)
        if values.dtype.kind == "f" and not np.isfinite(film).all():
            raise refusals.undecodable("the picture holds values that are no numbers")
        flags = [str(Flag.ONE_FRAME_OF_MANY)] * (pages > 1) + [str(Flag.COLOUR_REDUCED)] * reduced
        return Radiograph(
            pixels=film,
            larger_is_darker=is_inverted,
            padding=None,
            bits_stored=8 if values.dtype == np.uint8 else 16,
            header=self.header,
            flags=tuple(flags),
        )

    def _values(self, index: int) -> tuple[NDArray[Any], bool]:
        """Stored values of a page, and whether larger ones are darker."""
        try:
            with overhearing() as heard, unspoken():
                self._image.seek(index)
                self._check_page()
                if self._format == "JPEG":
                    listened = self._listened_jpeg()
                    if listened is not None:
                        return listened, False
                self._image.load()
                image = self._image.convert(EIGHT_BIT_MODES.get(self._image.mode, self._image.mode))
        except (DicomRejected, MemoryError):
            raise
        except Exception as error:  # Pillow raises many kinds for damaged data
            raise refusals.truncated(f"the picture data ends early or is damaged ({type(error).__name__})") from None
        if heard.is_damage:
            raise refusals.undecodable("the decoder complained of damage in the picture data")
        # Pillow gives WhiteIsZero TIFFs of 8 bits already turned round, those of 16 bits as stored
        is_inverted = self._format == "TIFF" and image.mode.startswith("I") and _white_is_zero(self._image)
        return np.asarray(image), is_inverted

    def _check_page(self) -> None:
        """Refuse by size and structure before anything is decoded."""
        height, width = self._image.height, self._image.width
        if height * width > self._limits.max_pixels:
            raise refusals.too_large(f"the picture claims {height} x {width} pixels", key="limits.max_megapixels")
        if self._format == "TIFF":
            mode = self._image.mode
            size = height * width * BYTES_PER_SAMPLE.get(mode, len(self._image.getbands()))
            # palettes and bilevel pictures pack several pixels into a byte
            tiff.check(
                getattr(self._image, "tag_v2", {}),
                file_bytes=len(self._data),
                pixel_bytes=0 if mode in ("1", "P", "L") and self._bits_per_sample() < 8 else int(size),
            )

    def _bits_per_sample(self) -> int:
        value = getattr(self._image, "tag_v2", {}).get(258, 1)
        return int(value[0] if isinstance(value, tuple) else value)

    def _listened_jpeg(self) -> NDArray[Any] | None:
        """The grey values of a JPEG by the decoder that complains of damage; None where it does not take its kind.

        Pillow passes over damage in silence.
        """
        found = jpeg.examine(self._data)
        if found.precision != 8 or found.components not in (1, 3) or found.process == "lossless":
            return None
        decoded = decoders.run(
            self._data, found=found, syntax=JPEGBaseline8Bit, decoders=decoders.DECODERS[JPEGBaseline8Bit]
        )
        return decoded.reshape(found.rows, found.columns) if found.components == 1 else None


def _open(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError:
        raise refusals.too_large(
            "the picture claims more pixels than a film has", key="limits.max_megapixels"
        ) from None
    except MemoryError:
        raise
    except (UnidentifiedImageError, Exception) as error:
        raise refusals.unreadable(f"the picture's header cannot be parsed ({type(error).__name__})") from None


def _white_is_zero(image: Image.Image) -> bool:
    tags = getattr(image, "tag_v2", {})
    return bool(tags.get(TIFF_PHOTOMETRIC) == TIFF_MIN_IS_WHITE)
