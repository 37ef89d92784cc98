"""Encapsulated pixel data -> the compressed stream of one frame.

In: the bytes that hold the element, the number of frames that the header states. Out: where each frame's fragments lie;
nothing is copied before a frame is asked for. Source: PS3.5 A.4.
"""

from dataclasses import dataclass

from pydicom.dataset import Dataset

from dinov2.preprocess.decode import refusals
from dinov2.preprocess.decode.dataset import PixelElement
from dinov2.preprocess.decode.header import element

ITEM, DELIMITER = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
STARTS = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP  ")  # JPEG, JPEG 2000, boxed JPEG 2000
HEAD = 8  # tag and length of an item


@dataclass(frozen=True)
class Fragment:
    """One item: the place of its value, and its length."""

    start: int
    length: int

    @property
    def stop(self) -> int:
        """Behind its last byte."""
        return self.start + self.length


Frames = tuple[tuple[Fragment, ...], ...]


def frames_of(
    body: bytes, *, pixels: PixelElement, dataset: Dataset, num_frames: int, one_fragment_each: bool
) -> Frames:
    """The fragments of each frame; of RLE, every frame is one fragment (PS3.5 A.4.2).

    Raises DicomRejected: truncated (an item reaches beyond the file), undecodable (no item where one is due),
    bad_header (Number of Frames does not fit what is there).
    """
    items = _items(body, start=pixels.start)
    if not items:
        raise refusals.truncated(f"{refusals.PIXEL_DATA}: there is no item")
    table, fragments = items[0], items[1:]
    begun = [number for number, fragment in enumerate(fragments) if body.startswith(STARTS, fragment.start)]
    if num_frames == 1 and len(begun) <= 1 and fragments and not one_fragment_each:
        return (tuple(fragments),)
    if len(fragments) == num_frames:
        return tuple((fragment,) for fragment in fragments)
    if len(fragments) < num_frames:
        raise refusals.truncated(f"{refusals.PIXEL_DATA} holds {len(fragments)} of {num_frames} frames")
    if not one_fragment_each and (len(begun) != num_frames or begun[0] != 0):
        begun = _by_table(body, table=table, dataset=dataset, fragments=fragments)
    if len(begun) != num_frames:
        raise refusals.bad_header(
            f"(0028,0008) Number of Frames is {num_frames}, the pixel data holds {max(len(begun), len(fragments))}"
        )
    return tuple(tuple(fragments[first:last]) for first, last in zip(begun, [*begun[1:], len(fragments)], strict=True))


def stream_of(body: bytes, *, frame: tuple[Fragment, ...]) -> bytes:
    """The compressed stream of a frame, its fragments joined."""
    return b"".join(body[fragment.start : fragment.stop] for fragment in frame)


def _items(body: bytes, *, start: int) -> list[Fragment]:
    """All items up to the delimiter; a file that ends right behind an item has lost the delimiter alone."""
    items: list[Fragment] = []
    while start < len(body):
        tag = body[start : start + 4]
        if tag == DELIMITER:
            return items
        if tag != ITEM:
            if len(body) - start < HEAD:
                break
            raise refusals.undecodable(f"{refusals.PIXEL_DATA}: no item where one is due")
        item = Fragment(start + HEAD, int.from_bytes(body[start + 4 : start + HEAD], "little"))
        if item.stop > len(body):
            raise refusals.truncated(f"{refusals.PIXEL_DATA}: a fragment claims more bytes than the file has")
        items.append(item)
        start = item.stop
    return items


def _by_table(body: bytes, *, table: Fragment, dataset: Dataset, fragments: list[Fragment]) -> list[int]:
    """Numbers of the fragments that begin a frame, by the extended or the basic offset table; empty without either."""
    extended = element(dataset, "ExtendedOffsetTable")
    packed, width = (extended, 8) if isinstance(extended, bytes) and extended else (body[table.start : table.stop], 4)
    offsets = [int.from_bytes(packed[at : at + width], "little") for at in range(0, len(packed) - width + 1, width)]
    places = {fragment.start - HEAD - table.stop: number for number, fragment in enumerate(fragments)}
    begun = [places.get(offset, -1) for offset in offsets]
    return begun if begun[:1] == [0] and begun == sorted(set(begun)) else []
