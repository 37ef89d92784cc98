"""Slices that were saved as .npy files, one array each.

In: files. Out: float32 pictures 0..1 and masks [H, W].
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinov2.errors import ManifestError
from dinov2.eval.datasets.volumes.nifti import as_mask
from dinov2.eval.datasets.volumes.windows import Window, scaled
from dinov2.eval.examples import Mask, Picture


def read_array(path: Path, *, mapped: bool = False) -> NDArray[Any]:
    """One slice [H, W]; an axis of 1 is dropped.  Raises ManifestError."""
    try:
        values: NDArray[Any] = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ManifestError(f"{path}: not a readable array ({error}). Save it again with numpy.save.") from error
    if values.ndim > 2:
        values = values.squeeze()
    if values.ndim != 2:
        raise ManifestError(f"{path}: an array of shape {values.shape}; expected one slice, [height, width].")
    return values


class ArraySlices:
    """Pictures by row.  Percentiles are those of the slice, for the volume is not at hand."""

    def __init__(self, paths: Sequence[Path], *, window: Window) -> None:
        self._paths, self._window = tuple(paths), window

    def picture(self, row: int) -> Picture:
        """Grey float32 [H, W], 0..1.  Raises ManifestError."""
        values = read_array(self._paths[row])
        return scaled(values, limits=self._window.limits(values))

    def size(self, row: int) -> tuple[int, int]:
        """(height, width) from the file's header.  Raises ManifestError."""
        height, width = read_array(self._paths[row], mapped=True).shape
        return int(height), int(width)


class ArrayMasks:
    """Masks by row, None where a slice has none."""

    follows = False

    def __init__(self, paths: Sequence[Path | None]) -> None:
        self._paths = tuple(paths)

    @property
    def present(self) -> NDArray[np.bool_]:
        """[N] whether a row has a mask."""
        return np.array([path is not None for path in self._paths], dtype=bool)

    def mask(self, row: int) -> Mask:
        """Class indices [H, W].  Raises ManifestError."""
        path = self._paths[row]
        assert path is not None, "rows without a mask are not read"
        return as_mask(read_array(path), path=path)
