"""How the pixels of a data set are laid out, once its tags have been found to agree with one another.

In: a parsed data set. Out: a `Layout`, or DicomRejected before anything is allocated. Source: PS3.3 C.7.6.3.1, PS3.5 8.
"""

from dataclasses import dataclass

from pydicom.dataset import Dataset

from dinov2.preprocess.decode import refusals
from dinov2.preprocess.decode.header import integer, text

GREY = ("MONOCHROME1", "MONOCHROME2")
PALETTE = "PALETTE COLOR"
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
CONTAINERS = (8, 16, 32)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One frame of stored pixels."""

    rows: int
    columns: int
    samples: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    is_signed: bool
    photometric: str
    is_planar: bool
    disagrees: bool  # BitsStored or HighBit were impossible and were not believed

    @property
    def num_pixels(self) -> int:
        """Of a frame."""
        return self.rows * self.columns

    @property
    def frame_bytes(self) -> int:
        """Of a frame, not compressed; YBR_FULL_422 shares two of three samples between neighbours."""
        samples = 2 if self.photometric == "YBR_FULL_422" else self.samples
        return self.num_pixels * samples * self.bits_allocated // 8


def layout_of(dataset: Dataset, *, max_pixels: int) -> Layout:
    """The layout that the tags state.  Raises DicomRejected: bad_header, unsupported, too_large."""
    found = {keyword: _required(dataset, keyword) for keyword in ("Rows", "Columns", "BitsAllocated")}
    rows, columns, allocated = found["Rows"], found["Columns"], found["BitsAllocated"]
    representation = _required(dataset, "PixelRepresentation")
    photometric = text(dataset, "PhotometricInterpretation")
    if photometric not in (*GREY, PALETTE, *COLOUR):
        raise refusals.unsupported(
            "(0028,0004) Photometric Interpretation is none that is supported; expected MONOCHROME1 or MONOCHROME2",
            advice="Exclude the file.",
        )
    samples = integer(dataset, "SamplesPerPixel")
    samples = (3 if photometric in COLOUR else 1) if samples is None else samples
    if samples != (3 if photometric in COLOUR else 1):
        raise refusals.bad_header(f"(0028,0002) Samples per Pixel is {samples}, which {photometric} does not have")
    if rows < 1 or columns < 1 or representation not in (0, 1):
        raise refusals.bad_header("Rows, Columns or Pixel Representation are no possible numbers")
    if rows * columns > max_pixels:
        raise refusals.too_large(f"the header claims {rows} x {columns} pixels", key="limits.max_megapixels")
    if allocated not in CONTAINERS:
        raise refusals.bad_header(f"(0028,0100) Bits Allocated is {allocated}; expected 8, 16 or 32")
    stored, high_bit, disagrees = _bits(dataset, allocated=allocated)
    return Layout(
        rows=rows,
        columns=columns,
        samples=samples,
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=high_bit,
        is_signed=representation == 1,
        photometric=photometric,
        is_planar=integer(dataset, "PlanarConfiguration") == 1,
        disagrees=disagrees,
    )


def _required(dataset: Dataset, keyword: str) -> int:
    value = integer(dataset, keyword)
    if value is None:
        raise refusals.bad_header(f"{keyword} is absent or no number, so the pixels cannot be unpacked")
    return value


def _bits(dataset: Dataset, *, allocated: int) -> tuple[int, int, bool]:
    """BitsStored and HighBit, and whether what is stated was impossible.  An absent one follows from the others."""
    stored, high_bit = integer(dataset, "BitsStored"), integer(dataset, "HighBit")
    disagrees = stored is not None and not 1 <= stored <= allocated
    if stored is None or disagrees:
        stored = allocated
    if high_bit is None:
        return stored, stored - 1, disagrees
    if not stored - 1 <= high_bit < allocated:
        return stored, stored - 1, True
    return stored, high_bit, disagrees
