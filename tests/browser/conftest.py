"""A browser for the tests of this folder, and every page of the package, made once.

The browser is of a package's scope: playwright keeps an event loop open, which tests of other folders must not find.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from tests.browser import pages
from tests.browser.driver import Tab, find_chromium, launch, opened_tab
from tests.docs_site.conftest import site

__all__ = ["site"]

Opener = Callable[..., AbstractContextManager[Tab]]


@pytest.fixture(scope="package")
def chromium() -> Iterator[Opener]:
    """Opens a tab; words as of `opened_tab`."""
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium on PATH: bash scripts/local_browser.sh installs it")
    with sync_playwright() as playwright:
        browser = launch(playwright, program=program)
        yield partial(opened_tab, browser)
        browser.close()


@pytest.fixture
def tab(chromium: Opener) -> Iterator[Tab]:
    """A wide, light tab; the test fails where anything went wrong in it."""
    with chromium() as opened:
        yield opened
        assert opened.faults == []


@pytest.fixture(scope="session")
def page_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The path of a page, by the name of its maker in `pages`; made when first asked for."""
    made: dict[str, Path] = {}

    def of(name: str) -> Path:
        if name not in made:
            made[name] = getattr(pages, f"{name}_page")(tmp_path_factory.mktemp(name))
        return made[name]

    return of


@pytest.fixture(scope="session")
def site_address(site: Path) -> Iterator[str]:
    """The documentation over HTTP, as a host would serve it."""
    with pages.served(site) as address:
        yield address
