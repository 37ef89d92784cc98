"""The structure of a PNG file: every chunk with its checksum, up to the end chunk.

In: the bytes of the file. Out: nothing, or DicomRejected. Source: PNG (ISO/IEC 15948), 5.3 chunk layout.
"""

import zlib

from dinov2.preprocess.decode import refusals

SIGNATURE = b"\x89PNG\r\n\x1a\n"
AROUND = 12  # length, name and checksum of a chunk


def check(data: bytes) -> None:
    """Raises DicomRejected: unreadable (no PNG header), truncated (no end chunk), undecodable (a checksum)."""
    if not data.startswith(SIGNATURE) or data[12:16] != b"IHDR":
        raise refusals.unreadable("the picture's header cannot be parsed")
    view, place = memoryview(data), len(SIGNATURE)
    while place + AROUND <= len(data):
        length = int.from_bytes(view[place : place + 4], "big")
        end = place + AROUND + length
        if end > len(data):
            break
        stated = int.from_bytes(view[end - 4 : end], "big")
        if zlib.crc32(view[place + 4 : end - 4]) != stated:
            raise refusals.undecodable(f"the checksum of the chunk at byte {place} does not fit its content")
        if data[place + 4 : place + 8] == b"IEND":
            return
        place = end
    raise refusals.truncated("the picture data ends early")
