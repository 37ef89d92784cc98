"""A built page as what the tests ask of it: its anchors, its links, what a browser would load, its parts."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

PARTS = ("h2", "h3", "pre", "tr", "ol", "ul", "li", "img", "details", "blockquote")
LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src", "video": "src"}
NOT_LOADED = {"canonical", "next", "prev", "alternate"}  # links of a head that name another page


@dataclass
class Html(HTMLParser):
    """One page; `parts` counts the elements of its article alone."""

    anchors: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    parts: Counter[str] = field(default_factory=Counter)
    policy: str = ""
    texts: list[str] = field(default_factory=list)
    depth: int = 0  # of the article

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Gathers."""
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag in LOADED and LOADED[tag] in given and given.get("rel") not in NOT_LOADED:
            self.loaded.append(given[LOADED[tag]])
        if given.get("http-equiv") == "Content-Security-Policy":
            self.policy = given["content"]
        self.depth += tag == "article"
        if self.depth and tag in PARTS:
            self.parts[tag] += 1

    def handle_endtag(self, tag: str) -> None:
        """Ends the article."""
        self.depth -= tag == "article"

    def handle_data(self, data: str) -> None:
        """Words of the article."""
        if self.depth:
            self.texts.append(data)

    @property
    def text(self) -> str:
        """The article's words."""
        return "".join(self.texts)


@cache
def read(path: Path) -> Html:
    """A page of the site."""
    page = Html()
    page.feed(path.read_text())
    return page


def fragment(html: str) -> Html:
    """A piece of a page, as an article."""
    page = Html()
    page.feed(f"<article>{html}</article>")
    return page


def pages(site: Path) -> Iterable[Path]:
    """Every page that a reader can come to; the page for what is not found is made for a server's root."""
    return (path for path in sorted(site.rglob("*.html")) if path.name != "404.html")
