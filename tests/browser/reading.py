"""Whether a page can be read: size and contrast of every text, what is cut off, whether the page scrolls sideways.

In: a page as it is shown. Out: faults in words, computed from the boxes and colours that the browser drew; bounds of
the contrast are those of WCAG 2.2, success criterion 1.4.3 (https://www.w3.org/TR/WCAG22/#contrast-minimum).
"""

from pathlib import Path

from playwright.sync_api import Page

SCRIPT = (Path(__file__).parent / "reading.js").read_text()
BOUNDS = {"smallest": 11, "contrast": 4.5, "largeContrast": 3.0}


def reading_faults(page: Page) -> list[str]:
    """One line a fault; empty where everything can be read."""
    found: list[str] = page.evaluate(SCRIPT, BOUNDS)
    return found


def ground(page: Page) -> tuple[float, ...]:
    """Red, green and blue behind the page."""
    return tuple(page.evaluate("getComputedStyle(document.body).backgroundColor.match(/[\\d.]+/g).map(Number)"))
