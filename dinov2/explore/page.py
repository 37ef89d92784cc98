"""The page: one HTML text with its style, its script and its points.

In: an `Exploration`. Out: text; the policy that lets a browser run this script and no other.

Positions, codes and numbers travel as base64 of little-endian arrays: 20,000 films and their ids are some 1.5 MB.
"""

import base64
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from dinov2.explore.columns import Category, Colouring
from dinov2.explore.exploration import Exploration
from dinov2.pages import environment, source_hash

FOLDER = Path(__file__).parent
GRID = 65_535  # steps of a position along an axis
INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)
PARTS = 3  # of the path of a backbone that are shown
NO_PICTURE = "no picture here"
SCRIPTS = ("data.js", "dots.js", "map.js", "page.js")


def served_page(shown: Exploration) -> str:
    """The page that asks its server for films and their rows."""
    return _page(_data(shown) | {"live": True})


def static_page(
    shown: Exploration, *, neighbours: NDArray[np.int64], similarity: NDArray[np.float32], absent: Sequence[int]
) -> str:
    """The page that asks nobody: neighbours int [N, K] and cosines [N, K] are in it, pictures lie in `films/`.

    `absent`: rows without picture. Why is not told, for it would name folders of the machine where the page was made.
    """
    own = {
        "live": False,
        "neighbours": _pack(neighbours, "<u4"),
        "similarity": _pack(np.rint(similarity * 10_000), "<i2"),
        "count": neighbours.shape[1],
        "absent": {str(row): NO_PICTURE for row in absent},
        "remarks": [f"{len(absent):,} of {len(shown.films):,} films have no picture here."] if absent else [],
    }
    return _page(_data(shown) | own)


def policy_of(page: str, *, of_files: bool = False) -> str:
    """The Content-Security-Policy of a page: its own script and style by their hashes; pictures and rows from itself.

    `of_files`: of a page in a folder, whose pictures are files beside it.
    """
    hashes: dict[str, list[str]] = {"script": [], "style": []}
    for kind, text in INLINE.findall(page):
        hashes[kind].append(f"'{source_hash(text)}'")
    rules = [
        "default-src 'none'",
        f"script-src {' '.join(hashes['script'])}",
        f"style-src {' '.join(hashes['style'])}",
        "img-src 'self' data: file:" if of_files else "img-src blob: data:",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    return "; ".join(rules if of_files else [*rules, "connect-src 'self'", "frame-ancestors 'none'"])


def _page(data: Mapping[str, Any]) -> str:
    template = environment(FOLDER).get_template("page.html")
    values = {
        "title": data["title"],
        "num_films": f"{data['num_films']:,}",
        "about": data["about"],
        "remarks": data["remarks"],
        # Marked as safe: files of this package, and JSON in which nothing can end the element.
        "style": Markup((FOLDER / "page.css").read_text(encoding="utf-8")),
        "script": Markup("\n".join((FOLDER / name).read_text(encoding="utf-8") for name in SCRIPTS)),
        "data": Markup(_json(data)),
    }
    if data["live"]:
        return template.render(**values, policy="")
    return template.render(**values, policy=policy_of(template.render(**values, policy=""), of_files=True))


def _json(data: Mapping[str, Any]) -> str:
    """JSON that may stand in a script element: it holds no `<`, `>` or `&`, and no line end of JavaScript."""
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _data(shown: Exploration) -> dict[str, Any]:
    """What both pages know."""
    features, grid = shown.features, np.rint(shown.placed.positions * GRID)
    made = [f"{features.vectors.shape[1]} features a film"]
    backbone = features.about.get("backbone")
    if backbone:
        made.append(f"of {'/'.join(Path(backbone).parts[-PARTS:])}")
    return {
        "title": features.path.name,
        "num_films": len(features),
        "method": shown.title,
        "about": f"{shown.title[0].upper()}{shown.title[1:]}, {shown.placed.note}. {' '.join(made)}.",
        "remarks": list(shown.films.remarks),
        "has_pictures": shown.films.pictures is not None,
        "ids": features.ids,
        "x": _pack(grid[:, 0], "<u2"),
        "y": _pack(GRID - grid[:, 1], "<u2"),  # a page counts from its top
        "columns": [_column(one) for one in shown.colourings],
        "colour": shown.colour,
    }


def _column(one: Colouring) -> dict[str, Any]:
    if isinstance(one, Category):
        return {"name": one.name, "values": list(one.values), "codes": _pack(one.codes, "<u2")}
    return {"name": one.name, "numbers": _pack(one.values, "<f4"), "low": one.low, "high": one.high}


def _pack(values: NDArray[Any], kind: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype=kind).tobytes()).decode()
