"""Which code resamples: chosen by name, once.

In: the name that `resample.engine` holds. Out: a function from a film and a size to a film.
"""

from functools import cache
from typing import Literal, Protocol

from dinov2.preprocess.radiograph import Film
from dinov2.preprocess.render.geometry import Size


class Engine(Protocol):
    """[H, W] -> [h, w] float32 by the cubic B-spline on half-pixel-centred grids; may be the film itself."""

    def __call__(self, film: Film, *, size: Size, antialias: bool = False) -> Film: ...


@cache
def engine(name: Literal["separable", "simpleitk"]) -> Engine:
    """The engine of that name.  SimpleITK, 60 MB of code, is only loaded where it is asked for."""
    if name == "simpleitk":
        from dinov2.preprocess.render import itk

        return itk.resample
    from dinov2.preprocess.render import spline

    return spline.resample
