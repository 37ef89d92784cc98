"""The documentation under a hand: search, light and dark, the menu of a telephone."""

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Opener
from tests.browser.driver import NARROW_PX, Tab
from tests.browser.reading import ground


@pytest.fixture
def start(tab: Tab, site_address: str) -> Page:
    return tab.open(f"{site_address}index.html")


def test_a_word_that_is_searched_for_leads_to_its_page(start: Page) -> None:
    start.locator(".md-search__input").first.click()
    start.keyboard.type("ibot.mask_ratio_min_max")
    found = start.locator(".md-search-result__link")
    expect(found.first).to_be_visible()
    found.first.click()
    start.wait_for_url("**/*.html*")
    assert "index.html" not in start.url
    assert "mask_ratio_min_max" in start.locator("article").inner_text()


def test_the_switch_goes_from_light_to_dark_and_is_kept_on_the_next_page(start: Page) -> None:
    def schemes(page: Page) -> str | None:
        return page.locator("body").get_attribute("data-md-color-scheme")

    seen = {schemes(start): ground(start)}
    for _ in range(2):
        start.locator("[data-md-component=palette] label:visible").click()
        seen[schemes(start)] = ground(start)
    assert set(seen) == {"default", "slate"}
    assert min(seen["default"][:3]) > 220
    assert max(seen["slate"][:3]) < 60
    last = schemes(start)
    start.goto(start.url.replace("index.html", "start.html"))
    assert schemes(start) == last


def test_the_menu_of_a_narrow_page_opens_and_leads_on(chromium: Opener, site_address: str) -> None:
    with chromium(width=NARROW_PX, has_touch=True) as tab:
        page = tab.open(f"{site_address}start.html")
        page.locator("label.md-header__button[for=__drawer]").tap()
        drawer = page.locator(".md-sidebar--primary")
        expect(drawer).to_be_in_viewport()
        link = drawer.locator("a.md-nav__link:visible").last
        where = link.get_attribute("href")
        link.tap()
        page.wait_for_url(f"**/{where.rsplit('/')[-1]}*")
    assert tab.faults == []
