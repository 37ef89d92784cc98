"""Bytes of a DICOM file -> its data set, and where its pixel data lies. The bytes themselves are not copied.

In: the whole content of a file. Out: a `Parsed`. pydicom parses what stands before the pixels; the pixel data element
is located here, so that a film of 15 MB is held once, and so that a length which leads outside the file is seen:
pydicom reads what is there and says nothing.
"""

import io
import zlib
from dataclasses import dataclass
from typing import Literal

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from dinov2.errors import DicomRejected
from dinov2.preprocess.decode import refusals
from dinov2.preprocess.decode.complaints import unspoken

PREFIX_AT, META_AT = 128, 132
PIXEL_DATA = (0x7FE0, 0x0010)
UNDEFINED = 0xFFFFFFFF
MEGABYTE = 1_000_000


@dataclass(frozen=True, kw_only=True)
class PixelElement:
    """The value of (7FE0,0010) within `Parsed.body`."""

    start: int
    length: int  # as stated; of encapsulated data everything up to the end of the file
    is_encapsulated: bool
    vr: str  # empty where the encoding states none

    @property
    def stop(self) -> int:
        """Behind the last byte, as stated."""
        return self.start + self.length


@dataclass(frozen=True, kw_only=True)
class Parsed:
    """A DICOM file whose pixels are still in place."""

    dataset: Dataset
    syntax: UID
    states_syntax: bool  # False: file meta information is absent, the encoding was guessed
    body: bytes  # what holds the pixel data: the file, or the data set once inflated
    pixels: PixelElement | None


def parse(data: bytes, *, max_bytes: int) -> Parsed:
    """The data set up to its pixel data.

    A deflated data set is inflated up to `max_bytes`. Raises DicomRejected: not_an_image, unreadable, truncated,
    too_large.
    """
    is_marked = data[PREFIX_AT:META_AT] == b"DICM"
    with unspoken() as remarks:
        try:
            meta = _deflated_meta(data, start=META_AT if is_marked else 0)
            if meta is None:
                body = data
                dataset, place = _read(data, force=not is_marked)
            else:
                body = _inflated(data[meta[1] :], max_bytes=max_bytes)
                dataset, place = _read_inflated(body, meta=meta[0])
            parsed = _located(dataset, body=body, place=place)
        except (DicomRejected, MemoryError):
            raise
        except Exception as error:  # a damaged file makes pydicom raise many kinds, RecursionError among them
            if not is_marked:
                raise refusals.not_an_image() from None
            raise refusals.unreadable(f"the DICOM structure cannot be parsed ({type(error).__name__})") from None
    if parsed.pixels is None and any("nd of file" in str(remark.message) for remark in remarks):
        raise refusals.truncated("the file ends within a sequence before its pixel data")
    return parsed


def _read(data: bytes, *, force: bool) -> tuple[Dataset, int]:
    """The data set, and where parsing ended.  Anything can be read by force: what comes out must look like an image."""
    stream = io.BytesIO(data)
    dataset = pydicom.dcmread(stream, stop_before_pixels=True, force=force)
    if force and not (dataset.get("Rows") and dataset.get("Columns")):
        raise refusals.not_an_image()
    return dataset, stream.tell()


def _deflated_meta(data: bytes, *, start: int) -> tuple[FileMetaDataset, int] | None:
    """The file meta information of a deflated file and where it ends; None for every other file."""
    if DeflatedExplicitVRLittleEndian.encode() not in data[:4096]:
        return None
    stream = io.BytesIO(data)
    stream.seek(start)
    meta = FileMetaDataset(read_dataset(stream, False, True, stop_when=lambda tag, *_: BaseTag(tag).group != 2))
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return None
    return meta, stream.tell()


def _inflated(packed: bytes, *, max_bytes: int) -> bytes:
    """PS3.5 A.5, never to more than `max_bytes`."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        body = inflater.decompress(packed, max_bytes)
    except zlib.error:
        raise refusals.unreadable("the deflated data set is damaged") from None
    if not inflater.eof:
        if inflater.unconsumed_tail or len(body) >= max_bytes:
            raise refusals.too_large(
                f"the deflated data set grows beyond {max_bytes // MEGABYTE} MB", key="limits.max_file_mb"
            )
        raise refusals.truncated("the deflated data set ends early")
    return body


def _read_inflated(body: bytes, *, meta: FileMetaDataset) -> tuple[Dataset, int]:
    stream = io.BytesIO(body)
    dataset = read_dataset(stream, False, True, stop_when=lambda tag, *_: tag >= 0x7FE00008)
    dataset.file_meta = meta
    return dataset, stream.tell()


def _located(dataset: Dataset, *, body: bytes, place: int) -> Parsed:
    implicit, little = dataset.original_encoding
    implicit, little = bool(implicit), little is not False
    stated = dataset.file_meta.get("TransferSyntaxUID") if hasattr(dataset, "file_meta") else None
    explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    return Parsed(
        dataset=dataset,
        syntax=UID(str(stated)) if stated else UID(ImplicitVRLittleEndian if implicit else explicit),
        states_syntax=bool(stated),
        body=body,
        pixels=_pixel_element(dataset, body=body, place=place, implicit=implicit, little=little),
    )


def _pixel_element(dataset: Dataset, *, body: bytes, place: int, implicit: bool, little: bool) -> PixelElement | None:
    """The element at which parsing stopped (PS3.5 7.1); None where the file ends soundly without one."""
    order: Literal["little", "big"] = "little" if little else "big"
    head = body[place : place + 12]
    if len(head) < 8:
        if head.strip(b"\0") or _last_stop(dataset) > len(body):
            raise refusals.truncated("the file ends within an element before its pixel data")
        return None
    group, number = (int.from_bytes(head[start : start + 2], order) for start in (0, 2))
    if (group, number) != PIXEL_DATA:
        if group < PIXEL_DATA[0] or group == 0xFFFE:
            raise refusals.unreadable("the elements of the file do not follow one another")
        return None  # float pixels, or none
    vr = "" if implicit or not head[4:6].isalpha() else head[4:6].decode("ascii", "replace")
    width = 12 if vr else 8
    length = int.from_bytes(head[8:12] if vr else head[4:8], order)
    is_encapsulated = length == UNDEFINED
    start = place + width
    return PixelElement(
        start=start,
        length=len(body) - start if is_encapsulated else length,
        is_encapsulated=is_encapsulated,
        vr=vr,
    )


def _last_stop(dataset: Dataset) -> int:
    """Where the last element of the data set should end, by the length that it states; 0 where it states none."""
    if not len(dataset):
        return 0
    last = max(dataset.keys())
    element = dataset.get_item(last)
    length = getattr(element, "length", None)
    tell = getattr(element, "value_tell", None)
    return int(tell) + int(length) if length not in (None, UNDEFINED) and tell is not None else 0
