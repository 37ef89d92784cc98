"""The forms that masks come in.

In: what a dataset says of the mask of each row. Out: `Masks`, which give class indices uint8 [H, W] by row.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dinov2.errors import ManifestError
from dinov2.eval.datasets.reading import read_label_picture
from dinov2.eval.datasets.rle import decode_relative
from dinov2.eval.datasets.source import Source
from dinov2.eval.examples import Mask

MAX_SCANNED = 5000  # masks that are read to learn their classes
MAX_UNNAMED = 32  # classes


class LabelPictures:
    """One picture per row whose values are class indices."""

    def __init__(self, paths: Sequence[str | None], *, root: Path, follows: bool = False) -> None:
        self._paths, self._root, self.follows = tuple(paths), root, follows

    @property
    def present(self) -> NDArray[np.bool_]:
        """[N] whether a row names one."""
        return np.array([bool(path) for path in self._paths], dtype=bool)

    def mask(self, row: int) -> Mask:
        """Class indices [H, W].  Raises ManifestError."""
        return _named(row, lambda: read_label_picture(self._root / str(self._paths[row])))


class PicturePerClass:
    """A picture per class: whatever is not black belongs to it.  Where two overlap, the later class has the pixel."""

    def __init__(self, paths: Sequence[Sequence[str | None]], *, root: Path, follows: bool = True) -> None:
        self._paths, self._root, self.follows = tuple(tuple(one) for one in paths), root, follows

    @property
    def present(self) -> NDArray[np.bool_]:
        """[N] whether a row has the picture of every class."""
        return np.array([all(one) for one in self._paths], dtype=bool)

    def mask(self, row: int) -> Mask:
        """Class indices [H, W].  Raises ManifestError."""
        return _named(row, lambda: self._read(row))

    def _read(self, row: int) -> Mask:
        mask: Mask | None = None
        for number, path in enumerate(self._paths[row], start=1):
            part = read_label_picture(self._root / str(path))
            mask = np.zeros_like(part) if mask is None else mask
            if part.shape != mask.shape:
                raise ManifestError(f"{path}: another size than the mask of class 1. Give both in one size.")
            mask[part > 0] = number
        assert mask is not None, "a row without pictures has no mask and is not read"
        return mask


class Runs:
    """Texts of runs (see `rle`), any number per row, all of one class; pixels of the originals' size."""

    follows = True

    def __init__(self, texts: Sequence[Sequence[str]], *, height: int, width: int) -> None:
        self._texts, self._size = tuple(tuple(one) for one in texts), (height, width)

    @property
    def present(self) -> NDArray[np.bool_]:
        """[N] all: a row without runs has an empty mask."""
        return np.ones(len(self._texts), dtype=bool)

    def mask(self, row: int) -> Mask:
        """1 where any run is, [height, width].  Raises ManifestError."""
        height, width = self._size
        mask = np.zeros((height, width), dtype=np.uint8)
        for text in self._texts[row]:
            try:
                mask |= decode_relative(text, height=height, width=width)
            except ValueError as error:
                raise ManifestError(
                    f"row {row}: its run-length text is damaged: {error}. Download the table again."
                ) from None
        return mask


def mask_classes(parts: Sequence[tuple[Source, NDArray[np.int64]]]) -> tuple[str, ...]:
    """Names for the classes of masks that nobody named: class 1 .. C, C being the highest value of any mask.

    Every mask is read once. Raises ManifestError where there are too many to read them all for this, or none has
    anything but background.
    """
    num_masks = sum(len(rows) for _, rows in parts)
    if num_masks > MAX_SCANNED:
        raise ManifestError(f"{num_masks:,} masks, and nobody says which classes they have. Name them with --classes.")
    highest = 0
    for source, rows in parts:
        assert source.masks is not None, "only rows with a mask come here"
        for row in rows:
            values = np.unique(source.masks.mask(int(row)))
            highest = max(highest, 1 if set(values.tolist()) <= {0, 255} and len(values) == 2 else int(values[-1]))
    if highest == 0:
        raise ManifestError(
            "every mask is background alone. Give masks that hold the number of a class at every pixel."
        )
    if highest > MAX_UNNAMED:
        raise ManifestError(
            f"masks have values up to {highest}: are they pictures of grey levels? They should hold the number of a "
            "class at every pixel. If there are that many classes, name them with --classes."
        )
    return tuple(f"class {number}" for number in range(1, highest + 1))


def _named(row: int, read: Callable[[], Mask]) -> Mask:
    try:
        return read()
    except ManifestError as error:
        raise ManifestError(f"row {row}: {error}") from error
