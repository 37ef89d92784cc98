"""The structure of a DICOM RLE frame, before a decoder sees it.

In: the bytes of one frame, the size of a segment once unpacked. Out: nothing, or DicomRejected. Source: PS3.5 Annex G.
That no segment unpacks to less than its size, and no run leads beyond it, is checked by the decoder itself.
"""

import numpy as np

from dinov2.preprocess.decode import refusals

HEADER_BYTES = 64
MOST_PER_BYTE = 64  # two bytes become 128 at most
MOST_BYTES_PER_PIXEL = 2  # of a writer that never finds a run


def check(stream: bytes, *, num_segments: int, segment_bytes: int) -> None:
    """Segments are as many as the pixels need, in order, inside the stream, and long enough to hold their plane.

    Raises DicomRejected: truncated, undecodable.
    """
    if len(stream) < HEADER_BYTES:
        raise refusals.truncated("the RLE header is cut")
    header = np.frombuffer(stream[:HEADER_BYTES], "<u4").astype(int)
    offsets = header[1 : 1 + num_segments]
    if header[0] != num_segments or header[1 + num_segments :].any() or offsets[0] != HEADER_BYTES:
        raise refusals.undecodable(f"the RLE header does not announce the {num_segments} segments that the pixels need")
    lengths = np.diff([*offsets, len(stream)])
    if (offsets >= len(stream)).any():
        raise refusals.truncated("the RLE header announces segments that are not there")
    if (lengths <= 0).any():
        raise refusals.undecodable("the RLE header announces segments out of order")
    if (lengths > MOST_BYTES_PER_PIXEL * segment_bytes + HEADER_BYTES).any():
        raise refusals.undecodable("an RLE segment is longer than its pixels can be, however badly they pack")
    if (lengths * MOST_PER_BYTE < segment_bytes).any():
        raise refusals.truncated("an RLE segment is too short for its pixels, however well they pack")
