"""The structure of a JPEG 2000 codestream, from SOC to EOC, before a decoder sees it.

In: the bytes of one frame, bare or boxed as JP2. Out: a `Codestream`, or DicomRejected. Sources: ITU-T T.800 Annex A
(markers, SIZ, COD, tile-parts), Annex I (boxes); ITU-T T.814 (CAP announces high-throughput blocks). The coded data
itself carries no redundancy: what changes inside a packet's body changes the picture and nothing else.
"""

import re

from dinov2.preprocess.decode import refusals
from dinov2.preprocess.decode.codestream.found import Codestream, byte_at, check_tail, number_at

SOC, CAP, SIZ, COD, SOT, SOD, EOC = 0xFF4F, 0xFF50, 0xFF51, 0xFF52, 0xFF90, 0xFF93, 0xFFD9
JP2 = b"\x00\x00\x00\x0cjP  \r\n\x87\n"
NOT_IN_PACKETS = re.compile(rb"\xff[\x90\x93-\xff]")  # coded data is stuffed; only SOP and EPH stand within it
BYPASS = 0x01  # of the code-block style: raw bits, which may be zeros for long
LONGEST_SILENCE = 64  # zero bytes in a row that arithmetic coding is granted beside its empty packets


def examine(stream: bytes) -> Codestream:
    """The size header of a whole and well-formed codestream.

    Raises DicomRejected: truncated (ends early, or zeros fill it up), undecodable (malformed, or goes on after its
    end).
    """
    if stream.startswith(JP2):
        stream = _unboxed(stream)
    if stream[:2] != SOC.to_bytes(2, "big") or number_at(stream, 2, num_bytes=2) != SIZ:
        raise refusals.undecodable("the compressed stream does not begin as JPEG 2000 does")
    frame, num_tiles = _size(_body(stream, 4))
    place, silence, process = 2, None, "jpeg-2000"
    while (marker := number_at(stream, place, num_bytes=2)) != SOT:
        body = _body(stream, place + 2)
        if marker == EOC or marker < 0xFF30:
            raise _malformed("no tile", place)
        if marker == CAP:
            process = "high-throughput"
        if marker == COD:
            silence = _longest_silence(body, frame=frame)
        place += 4 + len(body)
    if silence is None:
        raise _malformed("no coding style", place)
    place = _tile_parts(stream, place, num_tiles=num_tiles, silence=silence if process == "jpeg-2000" else 0)
    check_tail(stream, end=place)
    return Codestream(
        process=process,
        rows=frame.rows,
        columns=frame.columns,
        components=frame.components,
        precision=frame.precision,
    )


def _unboxed(stream: bytes) -> bytes:
    """The codestream of a JP2 file (T.800 I.5.4): DICOM wants it bare, some writers box it."""
    place = 0
    while place + 8 <= len(stream):
        length = number_at(stream, place, num_bytes=4)
        head = 8
        if length == 1:
            length, head = number_at(stream, place + 8, num_bytes=8), 16
        if stream[place + 4 : place + 8] == b"jp2c":
            if length > len(stream) - place:
                raise refusals.truncated("the compressed stream ends inside its box")
            return stream[place + head : place + length if length else len(stream)]
        if length < 8:
            raise _malformed("a box without a length", place)
        place += length
    raise refusals.truncated("the compressed stream holds no codestream box")


def _body(stream: bytes, place: int) -> bytes:
    """The content of the segment whose length stands at `place`."""
    length = number_at(stream, place, num_bytes=2)
    if length < 2:
        raise _malformed(f"a segment of length {length}", place)
    byte_at(stream, place + length - 1)
    return stream[place + 2 : place + length]


