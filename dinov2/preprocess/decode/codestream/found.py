"""What a compressed stream says about itself, and how its end is judged.

In: nothing. Out: `Codestream`, the same for every family.
"""

from dataclasses import dataclass

from dinov2.preprocess.decode import refusals


@dataclass(frozen=True, kw_only=True)
class Codestream:
    """The frame header of a compressed stream."""

    process: str  # "baseline", "extended", "progressive", "lossless", "jpeg-ls", "jpeg-2000" or "high-throughput"
    rows: int
    columns: int
    components: int
    precision: int  # bits of a sample


def check_tail(stream: bytes, *, end: int) -> None:
    """What follows the end marker may only be padding: zeros, or fill bytes.  Raises DicomRejected (undecodable)."""
    if stream[end:].strip(b"\x00\xff"):
        raise refusals.undecodable(f"the compressed stream goes on after its end marker at byte {end} of {len(stream)}")


def byte_at(stream: bytes, place: int) -> int:
    """The byte at `place`.  Raises DicomRejected (truncated) where the stream has ended before."""
    if place >= len(stream):
        raise refusals.truncated(f"the compressed stream ends at byte {len(stream)} without its end marker")
    return stream[place]


def number_at(stream: bytes, place: int, *, num_bytes: int) -> int:
    """A big-endian number.  Raises DicomRejected (truncated) where the stream has ended before."""
    byte_at(stream, place + num_bytes - 1)
    return int.from_bytes(stream[place : place + num_bytes], "big")
