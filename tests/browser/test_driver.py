"""The driver sees what it is there to see: without this, a quiet page would prove nothing."""

from collections.abc import Callable

import pytest

from tests.browser.conftest import Opener
from tests.browser.driver import NARROW_PX, leaves
from tests.browser.reading import reading_faults

GOOD = "<h1>A heading</h1><p>Words that can be read.</p>"
Told = Callable[..., list[str]]


@pytest.fixture
def told(chromium: Opener) -> Told:
    """Faults of a page with this body."""

    def of(body: str, *, style: str = "", width: int = NARROW_PX) -> list[str]:
        with chromium(width=width) as tab:
            tab.page.set_content(f"<!doctype html><style>body {{ background: #fff }} {style}</style>{body}")
            tab.page.wait_for_timeout(100)
            return reading_faults(tab.page) + tab.faults

    return of


def test_a_page_without_fault_has_none(told: Told) -> None:
    assert told(GOOD) == []


@pytest.mark.parametrize(
    ("body", "style", "said"),
    [
        ("<script>console.error('broken')</script>", "", "console: broken"),
        ("<script>setTimeout(() => { absent() }, 0)</script>", "", "script: absent is not defined"),
        ("<img src='http://example.com/a.png'>", "", "asked for http://example.com/a.png"),
        ("<script>fetch('https://10.1.2.3/x').catch(() => 0)</script>", "", "asked for https://10.1.2.3/x"),
        ("<script>new WebSocket('ws://example.com/')</script>", "", "asked for ws://example.com/"),
        ("<p id=a>tiny</p>", "#a { font-size: 10px }", 'small: "tiny" at 10.0 px in p#a'),
        (
            "<svg viewBox='0 0 200 20' width=100><text y=15 font-size=16>axis</text></svg>",
            "",
            'small: "axis" at 8.0 px',
        ),
        ("<p id=a>grey</p>", "#a { color: #888 }", 'faint: "grey" at 3.54:1 in p#a'),
        ("<p id=a>grey</p>", "#a { opacity: .5 }", 'faint: "grey" at 3.9'),
        ("<p id=a><i>x</i></p>", "#a { background: #000 } i { color: #333 }", 'faint: "x" at 1.66:1'),
        ("<p id=a>a very long line of words</p>", "#a { white-space: nowrap; overflow: hidden; width: 60px }", "cut: "),
        ("<p id=a>one<br>two<br>three</p>", "#a { overflow: hidden; height: 30px }", "below in p#a"),
        ("<p id=a>wide</p>", "#a { width: 900px }", "wide: the page scrolls sideways"),
        (
            "<p id=a>off</p>",
            "#a { position: absolute; left: 390px; white-space: nowrap }",
            'cut: "off" beyond the page',
        ),
    ],
)
def test_a_fault_of_a_page_is_seen(body: str, style: str, said: str, told: Told) -> None:
    assert any(said in line for line in told(GOOD + body, style=style)), told(GOOD + body, style=style)


@pytest.mark.parametrize(
    ("body", "style"),
    [
        ("<div id=a><p>a wide table</p></div>", "#a { overflow-x: auto } #a p { width: 900px }"),
        (
            "<p id=a>for a reader of screens</p>",
            "#a { position: absolute; clip-path: inset(50%); width: 1px; height: 1px }",
        ),
        ("<p id=a>large grey</p>", "#a { color: #888; font-size: 25px }"),
        ("<details><summary>more</summary><p style='color: #eee'>folded away</p></details>", ""),
    ],
)
def test_what_is_meant_so_is_no_fault(body: str, style: str, told: Told) -> None:
    assert told(GOOD + body, style=style) == []


def test_an_empty_page_is_a_fault(told: Told) -> None:
    assert told("<p></p>") == ["empty: no text to be seen"]


@pytest.mark.parametrize(
    ("address", "is_away"),
    [
        ("file:///tmp/page.html", False),
        ("data:image/png;base64,AA==", False),
        ("blob:http://127.0.0.1:8000/1", False),
        ("http://127.0.0.1:8000/", False),
        ("http://127.0.0.1.example.com/", True),
        ("http://localhost/", True),
        ("https://fonts.example/", True),
    ],
)
def test_what_leaves_the_machine_is_told_from_what_stays(address: str, is_away: bool) -> None:
    assert leaves(address) is is_away
