import base64
import hashlib
import io
import re
from pathlib import Path

import jinja2
import numpy as np
import pytest
from PIL import Image

from dinov2.errors import ConfigError
from dinov2.pages import data_uri, environment, source_hash, write_page


def test_what_a_template_shows_is_no_markup_and_what_it_lacks_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("{{ name }} {{ count|number }} {{ count|double }}")
    template = environment(tmp_path, double=lambda value: 2 * value).get_template("page.html")
    assert template.render(name="<b>", count=1234) == "&lt;b&gt; 1,234 2468"
    with pytest.raises(jinja2.UndefinedError, match="name"):
        template.render(count=1)


def test_a_picture_in_a_page_is_the_picture() -> None:
    levels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    head, _, content = data_uri(Image.fromarray(levels), "PNG", optimize=True).partition(",")
    assert head == "data:image/png;base64"
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(content)))), levels)


def test_a_script_is_named_as_a_browser_counts_it() -> None:
    # https://www.w3.org/TR/CSP3/: base64 of the SHA-256 of what stands between the tags, in UTF-8
    text = "alert('ä')"
    kind, digest = source_hash(text).split("-", 1)
    assert kind == "sha256"
    assert base64.b64decode(digest) == hashlib.sha256(text.encode("utf-8")).digest()


def test_a_page_is_replaced_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    page = tmp_path / "new" / "page.html"
    assert write_page(page, "first") == 5
    assert write_page(page, "zweite ä") == 9
    assert page.read_text(encoding="utf-8") == "zweite ä"
    assert [one.name for one in page.parent.iterdir()] == ["page.html"]


def test_a_page_that_cannot_be_written_is_left_as_it_was_and_told(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    write_page(page, "before")
    (tmp_path / ".page.html.partial").mkdir()
    with pytest.raises(ConfigError, match=re.escape(f"{page}: cannot be written") + ".*with --output"):
        write_page(page, "after")
    assert page.read_text() == "before"
