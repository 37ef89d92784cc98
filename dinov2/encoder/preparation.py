"""What users give -> squares of levels: pictures by themselves, films through the steps of the training.

In: a PIL image, an array, a tensor, a path; or the content of a manifest's row. Out: `Levels` [S, S(, 3)].

It holds no network and pickles, so that worker processes can do it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from dinov2.encoder import levels as reading
from dinov2.encoder.framing import Framing
from dinov2.encoder.levels import Levels
from dinov2.errors import PictureError

Picture = Image.Image | NDArray[Any] | Tensor | str | Path
Pictures = Picture | list[Picture] | tuple[Picture, ...]
KINDS = "a PIL image, a numpy array, a torch tensor, a path, or a list of such"


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """The one way from a picture to a square."""

    framing: Framing
    settings: Mapping[str, Any] = field(default_factory=dict)  # of `dinov2 preprocess`, flat; {} where not known

    def square(self, picture: Picture, *, where: str) -> Levels:
        """-> [S, S(, 3)].  `where` names the picture in messages; a path names itself.  Raises PictureError."""
        if isinstance(picture, str | Path):
            return self.square_of_file(_content(Path(picture)), where=str(picture))
        if isinstance(picture, Image.Image):
            return self.framing.square(reading.of_image(picture, where=where), where=where)
        if isinstance(picture, np.ndarray | Tensor):
            return self.framing.square(reading.of_array(picture, where=where), where=where)
        raise PictureError(f"{where}: a {type(picture).__name__}; give {KINDS}.")

    def square_of_file(self, data: bytes, *, where: str) -> Levels:
        """The content of a file: pictures of 8 bits as they are, everything else as a film.  Raises PictureError."""
        levels = reading.of_file(data, where=where)
        if levels is None:
            from dinov2.encoder.films import picture_of  # and with it pydicom and its decoders, when a film comes

            levels = picture_of(data, settings=self.settings, where=where)
        return self.framing.square(levels, where=where)


def listed(pictures: Any) -> list[Any]:
    """One picture or several as a list; an array of four axes is as many pictures as its first is long.

    Raises PictureError for an empty list.
    """
    if isinstance(pictures, np.ndarray | Tensor) and pictures.ndim == 4:
        pictures = list(pictures)
    found = list(pictures) if isinstance(pictures, list | tuple) else [pictures]
    if not found:
        raise PictureError("no picture was given; give one or more.")
    return found


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except IsADirectoryError as error:
        raise PictureError(
            f"{path}: a folder. Give the paths of its files, or a manifest to `Encoder.over`."
        ) from error
    except OSError as error:
        raise PictureError(f"{path}: cannot be read ({error.strerror or error}). Give the path of a file.") from error
