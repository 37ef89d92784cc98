"""The page holds every film's place and colour, and nothing of it can run but its own script."""

import base64
import gzip
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from dinov2.errors import ConfigError
from dinov2.explore.exploration import explore
from dinov2.explore.page import policy_of, served_page
from dinov2.explore.static import write_folder
from tests.explore.made import write_features, write_films

NASTY = "</script><script>alert(1)</script><!--'\"&"


class Elements(HTMLParser):
    """Scripts of a page and what its elements would fetch."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.scripts: list[dict[str, str | None]] = []
        self.fetched: list[str] = []
        self.handlers: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "script":
            self.scripts.append(dict(attrs))
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]
        self.handlers += [name for name, _ in attrs if name.startswith("on") or name == "style"]


def data_of(page: str) -> dict[str, object]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    data: dict[str, object] = json.loads(found[1])
    return data


def numbers(packed: object, kind: str) -> np.ndarray:  # type: ignore[type-arg]
    return np.frombuffer(base64.b64decode(str(packed)), dtype=kind)


def test_names_and_values_of_a_table_never_become_elements(tmp_path: Path) -> None:
    manifest = write_films(tmp_path / "films", num=8, view=[NASTY, "PA"] * 4, **{NASTY: ["a", "b"] * 4})
    features = write_features(tmp_path / "<b>f.parquet", num=8)
    page = served_page(explore(features, manifest=str(manifest), method="pca"))
    elements = Elements(page)
    assert [one.get("type") for one in elements.scripts] == ["application/json", None]
    assert elements.fetched == ["data:,"]
    assert elements.handlers == []
    columns = data_of(page)["columns"]
    assert isinstance(columns, list)
    assert NASTY in [one["name"] for one in columns]
    assert "<b>f" not in page


def test_places_and_codes_in_the_page_are_those_of_the_map(tmp_path: Path) -> None:
    shown = explore(write_features(tmp_path / "f.parquet"), manifest=str(write_films(tmp_path / "films")), method="pca")
    data = data_of(served_page(shown))
    np.testing.assert_allclose(numbers(data["x"], "<u2") / 65_535, shown.placed.positions[:, 0], atol=1e-4)
    np.testing.assert_allclose(1 - numbers(data["y"], "<u2") / 65_535, shown.placed.positions[:, 1], atol=1e-4)
    columns = data["columns"]
    assert isinstance(columns, list)
    view, age = ({one["name"]: one for one in columns}[name] for name in ("view", "age"))
    assert [view["values"][code] if code < 65_535 else None for code in numbers(view["codes"], "<u2")[:4]] == [
        "AP", "PA", "PA", None,
    ]  # fmt: skip
    assert numbers(age["numbers"], "<f4")[:2].tolist() == [20.5, 21.5]
    assert data["colour"] == "view"


def test_the_policy_changes_with_the_script_it_allows(tmp_path: Path) -> None:
    page = served_page(explore(write_features(tmp_path / "f.parquet"), method="pca"))
    assert policy_of(page) != policy_of(page.replace('"use strict";', '"use strict"; alert(1);'))


def test_twenty_thousand_films_are_one_small_page(tmp_path: Path) -> None:
    num = 20_000
    vectors = np.random.default_rng(0).normal(size=(num, 8))
    columns = {"view": ["AP", "PA"] * (num // 2), "age": np.linspace(0, 90, num)}
    shown = explore(write_features(tmp_path / "f.parquet", vectors=vectors, columns=columns), method="pca")
    page = served_page(shown)
    assert len(numbers(data_of(page)["x"], "<u2")) == num
    assert len(page) < 2_000_000
    assert len(gzip.compress(page.encode(), 5)) < 600_000
    assert len(shown.neighbours.of(num - 1)[0]) == 12


def test_a_written_folder_needs_no_server_and_no_network(tmp_path: Path) -> None:
    manifest = write_films(tmp_path / "films", skip=[7])
    shown = explore(write_features(tmp_path / "f.parquet"), manifest=str(manifest), method="pca")
    written = write_folder(shown, tmp_path / "map")
    assert (written.num_pictures, written.num_absent) == (39, 1)
    assert len(list((tmp_path / "map" / "films").iterdir())) == 39
    page = written.page.read_text()
    assert re.search(r'http-equiv="Content-Security-Policy" content="default-src &#39;none&#39;; script-src', page)
    assert "connect-src" not in page
    assert not re.search(r"https?://", page)
    data = data_of(page)
    assert numbers(data["neighbours"], "<u4").reshape(40, 12)[3].tolist() == shown.neighbours.of(3)[0].tolist()
    absent = data["absent"]
    assert isinstance(absent, dict)
    assert list(absent) == ["7"]
    assert str(tmp_path) not in page, "a folder to pass on does not say where it was made"
    with pytest.raises(ConfigError, match="not empty"):
        write_folder(shown, tmp_path / "map")
