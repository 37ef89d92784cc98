"""The structure of a stream of the JPEG family, from SOI to EOI, before a decoder sees it.

In: the bytes of one frame. Out: a `Codestream`, or DicomRejected. Sources: ITU-T T.81 Annex B (markers, segments,
scans, restart intervals), ITU-T T.87 Annex C (JPEG-LS: its own frame and parameter markers, another kind of stuffing).
Decoders of this family fill up what is missing and carry on; the structure shows what they would not say.
"""

import re
from dataclasses import dataclass, field

from dinov2.preprocess.decode import refusals
from dinov2.preprocess.decode.codestream.found import Codestream, byte_at, check_tail, number_at

EOI, SOS, DHT, DQT, DRI = 0xD9, 0xDA, 0xC4, 0xDB, 0xDD
FRAMES = {0xC0: "baseline", 0xC1: "extended", 0xC2: "progressive", 0xC3: "lossless", 0xF7: "jpeg-ls"}
RESTARTS = range(0xD0, 0xD8)
SEGMENTS = frozenset({DHT, DQT, DRI, 0xCC, 0xF8, 0xFE, *range(0xE0, 0xF0)})  # also DAC, LSE, COM, APPn
STUFFED = re.compile(rb"\xff[^\x00]")  # what ends entropy-coded data of T.81: 0xFF with anything but a zero
STUFFED_LS = re.compile(rb"\xff[\x80-\xff]")  # of T.87: 0xFF with a bit set where one is stuffed
BLOCK = 8


@dataclass
class _Walk:
    """What is known so far."""

    frame: Codestream | None = None
    sampling: dict[int, tuple[int, int]] = field(default_factory=dict)  # of each component: horizontal, vertical
    restart_interval: int = 0
    scanned: set[int] = field(default_factory=set)


def examine(stream: bytes) -> Codestream:
    """The frame header of a whole and well-formed stream.

    Raises DicomRejected: truncated (ends early), undecodable (malformed, or goes on after its end).
    """
    if stream[:2] != b"\xff\xd8":
        raise refusals.undecodable("the compressed stream does not begin as JPEG does")
    walk, place = _Walk(), 2
    while True:
        marker, place = _marker(stream, place)
        if marker == EOI:
            break
        length = number_at(stream, place, num_bytes=2)
        body = stream[place + 2 : place + length]
        if length < 2 or len(body) != length - 2:
            byte_at(stream, place + max(length, 2) - 1)
            raise _malformed(f"a segment of length {length}", place)
        place += length
        if marker == SOS:
            place = _scan(stream, place, walk=walk, head=body)
        else:
            _segment(marker, body, walk=walk, place=place)
    if walk.frame is None or len(walk.scanned) < walk.frame.components:
        raise refusals.truncated("the compressed stream has its end marker before its picture")
    check_tail(stream, end=place)
    return walk.frame


def _marker(stream: bytes, place: int) -> tuple[int, int]:
    """The marker at `place`, after any fill bytes, and the place behind it."""
    if byte_at(stream, place) != 0xFF:
        raise _malformed("no marker where one is due", place)
    while byte_at(stream, place) == 0xFF:
        place += 1
    marker = stream[place]
    if marker in FRAMES or marker in SEGMENTS or marker in (SOS, EOI):
        return marker, place + 1
    raise _malformed(f"marker FF{marker:02X}", place)


def _segment(marker: int, body: bytes, *, walk: _Walk, place: int) -> None:
    if marker in FRAMES:
        if walk.frame is not None:
            raise _malformed("a second frame header", place)
        walk.frame = _frame(marker, body, walk=walk, place=place)
    elif marker == DRI:
        if len(body) not in (2, 4):
            raise _malformed("a restart interval of wrong length", place)
        walk.restart_interval = int.from_bytes(body, "big")
    elif marker == DHT:
        _check_huffman(body, place=place)
    elif marker == DQT:
        rest = body
        while rest:
            size = 1 + BLOCK * BLOCK * (2 if rest[0] >> 4 else 1)
            if len(rest) < size or rest[0] >> 4 > 1 or rest[0] & 15 > 3:
                raise _malformed("a quantisation table of wrong length", place)
            rest = rest[size:]


