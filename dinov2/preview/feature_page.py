"""Feature maps as a page: similarity to a patch that is clicked, colours of the patch tokens, attention.

In: `FeatureMaps` and the traits of their backbone. Out: HTML text, which holds the tokens as `Codes`.
"""

import base64
import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dinov2.eval.backbones import Traits
from dinov2.preview.features import FeatureMaps
from dinov2.preview.page import jpeg, png, render
from dinov2.preview.palette import STOPS, brightest, painted
from dinov2.preview.reduction import Codes, codes_of, colours_of

FILM_PX = 518  # most pixels of a side of a film on the page
START = (0.45, 0.3)  # of height and width: about the middle of a lung


@dataclass(frozen=True)
class ShownFilm:
    """One film on the page; of a backbone without attention maps `attention` is "" and `heads` empty."""

    name: str
    film: str
    colours: str
    attention: str
    on_patches: float  # share of the attention that goes to patches, mean of the heads
    heads: tuple[tuple[str, float], ...]  # a map, and the share of attention that is its brightest colour


def feature_page(maps: FeatureMaps, *, traits: Traits, title: str, command: str) -> str:
    """The whole page; about 150 kB a film of 37 x 37 patches."""
    colours, codes = colours_of(maps.tokens), codes_of(maps.tokens)
    return render(
        "features.html",
        script="features.js",
        title=title,
        command=command,
        traits=traits,
        grid=maps.grid,
        size=maps.squares.shape[-1],
        shares=colours.shares,
        codes=codes,
        num_heads=0 if maps.attention is None else maps.attention.shape[1],
        films=[_film(maps, i, colours=colours.colours[i]) for i in range(len(maps))],
        data=_data(maps, codes),
        stops=STOPS,
    )


def _film(maps: FeatureMaps, i: int, *, colours: NDArray[np.uint8]) -> ShownFilm:
    height, width = maps.grid
    attention = None if maps.attention is None else maps.attention[i].reshape(-1, height, width)
    return ShownFilm(
        name=maps.names[i],
        film=jpeg(maps.squares[i], most=FILM_PX),
        colours=png(colours.reshape(height, width, 3)),
        attention="" if attention is None else _lit(attention.mean(axis=0))[0],
        on_patches=0.0 if attention is None else float(attention.sum(axis=(1, 2)).mean()),
        heads=() if attention is None else tuple(_lit(head) for head in attention),
    )


def _lit(attention: NDArray[np.float32]) -> tuple[str, float]:
    """A map whose few largest shares, which often lie at an edge of the film, do not darken all the rest."""
    high = brightest(attention)
    return png(painted(attention, high=high)), high


def _data(maps: FeatureMaps, codes: Codes) -> str:
    """What the script reads, as JSON without a character that could end its element."""
    height, width = maps.grid
    said = {
        "films": len(maps),
        "rows": height,
        "columns": width,
        "dimensions": codes.codes.shape[-1],
        "codes": base64.b64encode(np.ascontiguousarray(codes.codes).tobytes()).decode(),
        "scale": [float(f"{value:.6g}") for value in codes.scale],
        "mean": [float(f"{value:.6g}") for value in codes.mean],
        "start": [0, int(START[0] * height) * width + int(START[1] * width)],
        "names": list(maps.names),
        "stops": STOPS,
    }
    return json.dumps(said, separators=(",", ":")).replace("<", "\\u003c")
