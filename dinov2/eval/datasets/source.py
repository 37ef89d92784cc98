"""What an opened dataset hands to `opening`: all its rows, and how their pictures, labels and masks are read.

In: nothing. Out: the types. A manifest and a public dataset are both a `Source`; splits are rows of it.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dinov2.eval.examples import Mask, Picture
from dinov2.manifest import Manifest


class Pictures(Protocol):
    """Reads pictures by row; pickles."""

    def picture(self, row: int) -> Picture:
        """Grey [H, W] or colour [H, W, 3].  Raises ManifestError, naming the row."""

    def size(self, row: int) -> tuple[int, int]:
        """(height, width) in pixels, without decoding where the file's header tells it.  Raises ManifestError."""


class Masks(Protocol):
    """Reads masks by row; pickles."""

    @property
    def present(self) -> NDArray[np.bool_]:
        """[N] whether a row has a mask."""

    @property
    def follows(self) -> bool:
        """Whether a mask of another size is brought to the picture's (nearest neighbour); else it is refused."""

    def mask(self, row: int) -> Mask:
        """Class indices, in the mask's own size.  Raises ManifestError, naming the row."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Every row of a dataset, whatever its split."""

    name: str  # what messages call it
    manifest: Manifest  # N rows; the column `split` says train, val, test, or something else
    pictures: Pictures
    labels: tuple[str, ...] = ()  # columns that are taken where none are asked for
    classes: tuple[str, ...] = ()  # what they are called, or the values of the one column, in their order
    blank: float = math.nan  # what an empty cell of a label column means
    masks: Masks | None = None
    mask_classes: tuple[str, ...] = ()  # of mask values 1, 2 ...; none where the dataset does not say
    volumes: str = ""  # column whose value rows of one volume share
