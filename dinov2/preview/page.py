"""Templates of this room -> one HTML file that needs nothing else: no other host, and a script only of its own.

In: the name of a template and what it shows; pictures as arrays. Out: text, data URIs, the file, whole or not at all.
"""

import base64
import hashlib
import io
from contextlib import suppress
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dinov2.errors import Dinov2Error

Picture = NDArray[np.uint8]
FOLDER = Path(__file__).parent
JPEG_QUALITY = 82


def render(template: str, *, script: str = "", **shown: Any) -> str:
    """A page of `template`; `script` names a file of this folder, the only one that the page may run."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = lambda value: f"{value:,}"
    environment.filters["share"] = lambda value: f"{100 * value:.3g} %"
    code = (FOLDER / script).read_text(encoding="utf-8") if script else ""
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    policy = f"script-src 'sha256-{digest}'; " if script else ""
    return environment.get_template(template).render(policy=policy, script=code, **shown)


def write_page(path: Path, text: str) -> int:
    """Whole or not at all.  -> bytes   Raises Dinov2Error where the place cannot be written."""
    content = text.encode()
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise Dinov2Error(f"{path}: cannot be written ({error.strerror}). Give another --output.") from error
    return len(content)


def jpeg(picture: Picture, *, most: int) -> str:
    """A film or crop [H, W] as a data URI, its longer side at most `most` pixels."""
    image = Image.fromarray(picture)
    image.thumbnail((most, most), Image.Resampling.LANCZOS)
    return _uri(image, "JPEG", quality=JPEG_QUALITY, optimize=True)


def png(picture: Picture) -> str:
    """A map [h, w], [h, w, 3] (red, green, blue) or [h, w, 4] (and alpha) as a data URI, every value kept."""
    return _uri(Image.fromarray(picture), "PNG", optimize=True)


def outline(mask: NDArray[np.bool_]) -> str:
    """Hidden patches as the `d` of an SVG path, a patch one unit: a rectangle a run of patches of a row."""
    parts = []
    for y, row in enumerate(mask):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(np.int8), [0]])))
        parts += [f"M{start} {y}h{end - start}v1h{start - end}z" for start, end in edges.reshape(-1, 2).tolist()]
    return "".join(parts)


def _uri(image: Image.Image, form: str, **options: Any) -> str:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return f"data:image/{form.lower()};base64,{base64.b64encode(stream.getvalue()).decode()}"
