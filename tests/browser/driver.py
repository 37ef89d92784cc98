"""Debian's Chromium, driven by playwright: pages in tabs that keep what went wrong and what was asked for.

In: the address of a page. Out: a `Tab`; `faults` of it are errors of the console and of scripts, and requests that
would leave this machine. No browser of playwright's own is used or fetched, and names of hosts lead nowhere here.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from playwright.sync_api import Browser, ConsoleMessage, Page, Playwright, Request

Scheme = Literal["light", "dark"]
NAMES = ("chromium", "chromium-browser", "google-chrome")
WIDE_PX, NARROW_PX, HIGH_PX = 1280, 400, 900
HERE = {"file", "data", "blob", "about"}
ARGUMENTS = (
    "--disable-gpu",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def find_chromium() -> str | None:
    """The program: `DINOV2_CHROMIUM`, or the first that is on PATH."""
    named = os.environ.get("DINOV2_CHROMIUM")
    return named or next((found for name in NAMES if (found := shutil.which(name))), None)


def launch(playwright: Playwright, *, program: str) -> Browser:
    """Starts it without a window."""
    return playwright.chromium.launch(executable_path=program, args=list(ARGUMENTS))


def leaves(address: str) -> bool:
    """Whether asking for this address would leave the machine."""
    parts = urlsplit(address)
    return parts.scheme not in HERE and parts.hostname != "127.0.0.1"


@dataclass
class Tab:
    """One page in a context of its own, so that nothing is left over from another."""

    page: Page
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.errors.append(f"script: {error}"))
        self.page.on("crash", lambda _: self.errors.append("the page crashed"))
        self.page.context.on("request", lambda request: self.requests.append(request.url))
        self.page.on("requestfailed", self._lost)
        self.page.on("websocket", lambda socket: self.requests.append(socket.url))

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(f"console: {message.text}")

    def _lost(self, request: Request) -> None:
        if request.failure != "net::ERR_ABORTED":  # by the page itself, which wants it no more
            self.errors.append(f"not loaded: {request.url[:200]}: {request.failure}")

    @property
    def faults(self) -> list[str]:
        """What a test ends with an empty list of."""
        return self.errors + [f"asked for {address[:200]}" for address in self.requests if leaves(address)]

    def open(self, address: str | Path) -> Page:
        """Loads it whole; a path is opened from the disk."""
        self.page.goto(address.as_uri() if isinstance(address, Path) else address, wait_until="load")
        return self.page


@contextmanager
def opened_tab(
    browser: Browser,
    *,
    width: int = WIDE_PX,
    height: int = HIGH_PX,
    scheme: Scheme = "light",
    scale: float = 1.0,
    has_touch: bool = False,
    has_script: bool = True,
) -> Iterator[Tab]:
    """A tab so many CSS pixels wide; `scale` device pixels are one of them."""
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme=scheme,
        device_scale_factor=scale,
        has_touch=has_touch,
        java_script_enabled=has_script,
        reduced_motion="reduce",
        locale="en-GB",
    )
    context.set_default_timeout(60_000)
    try:
        yield Tab(context.new_page())
    finally:
        context.close()