def _frame(marker: int, body: bytes, *, walk: _Walk, place: int) -> Codestream:
    """SOFn: precision, lines, samples per line, components (T.81 B.2.2)."""
    if len(body) < 6 or len(body) != 6 + 3 * body[5] or not body[5]:
        raise _malformed("a frame header of wrong length", place)
    frame = Codestream(
        process=FRAMES[marker],
        precision=body[0],
        rows=int.from_bytes(body[1:3], "big"),
        columns=int.from_bytes(body[3:5], "big"),
        components=body[5],
    )
    for start in range(6, len(body), 3):
        walk.sampling[body[start]] = (body[start + 1] >> 4, body[start + 1] & 15)
    is_sampled = all(1 <= factor <= 4 for pair in walk.sampling.values() for factor in pair)
    if not (frame.rows and frame.columns and 2 <= frame.precision <= 16 and is_sampled):
        raise _malformed("a frame header out of range", place)
    return frame


def _check_huffman(body: bytes, *, place: int) -> None:
    """Tables are as long as their counts say, and no code is longer than its tree has room for (T.81 C.2)."""
    while body:
        counts = body[1:17]
        room = 1.0 - sum(count / 2**length for length, count in enumerate(counts, start=1))
        if len(counts) < 16 or len(body) < 17 + sum(counts) or body[0] & 15 > 3 or body[0] >> 4 > 1 or room < 0:
            raise _malformed("a Huffman table that contradicts itself", place)
        body = body[17 + sum(counts) :]


def _scan(stream: bytes, place: int, *, walk: _Walk, head: bytes) -> int:
    """Entropy-coded data from `place` on; the place of the marker behind it.

    The number of restart markers follows from the size of the picture, so that a lost interval is noticed.
    """
    if walk.frame is None:
        raise _malformed("a scan before the frame header", place)
    if not head or len(head) != 4 + 2 * head[0]:
        raise _malformed("a scan header of wrong length", place)
    components = [head[start] for start in range(1, 1 + 2 * head[0], 2)]
    if not components or not set(components) <= walk.sampling.keys():
        raise _malformed("a scan of components that the frame header does not name", place)
    is_ls = walk.frame.process == "jpeg-ls"
    pattern, restarts = (STUFFED_LS if is_ls else STUFFED), 0
    while True:
        found = pattern.search(stream, place)
        if found is None:
            raise refusals.truncated(f"the compressed stream ends at byte {len(stream)} without its end marker")
        place, marker = found.start(), stream[found.start() + 1]
        if marker == 0xFF:
            place += 1
        elif marker in RESTARTS and walk.restart_interval:
            if marker != RESTARTS[restarts % len(RESTARTS)]:
                raise _malformed("restart markers out of order", place)
            restarts, place = restarts + 1, place + 2
        else:
            break
    expected = None if is_ls else _expected_restarts(walk, components=components)
    if expected is not None and restarts not in (expected, expected + 1):  # some writers end with one more
        raise _malformed(f"{restarts} restart intervals of {expected}", place)
    walk.scanned.update(components)
    return place


def _expected_restarts(walk: _Walk, *, components: list[int]) -> int | None:
    """Restart markers of a scan (T.81 A.2): one between every two intervals of so many units."""
    frame = walk.frame
    if frame is None or not walk.restart_interval:
        return 0
    unit = 1 if frame.process == "lossless" else BLOCK
    widest, tallest = (max(pair[axis] for pair in walk.sampling.values()) for axis in (0, 1))
    across, down = walk.sampling[components[0]] if len(components) == 1 else (widest, tallest)
    step_x, step_y = (unit, unit) if len(components) == 1 else (unit * widest, unit * tallest)
    columns, rows = (
        (frame.columns, frame.rows)
        if len(components) > 1
        else (-(-frame.columns * across // widest), -(-frame.rows * down // tallest))
    )
    units = -(-columns // step_x) * -(-rows // step_y)
    return -(-units // walk.restart_interval) - 1


def _malformed(found: str, place: int) -> Exception:
    return refusals.undecodable(f"the compressed stream is malformed at byte {place}: {found}")
