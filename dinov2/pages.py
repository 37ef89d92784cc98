"""HTML pages that need nothing else: their templates, pictures as data URIs, the one script they run, a whole file.

In: a room's folder of templates, pictures, text. Out: an environment, data URIs, a file replaced in one moment.
"""

import base64
import hashlib
import io
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import jinja2
from PIL import Image

from dinov2.errors import ConfigError


def environment(folder: Path, **filters: Callable[..., Any]) -> jinja2.Environment:
    """Templates of a folder, everything escaped; `filters` are a room's own, beside `number`."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"number": lambda value: f"{value:,}", **filters}
    return made


def data_uri(picture: Image.Image, form: Literal["JPEG", "PNG"], **options: Any) -> str:
    """A picture inside a page; `options` are those of Pillow's writer."""
    stream = io.BytesIO()
    picture.save(stream, form, **options)
    return f"data:image/{form.lower()};base64,{base64.b64encode(stream.getvalue()).decode()}"


def source_hash(text: str) -> str:
    """What a Content-Security-Policy calls a script or style that stands in the page, without its quotes."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def write_page(path: Path, text: str) -> int:
    """Whole or not at all, so that an open page can be loaded again at any time.  -> bytes   Raises ConfigError."""
    content = text.encode()
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written ({error.strerror}). Give another place with --output.") from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    return len(content)
