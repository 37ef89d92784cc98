"""The site is whole: it builds, every link leads somewhere, nothing comes from elsewhere, nothing is missing."""

import json
import re
import tomllib
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from dinov2.cli import COMMANDS, GROUPS, build_parser
from dinov2.config.keys import leaves
from dinov2.config.preprocess import PreprocessConfig
from dinov2.config.schema import Config
from tests.docs_site.html import fragment, pages, read

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
DRAWING = DOCS / "assets" / "architecture.svg"
HANDWRITTEN = sorted(DOCS.glob("*.md"))


def test_every_link_and_anchor_of_every_page_leads_somewhere(site: Path) -> None:
    broken = []
    for path in pages(site):
        for link in read(path).links:
            parts = urlsplit(link)
            if parts.scheme in ("http", "https", "mailto"):
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.exists():
                broken.append(f"{path.name}: {link}")
            elif parts.fragment and target.suffix == ".html":
                anchors = read(target).anchors | {"__comments", "top"}
                broken += [f"{path.name}: {link}"] if unquote(parts.fragment) not in anchors else []
    assert broken == []


def test_nothing_that_a_page_loads_comes_from_another_host(site: Path) -> None:
    for path in pages(site):
        page = read(path)
        assert [what for what in page.loaded if urlsplit(what).netloc or what.startswith("//")] == [], path.name
        assert all((path.parent / urlsplit(what).path).exists() for what in page.loaded if not what.startswith("data:"))


def test_the_browser_is_told_to_ask_no_other_host(site: Path) -> None:
    for path in pages(site):
        policy = read(path).policy
        assert policy.startswith("default-src 'none'"), path.name
        assert "http" not in policy
        assert "*" not in policy


def test_style_sheets_load_nothing_from_elsewhere(site: Path) -> None:
    for path in site.rglob("*.css"):
        assert re.findall(r"(?:url\(|@import\s*)[\"']?(?:https?:)?//[^)\"']*", path.read_text()) == [], path.name


def test_every_key_of_the_schemas_has_its_line_with_a_meaning(site: Path) -> None:
    for schema, name in ((Config, "keys.html"), (PreprocessConfig, "conversion_keys.html")):
        page = read(site / name)
        assert set(leaves(schema)) <= page.anchors
    text = (site / "keys.html").read_text()
    rows = re.findall(r'<td><a id="([^"]+)"></a>.*?</td>\s*<td>.*?</td>\s*<td>(.*?)</td>\s*<td>(.*?)</td>', text, re.S)
    assert {row[0] for row in rows} == set(leaves(Config))
    assert [key for key, takes, meaning in rows if not takes.strip() or not meaning.strip()] == []


def test_every_command_and_every_option_has_its_line(site: Path) -> None:
    for name in COMMANDS:
        words = read(site / "commands" / f"{name}.html").text
        assert f"dinov2 {name}" in words
        missing = [option for option in _options(build_parser(name), name) if option not in words]
        assert missing == [], name


def _options(parser, name):  # type: ignore[no-untyped-def]  # argparse has no public names for these
    below = [a for a in parser._actions if hasattr(a, "choices") and isinstance(a.choices, dict)]
    chosen = [below[0].choices[name]] if name and below else [p for a in below for p in a.choices.values()]
    for one in chosen:
        yield from (
            option for action in one._actions for option in action.option_strings if option not in ("-h", "--help")
        )
        yield from _options(one, "")


def test_every_shipped_configuration_file_is_shown(site: Path) -> None:
    anchors = read(site / "shipped.html").anchors
    for folder in ("train", "preprocess", "eval"):
        assert {path.stem for path in (ROOT / "configs" / folder).glob("*.yaml")} <= anchors


def test_every_page_can_be_found_by_searching(site: Path) -> None:
    found = {
        entry["location"].partition("#")[0]
        for entry in json.loads((site / "search/search_index.json").read_text())["docs"]
    }
    assert {str(path.relative_to(site)) for path in pages(site)} <= found
    assert any(
        "layerwise_decay" in json.dumps(entry)
        for entry in json.loads((site / "search/search_index.json").read_text())["docs"]
    )


def test_the_commands_are_listed_by_what_they_are_for_with_the_exit_codes(site: Path) -> None:
    page = read(site / "commands.html")
    assert {re.sub(r"\W+", "-", group) for group in GROUPS} | {"exit-codes"} <= page.anchors
    assert {f"commands/{name}.html" for name in COMMANDS} <= set(page.links)
    for code in ("0 done", "2 a mistake", "3 another process", "130 stopped", "1 a fault"):
        assert code in page.text


def test_the_drawing_names_every_folder_of_the_package() -> None:
    drawn = set(
        re.findall(
            r"[a-z]+", re.sub(r"<(?:style|title).*?</(?:style|title)>|<[^>]*>", " ", DRAWING.read_text(), flags=re.S)
        )
    )
    rooms = {path.parent.name for path in (ROOT / "dinov2").glob("*/__init__.py")}
    assert rooms
    assert rooms - drawn == set()


def test_the_page_on_architecture_shows_the_stairs_that_the_imports_are_held_to() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    stairs = [layer.replace("dinov2.", "") for layer in contracts[0]["layers"]]
    assert "\n".join(stairs) in (DOCS / "architecture.md").read_text()


@pytest.mark.parametrize("path", HANDWRITTEN, ids=lambda path: path.stem)
def test_the_site_shows_the_lists_tables_and_blocks_that_any_other_reader_of_markdown_shows(
    path: Path, site: Path
) -> None:
    markdown = pytest.importorskip("markdown_it")
    page = read(site / f"{path.stem}.html")
    text = re.sub(r"^</?div[^>]*>$", "", path.read_text(), flags=re.M)
    elsewhere = fragment(markdown.MarkdownIt("commonmark", {"html": True}).enable("table").render(text))
    assert dict(page.parts) == dict(elsewhere.parts)


@pytest.mark.parametrize("path", HANDWRITTEN, ids=lambda path: path.stem)
def test_a_page_names_no_machine_of_ours(path: Path) -> None:
    assert re.findall(r"(?<!\w)/(?:root|tmp|work|home/\w+)/\S*", path.read_text()) == []
