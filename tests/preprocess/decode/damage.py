"""Damaged copies of small films in every transfer syntax, and how much of the damage is noticed.

In: nothing. Out: films as bytes, ways to damage their pixel data, and, as `python -m tests.preprocess.decode.damage`,
the table of the documentation: the share of damaged copies that gave no picture.
"""

import io
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pydicom
from PIL import Image
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from dinov2.config.preprocess import Decode
from dinov2.errors import DicomRejected
from dinov2.phantom.dicom import WRITABLE
from tests.preprocess.decode.films import PLAIN, drawn, phantom, technique_of, values

SECTOR = 512
RASTERS = ("PNG", "JPEG", "TIFF")


@dataclass(frozen=True)
class Film:
    """A good film; `start` and `stop` bound its pixel data, of compressed forms behind their own headers."""

    name: str
    data: bytes
    start: int
    stop: int


def good_film(form: UID | str, *, short_side: int = 160) -> Film:
    """A film in a transfer syntax or a raster format."""
    if isinstance(form, UID):
        data = phantom(technique_of(form), short_side)
        if form == DeflatedExplicitVRLittleEndian:
            return Film(form.name, data, 600, len(data))
        size = len(pydicom.dcmread(io.BytesIO(data)).PixelData)
        stop = len(data) - (8 if form.is_encapsulated else 0)
        return Film(form.name, data, _behind_headers(data, first=stop - size), stop)
    stream = io.BytesIO()
    Image.fromarray((drawn(short_side) * 255).astype(np.uint8)).save(stream, form)
    data = stream.getvalue()
    return Film(form, data, _behind_headers(data, first=0) if form == "JPEG" else 100, len(data))


def _behind_headers(data: bytes, *, first: int) -> int:
    """Behind the headers of a compressed stream: what is left is coded pixels."""
    for marker, size in ((b"\xff\xda", 10), (b"\xff\x93", 2)):
        place = data.rfind(marker, first)
        if place >= 0 and data.startswith((b"\xff\xd8", b"\xff\x4f"), first + (0 if first == 0 else 16)):
            return place + size
    return first


def decoded(data: bytes, *, policy: Decode = PLAIN) -> np.ndarray | str:
    """The film's values, or the reason for which there are none.  Anything else that is raised is a fault."""
    try:
        return values(data, policy=policy)
    except DicomRejected as error:
        return str(error.reason)


def flipped(film: Film, rng: np.random.Generator) -> bytes:
    """One byte of the pixel data becomes another."""
    data = bytearray(film.data)
    data[int(rng.integers(film.start, film.stop))] ^= int(rng.integers(1, 256))
    return bytes(data)


def zeroed(film: Film, rng: np.random.Generator) -> bytes:
    """A sector was lost, and zeros stand in its place."""
    start = int(rng.integers(film.start, film.stop - SECTOR))
    return film.data[:start] + bytes(SECTOR) + film.data[start + SECTOR :]


def cut(film: Film, rng: np.random.Generator) -> bytes:
    """The file ends within its pixel data."""
    return film.data[: int(rng.integers(film.start, film.stop - 16))]


def filled(film: Film, rng: np.random.Generator) -> bytes:
    """The pixel data ends early, zeros fill it up, and only the last bytes, with any end marker, are there again."""
    end = int(rng.integers(film.start, film.stop - 32))
    return film.data[:end] + bytes(film.stop - 16 - end) + film.data[film.stop - 16 :]


DAMAGES: dict[str, Callable[[Film, np.random.Generator], bytes]] = {
    "a byte changed": flipped,
    "512 bytes zeroed": zeroed,
    "cut": cut,
    "cut and filled up": filled,
}


def share_noticed(film: Film, *, kind: str, count: int) -> tuple[float, Counter[str]]:
    """The share of `count` copies, damaged in their pixels, that gave no picture; and the reasons."""
    rng, good = np.random.default_rng(0), decoded(film.data)
    reasons: Counter[str] = Counter()
    for _ in range(count):
        found = decoded(DAMAGES[kind](film, rng))
        unchanged = not isinstance(found, str) and found.shape == good.shape and np.array_equal(found, good)
        reasons["unchanged" if unchanged else found if isinstance(found, str) else "picture"] += 1
    harmed = count - reasons["unchanged"]
    return 1 - reasons["picture"] / max(1, harmed), reasons


def main(count: int = 200) -> None:
    """Print the table."""
    print("| form | " + " | ".join(DAMAGES) + " |")
    print("|---" * (1 + len(DAMAGES)) + "|")
    for form in (*WRITABLE, *RASTERS):
        film = good_film(form)
        shares = [share_noticed(film, kind=kind, count=count)[0] for kind in DAMAGES]
        print(f"| {film.name} | " + " | ".join(f"{100 * share:.0f} %" for share in shares) + " |", flush=True)


if __name__ == "__main__":
    main()
