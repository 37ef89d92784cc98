"""Templates of this room -> one HTML file that needs nothing else: no other host, and a script only of its own.

In: the name of a template and what it shows; pictures as arrays. Out: text, data URIs.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dinov2.pages import data_uri, environment, source_hash

Picture = NDArray[np.uint8]
FOLDER = Path(__file__).parent
JPEG_QUALITY = 82


def render(template: str, *, script: str = "", **shown: Any) -> str:
    """A page of `template`; `script` names a file of this folder, the only one that the page may run."""
    code = (FOLDER / script).read_text(encoding="utf-8") if script else ""
    policy = f"script-src '{source_hash(code)}'; " if script else ""
    made = environment(FOLDER, share=lambda value: f"{100 * value:.3g} %")
    return made.get_template(template).render(policy=policy, script=code, **shown)


def jpeg(picture: Picture, *, most: int) -> str:
    """A film or crop [H, W] as a data URI, its longer side at most `most` pixels."""
    image = Image.fromarray(picture)
    image.thumbnail((most, most), Image.Resampling.LANCZOS)
    return data_uri(image, "JPEG", quality=JPEG_QUALITY, optimize=True)


def png(picture: Picture) -> str:
    """A map [h, w], [h, w, 3] (red, green, blue) or [h, w, 4] (and alpha) as a data URI, every value kept."""
    return data_uri(Image.fromarray(picture), "PNG", optimize=True)


def outline(mask: NDArray[np.bool_]) -> str:
    """Hidden patches as the `d` of an SVG path, a patch one unit: a rectangle a run of patches of a row."""
    parts = []
    for y, row in enumerate(mask):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(np.int8), [0]])))
        parts += [f"M{start} {y}h{end - start}v1h{start - end}z" for start, end in edges.reshape(-1, 2).tolist()]
    return "".join(parts)
