"""Feature maps as one picture: a row a film.

In: `FeatureMaps`. Out: uint8 [H, W, 3] in OpenCV's channel order: the film, its patch tokens as colours, its attention,
and its similarity to one patch of the first film.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from dinov2.data.preview_sheet import GLOBAL, Picture, beside, captioned, fit, in_colour, short, titled
from dinov2.preview.feature_page import START
from dinov2.preview.features import FeatureMaps
from dinov2.preview.palette import brightest, painted
from dinov2.preview.reduction import codes_of, colours_of

SIDE_PX = 240
MAP_SHARE = 0.62  # of the similarity over the film
LOWEST = 2.0  # percentile that is darkest


def feature_sheet(maps: FeatureMaps, *, title: str, films_a_row: int = 1) -> Picture:
    """`films_a_row` films beside one another."""
    height, width = maps.grid
    patch = int(START[0] * height) * width + int(START[1] * width)
    colours, codes = colours_of(maps.tokens), codes_of(maps.tokens)
    similarity = codes.similarity(0, patch)
    low = float(np.percentile(similarity, LOWEST))
    blocks = []
    for i in range(len(maps)):
        film = in_colour(fit(maps.squares[i], SIDE_PX))
        over = _map(painted(similarity[i].reshape(height, width), low=low, high=1.0))
        mixed = cv2.addWeighted(over, MAP_SHARE, film, 1 - MAP_SHARE, 0)
        most = f"{low:.2f} to 1, most {np.delete(similarity[i], patch if i == 0 else []).max():.2f}"
        if i == 0:
            _mark(mixed, patch, grid=maps.grid)
        cells = [
            captioned(film, short(maps.names[i]), f"{maps.squares.shape[-1]} px, {height} x {width} patches"),
            captioned(
                _map(colours.colours[i].reshape(height, width, 3)),
                "three components",
                f"{100 * sum(colours.shares):.0f} % of the variance",
            ),
        ]
        if maps.attention is not None:
            attention = maps.attention[i].mean(axis=0).reshape(height, width)
            high = brightest(attention)
            shown = _map(painted(attention, high=high))
            cells.append(captioned(shown, "attention of CLS", f"mean of heads, 0 to {100 * high:.2g} %"))
        cells.append(captioned(mixed, "similarity to the marked patch" if i == 0 else "to the same patch", most))
        blocks.append(beside(cells))
    rows = [np.hstack(blocks[start : start + films_a_row]) for start in range(0, len(blocks), films_a_row)]
    return titled(title, rows)


def _map(colours: NDArray[np.uint8]) -> Picture:
    """Red, green, blue [h, w, 3] -> OpenCV's order, at the size of a cell."""
    shown: Picture = cv2.resize(colours[..., ::-1], (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_NEAREST)
    return shown


def _mark(picture: Picture, patch: int, *, grid: tuple[int, int]) -> None:
    height, width = grid
    row, column = divmod(patch, width)
    start = round(column * SIDE_PX / width) - 1, round(row * SIDE_PX / height) - 1
    end = round((column + 1) * SIDE_PX / width), round((row + 1) * SIDE_PX / height)
    cv2.rectangle(picture, start, end, GLOBAL[0], 2)
