"""Run folders for the tests of the report, small ones of the kind that `dinov2 bench report` measures."""

import json
from html.parser import HTMLParser
from pathlib import Path

from dinov2.bench.report_run import Size, write_run

SMALL = Size(num_steps=60, num_looks=4, num_films=3, grid=4)


def small_run(folder: Path, **changes: int) -> Path:
    return write_run(folder, size=Size(**vars(SMALL) | changes))


def write_lines(path: Path, lines: list[dict[str, float]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


class Page(HTMLParser):
    """What a page holds, as a reader sees it: text without scripts and styles, attributes, what it would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.loads: list[str] = []
        self.charts: list[str] = []
        self._open: list[str] = []
        self._goes_on = False  # after a place where a long word may be broken
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if tag == "wbr":
            self._goes_on = True
            return
        self._open.append(tag)
        self.loads += [str(given[name]) for name in ("src", "srcset", "data") if name in given]
        if tag == "link" or (tag == "a" and not str(given.get("href")).startswith("#")):
            self.loads.append(str(given.get("href")))
        if tag == "svg" and given.get("tabindex") == "0":
            self.charts.append(str(given.get("aria-label")))

    def handle_endtag(self, tag):
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data):
        if not {"script", "style"} & set(self._open):
            if self._goes_on:
                data = self.words.pop() + data
            self.words.append(data)
            self._goes_on = False

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())