def _size(body: bytes) -> tuple[Codestream, int]:
    """SIZ (T.800 A.5.1): the picture, and how many tiles cut it up."""
    words = [int.from_bytes(body[start : start + 4], "big") for start in range(2, 34, 4)]
    components = int.from_bytes(body[34:36], "big")
    if len(body) != 36 + 3 * components or not components:
        raise _malformed("a size header of wrong length", 2)
    right, bottom, left, top, tile_width, tile_height, tile_left, tile_top = words
    is_sound = left < right and top < bottom and tile_width and tile_height and tile_left <= left and tile_top <= top
    precision = (body[36] & 0x7F) + 1
    if not is_sound or precision > 32:
        raise _malformed("a size header out of range", 2)
    num_tiles = -(-(right - tile_left) // tile_width) * -(-(bottom - tile_top) // tile_height)
    frame = Codestream(
        process="jpeg-2000", rows=bottom - top, columns=right - left, components=components, precision=precision
    )
    return frame, num_tiles


def _longest_silence(body: bytes, *, frame: Codestream) -> int:
    """How many zero bytes in a row coded data may hold: each empty packet is one (T.800 B.10.3); 0: no limit known."""
    if len(body) < 10:
        raise _malformed("a coding style of wrong length", 2)
    layers, levels, style = int.from_bytes(body[2:4], "big"), body[5], body[8]
    if levels > 32 or (body[0] & 1 and len(body) < 11 + levels):
        raise _malformed("a coding style out of range", 2)
    if style & BYPASS:
        return 0
    packets = 0
    for level in range(levels + 1):
        exponents = body[10 + level] if body[0] & 1 else 0xFF
        columns, rows = (-(-side >> (levels - level)) for side in (frame.columns, frame.rows))
        packets += ((columns >> (exponents & 15)) + 2) * ((rows >> (exponents >> 4)) + 2)
    return LONGEST_SILENCE + packets * layers * frame.components


def _tile_parts(stream: bytes, place: int, *, num_tiles: int, silence: int) -> int:
    """Walk all tile-parts (T.800 A.4.2) by the lengths they state; the place behind EOC."""
    seen: dict[int, int] = {}
    while (marker := number_at(stream, place, num_bytes=2)) == SOT:
        tile, length = number_at(stream, place + 4, num_bytes=2), number_at(stream, place + 6, num_bytes=4)
        part, parts = number_at(stream, place + 10, num_bytes=1), number_at(stream, place + 11, num_bytes=1)
        if tile >= num_tiles or part != seen.get(tile, 0) or (parts and part >= parts):
            raise _malformed("tile-parts out of order", place)
        seen[tile] = part + 1
        end = place + length
        if not length:  # the last one may leave its length open
            end = stream.rfind(EOC.to_bytes(2, "big"))
        if end > len(stream) - 2 or end < 0:
            raise refusals.truncated(f"the compressed stream ends at byte {len(stream)}, within a tile")
        _check_coded(stream, _start_of_data(stream, place, end=end), end=end, silence=silence)
        place = end
    if marker != EOC:
        raise _malformed("neither a tile nor the end where a tile ends", place)
    if len(seen) < num_tiles:
        raise refusals.truncated(f"the compressed stream holds {len(seen)} of {num_tiles} tiles")
    return place + 2


def _start_of_data(stream: bytes, place: int, *, end: int) -> int:
    place += 12
    while (marker := number_at(stream, place, num_bytes=2)) != SOD:
        if marker < 0xFF30 or place >= end:
            raise _malformed("a tile without data", place)
        place += 2 + number_at(stream, place + 2, num_bytes=2)
    if place + 2 > end:
        raise _malformed("a tile without data", place)
    return place + 2


def _check_coded(stream: bytes, place: int, *, end: int, silence: int) -> None:
    found = NOT_IN_PACKETS.search(stream, place, end)
    if found is not None:
        raise _malformed("a marker inside coded data", found.start())
    if silence:
        gap = stream.find(bytes(silence + 1), place, end)
        if gap >= 0:
            raise refusals.truncated(f"the compressed stream is filled up with zeros from byte {gap} on")


def _malformed(found: str, place: int) -> Exception:
    return refusals.undecodable(f"the compressed stream is malformed at byte {place}: {found}")
