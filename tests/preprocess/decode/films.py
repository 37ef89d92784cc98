"""Small films as bytes, for the tests of this room: drawn by the phantom room, with tags as a test wants them."""

import io
from functools import cache

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEGBaseline8Bit

from dinov2.config.preprocess import Decode, Limits
from dinov2.errors import DicomRejected
from dinov2.phantom.anatomy import render
from dinov2.phantom.body import Findings, draw_body
from dinov2.phantom.dicom import Identification, Technique, film_bytes
from dinov2.preprocess.decode.film import OpenFilm, open_film
from dinov2.preprocess.radiograph import Radiograph

WHO = Identification(series="tests", patient="PHANTOM-SECRET-4711", number=0, view="PA")
PLAIN = Decode()


@cache
def drawn(short_side: int = 96, seed: int = 0) -> np.ndarray:
    return render(draw_body(np.random.default_rng(seed), view="PA", findings=Findings()), short_side=short_side).film


def technique_of(syntax: UID = ExplicitVRLittleEndian, **words) -> Technique:
    """12 bits where the syntax takes them."""
    return Technique(**({"syntax": syntax, "bits_stored": 8 if syntax == JPEGBaseline8Bit else 12} | words))


@cache
def phantom(technique: Technique, short_side: int = 96) -> bytes:
    return film_bytes(drawn(short_side), technique=technique, identification=WHO)


def dicom(syntax: UID = ExplicitVRLittleEndian, **tags) -> bytes:
    """A phantom in `syntax`; `tags` are written over what it says, None removes one."""
    return retagged(phantom(technique_of(syntax)), **tags)


def retagged(data: bytes, **tags) -> bytes:
    if not tags:
        return data
    dataset = pydicom.dcmread(io.BytesIO(data))
    with pydicom.config.disable_value_validation():
        for name, value in tags.items():
            if value is None:
                delattr(dataset, name)
            else:
                setattr(dataset, name, value)
        return saved(dataset)


def saved(dataset: pydicom.Dataset) -> bytes:
    stream = io.BytesIO()
    dataset.save_as(stream)
    return stream.getvalue()


def of_pixels(stored: np.ndarray, **tags) -> bytes:
    """A native film of these containers, [H, W] or [F, H, W] or [H, W, 3]."""
    shape = stored.shape if stored.shape[-1] != 3 else stored.shape[:2]
    data = stored.astype(stored.dtype.newbyteorder("<")).tobytes()
    bits = stored.dtype.itemsize * 8
    return dicom(
        **{
            "Rows": shape[-2],
            "Columns": shape[-1],
            "BitsAllocated": bits,
            "BitsStored": bits,
            "HighBit": (tags.get("BitsStored") or bits) - 1,
            "PixelData": data + b"\0" * (len(data) % 2),
        }
        | tags
    )


def encapsulated(streams: list[bytes], *, syntax: UID, with_table: bool = True, **tags) -> bytes:
    """A film of these compressed frames."""
    dataset = pydicom.dcmread(io.BytesIO(dicom(syntax, **tags)))
    dataset.PixelData = encapsulate(streams, has_bot=with_table)
    return saved(dataset)


def stream_in(data: bytes) -> bytes:
    """The compressed stream of a film's first frame, and its pad byte."""
    return next(pydicom.encaps.generate_frames(pydicom.dcmread(io.BytesIO(data)).PixelData, number_of_frames=1))


def opened(data: bytes, *, policy: Decode = PLAIN, **limits) -> OpenFilm:
    return open_film(data, policy=policy, limits=Limits(**limits))


def film(data: bytes, *, policy: Decode = PLAIN, frame: int = 0, **limits) -> Radiograph:
    return opened(data, policy=policy, **limits).frame(frame)


def values(data: bytes, **words) -> np.ndarray:
    return film(data, **words).pixels


def reason_of(data: bytes, **words) -> str:
    with pytest.raises(DicomRejected) as caught:
        film(data, **words)
    return caught.value.reason
