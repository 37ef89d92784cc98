"""Every page of the package: nothing goes wrong, nothing is asked of another place, and all of it can be read."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.browser.conftest import Opener
from tests.browser.driver import NARROW_PX, WIDE_PX, Scheme
from tests.browser.reading import ground, reading_faults

WRITTEN = {
    "preprocess": ("h1", "#reasons", "#flags", ".charts svg", ".tile img", ".hole"),
    "eval": ("h1", "#classes", ".range u", "#curves", ".plots svg polyline", "#settings"),
    "report": ("h1", ".findings li", "figure.chart svg[tabindex]", ".map u", ".near", ".player"),
    "reports": ("#runs", ".legend button[data-run]", ".small svg use", "figure.chart svg[tabindex]"),
    "augmentation": (".film .boxes rect", ".crop img", ".steps img", ".mask"),
    "masks": (".charts .bar", "img.map", ".crops img", ".mask"),
    "features": ("#picks canvas", "img.map", ".heads img", "#told"),
    "explore": ("#map[data-drawn]", "#search", "#colour", "[data-tool=lasso]", "#key .key button"),
}
DOCUMENTATION = ("index.html", "start.html", "recipes.html", "keys.html", "commands/train.html", "architecture.html")
WIDTHS = pytest.mark.parametrize("width", [WIDE_PX, NARROW_PX])
SCHEMES: tuple[Scheme, ...] = ("light", "dark")


@WIDTHS
@pytest.mark.parametrize("name", WRITTEN)
def test_a_page_is_whole_quiet_and_readable(
    name: str, width: int, chromium: Opener, page_of: Callable[[str], Path]
) -> None:
    grounds = []
    with chromium(width=width) as tab:
        page = tab.open(page_of(name))
        for selector in WRITTEN[name]:
            page.locator(selector).first.wait_for(state="attached")
        assert page.evaluate("innerWidth") == width
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme)
            assert reading_faults(page) == [], scheme
            grounds.append(ground(page))
        lost = "all => all.filter((one) => one.complete && !one.naturalWidth).map((one) => one.alt)"
        assert page.locator("img").evaluate_all(lost) == []
    assert tab.faults == []
    assert min(grounds[0][:3]) > 220  # paper by day, and nearly black by night
    assert max(grounds[1][:3]) < 60


@pytest.mark.parametrize("name", ["report", "reports", "features", "explore"])
def test_a_folded_page_has_nothing_unreadable_inside(
    name: str, chromium: Opener, page_of: Callable[[str], Path]
) -> None:
    with chromium(width=NARROW_PX) as tab:
        page = tab.open(page_of(name))
        page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        assert reading_faults(page) == []
    assert tab.faults == []


@WIDTHS
@pytest.mark.parametrize("name", DOCUMENTATION)
def test_the_documentation_is_quiet_and_readable(name: str, width: int, chromium: Opener, site_address: str) -> None:
    grounds = []
    with chromium(width=width) as tab:
        page = tab.open(site_address + name)
        page.locator("article h1").wait_for()
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme)
            assert reading_faults(page) == [], scheme
            grounds.append(ground(page))
    assert tab.faults == []
    assert min(grounds[0][:3]) > 220
    assert max(grounds[1][:3]) < 60
