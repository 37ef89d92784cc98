"""A DICOM film in memory: its header, then the frames that are asked for.

In: the content of a file. Out: `DicomFilm` with its `Header`, and a `Radiograph` per frame after the modality step, and
after VOI where asked for. Messages name tags, never the file nor an element's value: they are written into
`rejected.csv`.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut, convert_color_space
from pydicom.uid import UID, ExplicitVRBigEndian, RLELossless

from dinov2.config.preprocess import Decode, Limits
from dinov2.errors import DicomRejected
from dinov2.preprocess.decode import decoders, luts, native, refusals
from dinov2.preprocess.decode.bits import Settled, settle
from dinov2.preprocess.decode.colour import grey
from dinov2.preprocess.decode.complaints import unspoken
from dinov2.preprocess.decode.dataset import PixelElement, parse
from dinov2.preprocess.decode.frames import Frames, frames_of, stream_of
from dinov2.preprocess.decode.header import header_of, text
from dinov2.preprocess.decode.layout import PALETTE, Layout, layout_of
from dinov2.preprocess.decode.padding import padding
from dinov2.preprocess.radiograph import Header, Radiograph
from dinov2.preprocess.reasons import Flag, Reason


class DicomFilm:
    """A film whose header is parsed and whose pixels are not decoded yet."""

    def __init__(self, data: bytes, *, policy: Decode, limits: Limits) -> None:
        """Parse once.

        Raises DicomRejected: not_an_image, unreadable, truncated, too_large (a deflated data set), and bad_header where
        several frames are stated that are not there.
        """
        parsed = parse(data, max_bytes=limits.max_file_bytes)
        self._policy, self._limits = policy, limits
        self._dataset: Dataset = parsed.dataset
        self._body, self._pixels = parsed.body, parsed.pixels
        self._syntax: UID = parsed.syntax
        self._states_syntax = parsed.states_syntax
        self._plan: tuple[Layout, Frames | None] | None = None
        with unspoken():
            self.header: Header = header_of(parsed.dataset, syntax=parsed.syntax)
            if self.header.num_frames > 1 and self._pixels is not None:
                self._check_count()

    def frame(self, index: int) -> Radiograph:
        """Frame `index` [H, W] in modality units (after VOI: display units); no other frame is decoded.

        Order of operations: padding, PS3.3 C.11.1 (modality), then C.11.2 (VOI). Polarity is only stated here. Raises
        DicomRejected: no_pixels, multi_frame, colour, unsupported, bad_header, too_large, truncated, undecodable.
        """
        if not 0 <= index < self.header.num_frames:
            raise IndexError(f"frame {index} of {self.header.num_frames}")
        with unspoken():
            return self._frame(index)

    def _frame(self, index: int) -> Radiograph:
        layout, frames = self._planned()
        if self.header.num_frames > 1 and self._policy.multi_frame == "reject":
            raise DicomRejected(
                f"(0028,0008) Number of Frames is {self.header.num_frames}. Exclude it, or set "
                "decode.multi_frame=first.",
                reason=Reason.MULTI_FRAME,
            )
        raw = self._containers(layout, frames=frames, index=index)
        stored, reduced = self._one_channel(raw, layout=layout)
        return self._radiograph(stored, layout=layout, reduced=reduced)

    def _check_count(self) -> None:
        """Whether the frames that the header counts are there.  What else is wrong is said when a frame is asked for:
        a filter may exclude the film before.
        """
        try:
            self._planned()
        except DicomRejected as error:
            if error.reason in (Reason.BAD_HEADER, Reason.TRUNCATED):
                raise

    def _planned(self) -> tuple[Layout, Frames | None]:
        """Layout and frames, once: everything that can be checked before a pixel is unpacked."""
        if self._plan is None:
            pixels = self._present()
            layout = layout_of(self._dataset, max_pixels=self._limits.max_pixels)
            count = self.header.num_frames
            if pixels.is_encapsulated:
                frames = frames_of(
                    self._body,
                    pixels=pixels,
                    dataset=self._dataset,
                    num_frames=count,
                    one_fragment_each=self._syntax == RLELossless,
                )
                self._settle_syntax(stream_of(self._body, frame=frames[0]))
                self._plan = layout, frames
            else:
                native.check_length(self._body, pixels=pixels, layout=layout, num_frames=count, little=self._is_little)
                self._plan = layout, None
        return self._plan

    def _present(self) -> PixelElement:
        """The pixel data, in the form that the transfer syntax asks for."""
        pixels = self._pixels
        if pixels is None or not pixels.length:
            raise DicomRejected(
                f"{refusals.PIXEL_DATA} is absent. A report, or a cut file? Exclude it.", reason=Reason.NO_PIXELS
            )
        if self._states_syntax and self._syntax not in decoders.SUPPORTED:
            name = self._syntax.name if self._syntax.is_transfer_syntax else "unknown"
            raise refusals.unsupported(
                f"(0002,0010) Transfer Syntax {name} is not supported",
                advice="Transcode the file, for example to Explicit VR Little Endian.",
            )
        if self._states_syntax and pixels.is_encapsulated != (self._syntax in decoders.ENCAPSULATED):
            form = "encapsulated" if pixels.is_encapsulated else "not encapsulated"
            raise refusals.bad_header(f"{refusals.PIXEL_DATA} is {form}, against its transfer syntax")
        return pixels

    def _settle_syntax(self, stream: bytes) -> None:
        if not self._states_syntax:
            self._syntax = decoders.guess_syntax(stream)

    @property
    def _is_little(self) -> bool:
        return self._dataset.original_encoding[1] is not False and self._syntax != ExplicitVRBigEndian

    def _containers(self, layout: Layout, *, frames: Frames | None, index: int) -> NDArray[Any]:
        if frames is None:
            return native.unpack(self._body, pixels=self._present(), layout=layout, index=index, little=self._is_little)
        return decoders.decode(stream_of(self._body, frame=frames[index]), syntax=self._syntax, layout=layout)

    def _one_channel(self, raw: NDArray[Any], *, layout: Layout) -> tuple[Settled, bool]:
        """Stored values [H, W], and whether channels were reduced to their luminance."""
        stored = settle(raw, layout=layout)
        if layout.samples == 1 and layout.photometric != PALETTE:
            return stored, False
        colours = self._rgb(stored.values, layout=layout)
        values, reduced = grey(colours, policy=self._policy.colour)
        bits = values.dtype.itemsize * 8 if layout.photometric == PALETTE else stored.bits
        return Settled(values, int(values.min()), int(values.max()), bits, stored.disagrees), reduced

    def _rgb(self, values: NDArray[Any], *, layout: Layout) -> NDArray[Any]:
        """[H, W] of indices or [H, W, 3] -> [H, W, 3] RGB (PS3.3 C.7.6.3.1.2, C.7.9)."""
        try:
            if layout.photometric == PALETTE:
                return np.asarray(apply_color_lut(values, self._dataset))
            if layout.photometric in ("YBR_FULL", "YBR_FULL_422") and values.dtype == np.uint8:
                return np.asarray(convert_color_space(values, "YBR_FULL", "RGB"))
        except MemoryError:
            raise
        except Exception:
            raise refusals.bad_header("the palette or the colours cannot be applied") from None
        return values

    def _radiograph(self, stored: Settled, *, layout: Layout, reduced: bool) -> Radiograph:
        mask = padding(stored, dataset=self._dataset, is_signed=layout.is_signed)
        film = luts.modality(stored, dataset=self._dataset)
        shown = luts.voi(film, stored=stored, dataset=self._dataset) if self._policy.voi else film
        remarks = (
            (self.header.num_frames > 1, Flag.ONE_FRAME_OF_MANY),
            (reduced, Flag.COLOUR_REDUCED),
            (shown is None, Flag.NO_VOI),
            (not self._states_syntax, Flag.NO_META),
            (stored.disagrees, Flag.HEADER_DISAGREES),
        )
        return Radiograph(
            pixels=film if shown is None else shown,
            larger_is_darker=_larger_is_darker(self._dataset),
            padding=mask,
            bits_stored=stored.bits,
            header=self.header,
            flags=tuple(str(flag) for present, flag in remarks if present),
        )


def _larger_is_darker(dataset: Dataset) -> bool:
    """MONOCHROME1 and PresentationLUTShape INVERSE say the same one thing (PS3.3 C.8.11.3.1.2); both together are not
    two inversions.
    """
    return (
        text(dataset, "PhotometricInterpretation") == "MONOCHROME1"
        or text(dataset, "PresentationLUTShape") == "INVERSE"
    )
