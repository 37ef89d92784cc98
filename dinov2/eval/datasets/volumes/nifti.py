"""NIfTI volumes as axial slices, read with SimpleITK.

In: files, and which slice of which is a row. Out: float32 pictures 0..1 and masks [H, W], seen as radiologists do:
patient's right on the left, front up. A volume is decoded once for all its slices, if they are asked for in turn.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinov2.errors import ManifestError
from dinov2.eval.datasets.volumes.windows import Window, scaled
from dinov2.eval.examples import Mask, Picture

AXES = 3
ORIENTATION = "LPS"  # index grows to the patient's left, back and head


def num_slices(path: Path) -> int:
    """Axial slices of a volume, from its header alone.  Raises ManifestError."""
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise ManifestError(f"{path}: not a readable NIfTI volume ({_cause(error)}). Download it again.") from None
    _check_axes(reader.GetDimension(), path=path)
    direction = np.abs(np.asarray(reader.GetDirection()).reshape(AXES, AXES))
    return int(reader.GetSize()[int(direction[2].argmax())])


def read_volume(path: Path) -> NDArray[Any]:
    """All slices [S, H, W], from the feet up.  Raises ManifestError."""
    import SimpleITK as sitk

    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise ManifestError(f"{path}: not a readable NIfTI volume ({_cause(error)}). Download it again.") from None
    _check_axes(image.GetDimension(), path=path)
    values: NDArray[Any] = sitk.GetArrayFromImage(sitk.DICOMOrient(image, ORIENTATION))
    return values


class _LastVolume:
    """The volume that was read last; a copy sent to another process starts with none."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._values: NDArray[Any] | None = None

    def __getstate__(self) -> dict[str, object]:
        return {"_path": None, "_values": None}

    def read(self, path: Path) -> NDArray[Any]:
        if self._values is None or path != self._path:
            self._values = None  # never two in memory
            self._path, self._values = path, read_volume(path)
        return self._values


class NiftiSlices:
    """Pictures by row: slice `slices[row]` of the file `paths[row]`."""

    def __init__(self, paths: Sequence[Path], slices: Sequence[int], *, window: Window) -> None:
        self._paths, self._slices, self._window = tuple(paths), tuple(slices), window
        self._last = _LastVolume()
        self._limits: dict[Path, tuple[float, float]] = {}

    def picture(self, row: int) -> Picture:
        """Grey float32 [H, W], 0..1; the window is the volume's.  Raises ManifestError."""
        path = self._paths[row]
        values = self._last.read(path)
        if path not in self._limits:
            self._limits[path] = self._window.limits(values)
        return scaled(_slice(values, self._slices[row], path=path), limits=self._limits[path])

    def size(self, row: int) -> tuple[int, int]:
        """(height, width) of the slice.  Raises ManifestError."""
        height, width = self._last.read(self._paths[row]).shape[1:]
        return int(height), int(width)


class NiftiMasks:
    """Masks by row: slice `slices[row]` of the file `paths[row]`, None where a volume has no mask."""

    follows = False

    def __init__(self, paths: Sequence[Path | None], slices: Sequence[int]) -> None:
        self._paths, self._slices = tuple(paths), tuple(slices)
        self._last = _LastVolume()

    @property
    def present(self) -> NDArray[np.bool_]:
        """[N] whether a row's volume has a mask."""
        return np.array([path is not None for path in self._paths], dtype=bool)

    def mask(self, row: int) -> Mask:
        """Class indices [H, W].  Raises ManifestError."""
        path = self._paths[row]
        assert path is not None, "rows without a mask are not read"
        return as_mask(_slice(self._last.read(path), self._slices[row], path=path), path=path)


def as_mask(values: NDArray[Any], *, path: Path) -> Mask:
    """Numbers of classes as uint8.  Raises ManifestError where they are no whole numbers of 0 to 255."""
    mask = values.astype(np.uint8)
    if not np.array_equal(mask, values):
        raise ManifestError(
            f"{path}: values from {values.min()} to {values.max()}; masks hold whole numbers, 0 to 255."
        )
    return np.ascontiguousarray(mask)


def _slice(values: NDArray[Any], number: int, *, path: Path) -> NDArray[Any]:
    if number >= len(values):
        raise ManifestError(
            f"{path}: has {len(values)} slices and slice {number} was asked for; it is not the same file."
        )
    taken: NDArray[Any] = values[number]
    return taken


def _check_axes(dimension: int, *, path: Path) -> None:
    if dimension != AXES:
        raise ManifestError(
            f"{path}: {dimension} axes; expected a volume of {AXES}. Take one of its channels or times."
        )


def _cause(error: RuntimeError) -> str:
    """The last line of ITK's message, without the place in its source."""
    return str(error).strip().splitlines()[-1].strip()
