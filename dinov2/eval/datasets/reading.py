"""Files as pictures and masks in memory.

In: a `Manifest`, whose pictures are files or lie in tar shards; files of masks. Out: uint8 or float32 [H, W] or
[H, W, 3]; class indices uint8 [H, W]. Everything is read only.

Eight bits stay as they are. Sixteen bits become float32 0..1 between the darkest and the brightest level of the
picture, which is what `dinov2 preprocess` does to films: files that it wrote with 16 bits keep their levels, and those
that use 12 of 16 bits do not come out black. Colour whose channels are equal is grey.
"""

import io
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from dinov2.data.dataset import Shards, Unreadable
from dinov2.errors import ManifestError
from dinov2.eval.datasets.source import Masks, Pictures
from dinov2.eval.examples import Mask, Picture
from dinov2.manifest import PLACES, Manifest
from dinov2.manifest.place import size_of

WHOLE = 255  # a mask of one class may say 255 instead of 1
MAX_VALUES_NAMED = 8


class Films:
    """The pictures of a manifest by row."""

    def __init__(self, manifest: Manifest) -> None:
        known = ("image", "width", "height", *PLACES)
        table = manifest.table.select([name for name in known if name in manifest.table.column_names])
        self._manifest = Manifest(table, manifest.root)
        self._shards = Shards()

    def picture(self, row: int) -> Picture:
        """Grey [H, W] or colour [H, W, 3].  Raises ManifestError, naming the row."""
        place = self._manifest.place(row)
        try:
            data = self._shards.read(place) if place.is_packed else place.path.read_bytes()
            picture = decode_picture(data)
        except (OSError, Unreadable) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            raise ManifestError(f"row {row}: {self._manifest.path(row)}: {reason}.") from error
        stated = tuple(self._manifest.table.column(name)[row].as_py() for name in ("height", "width"))
        if None not in stated and picture.shape[:2] != stated:
            raise ManifestError(
                f"row {row}: {self._manifest.path(row)} is {picture.shape[1]} x {picture.shape[0]} pixels, the "
                f"manifest says {stated[1]} x {stated[0]}: not the file that was recorded. Build the manifest anew."
            )
        return picture

    def size(self, row: int) -> tuple[int, int]:
        """(height, width) from the file's header.  Raises ManifestError."""
        try:
            width, height = size_of(self._manifest.place(row))
        except OSError as error:
            raise ManifestError(f"row {row}: {self._manifest.path(row)}: {error}.") from error
        return height, width


class SourceReader:
    """Pictures and masks of one size: the `Reader` of a `Source`."""

    def __init__(self, pictures: Pictures, masks: Masks | None, *, num_classes: int, rows: NDArray[np.int64]) -> None:
        """`rows`: of the source, those that the reader's rows 0, 1 ... are."""
        self._pictures, self._masks, self._num_classes, self._rows = pictures, masks, num_classes, rows

    def picture(self, row: int) -> Picture:
        """Grey [H, W] or colour [H, W, 3].  Raises ManifestError, naming the row."""
        return self._pictures.picture(int(self._rows[row]))

    def mask(self, row: int) -> Mask:
        """Class indices [H, W], 0 being background.  Raises ManifestError, naming the row."""
        row = int(self._rows[row])
        if self._masks is None:
            raise ManifestError(f"row {row}: these examples have no masks. Name their column with --masks.")
        mask = within(self._masks.mask(row), num_classes=self._num_classes, where=f"row {row}: the mask")
        size = self._pictures.size(row)
        if mask.shape == size:
            return mask
        if not self._masks.follows:
            raise ManifestError(
                f"row {row}: the mask is {mask.shape[1]} x {mask.shape[0]} pixels and its picture {size[1]} x {size[0]}"
                ". Give masks of the pictures' size; resize them by the nearest neighbour where pictures were resized."
            )
        resized: Mask = cv2.resize(mask, (size[1], size[0]), interpolation=cv2.INTER_NEAREST)
        return resized


def within(mask: Mask, *, num_classes: int, where: str) -> Mask:
    """A mask whose values are 0 .. num_classes; 0 and 255 mean 0 and 1 where there is one class.

    Raises ManifestError for other values.
    """
    if num_classes == 1 and mask.max(initial=0) == WHOLE and not ((mask > 0) & (mask < WHOLE)).any():
        return (mask > 0).astype(np.uint8)
    if mask.max(initial=0) > num_classes:
        beyond = [int(value) for value in np.unique(mask) if value > num_classes]
        listed = ", ".join(map(str, beyond[:MAX_VALUES_NAMED])) + (", ..." if len(beyond) > MAX_VALUES_NAMED else "")
        raise ManifestError(
            f"{where} has the values {listed}; with {num_classes} classes it may have 0 (background) to {num_classes}. "
            "Name every class with --classes, or mend the mask."
        )
    return mask


def decode_picture(data: "bytes | NDArray[np.uint8]") -> Picture:
    """A picture from a file's bytes.  -> uint8 or float32 (0..1), [H, W] or [H, W, 3]   Raises Unreadable."""
    if len(data) == 0:
        raise Unreadable("the file is empty")
    try:
        picture = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR)
    except cv2.error as error:
        raise Unreadable(f"does not decode ({error.err})") from error
    if picture is None:
        raise Unreadable("does not decode: cut short, damaged or not a picture")
    if picture.dtype == np.uint16:
        picture = _between_its_levels(picture)
    elif picture.dtype != np.uint8:
        raise Unreadable(f"neither an 8-bit nor a 16-bit picture ({picture.dtype})")
    if picture.ndim == 3:
        if np.array_equal(picture[..., 0], picture[..., 1]) and np.array_equal(picture[..., 0], picture[..., 2]):
            return np.ascontiguousarray(picture[..., 0])
        return np.ascontiguousarray(picture[..., ::-1])  # OpenCV has blue first
    return picture


def read_label_picture(path: Path) -> Mask:
    """Class indices of a picture file: grey levels, or the numbers of its palette.  -> uint8 [H, W]

    Raises ManifestError where it cannot be read or is coloured.
    """
    try:
        with Image.open(io.BytesIO(path.read_bytes())) as opened:
            values = np.asarray(opened)
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or "not a picture"
        raise ManifestError(f"{path}: {reason}. It should hold the mask of a picture.") from error
    if values.ndim == 3:
        if not all(
            np.array_equal(values[..., 0], values[..., channel]) for channel in range(1, min(3, values.shape[2]))
        ):
            raise ManifestError(f"{path}: a coloured picture. Masks hold the number of a class at every pixel.")
        values = values[..., 0]
    if values.min(initial=0) < 0 or values.max(initial=0) > WHOLE:
        raise ManifestError(f"{path}: values from {values.min()} to {values.max()}; masks hold 0 to at most 255.")
    return np.ascontiguousarray(values, dtype=np.uint8)


def _between_its_levels(picture: NDArray[np.uint16]) -> NDArray[np.float32]:
    darkest, brightest = int(picture.min()), int(picture.max())
    return (picture.astype(np.float32) - np.float32(darkest)) / np.float32(max(brightest - darkest, 1))
