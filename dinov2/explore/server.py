"""The page over HTTP, to this machine.

In: an `Exploration` and an address. Out: answers to GET and HEAD for the page, for what is known of the film of a row,
and for its picture. A client names rows by number and nothing else; no path is taken from it.
"""

import errno
import gzip
import json
import re
import socket
import socketserver
import sys
import traceback
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from dinov2.errors import ConfigError, ManifestError
from dinov2.explore.exploration import Exploration
from dinov2.explore.guard import Guard, guard_for
from dinov2.explore.page import policy_of, served_page
from dinov2.explore.thumbnails import SIDES_PX, Thumbnails

FILM = re.compile(rf"/film/(\d{{1,9}})/({'|'.join(SIDES_PX)})", re.ASCII)
ROW = re.compile(r"/row/(\d{1,9})", re.ASCII)
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
CLOSED = "default-src 'none'; frame-ancestors 'none'"  # the policy of what is no page
IDLE_SECONDS = 60  # before a silent connection is closed
PORTS_TRIED = 100
HIGHEST_PORT = 65_535


class ExploreServer(ThreadingHTTPServer):
    """Answers until it is closed; `serve_forever` and `server_close` as of the standard library."""

    allow_reuse_address = True

    def __init__(self, shown: Exploration, *, host: str, port: int, family: socket.AddressFamily, guard: Guard) -> None:
        """Raises OSError where the address cannot be had."""
        self.address_family = family
        self.shown, self.guard = shown, guard
        self.thumbnails = Thumbnails(shown.films)
        page = served_page(shown)
        self.policy = policy_of(page)
        self.page = page.encode()
        self.packed_page = gzip.compress(self.page, 5)
        super().__init__((host, port), _Handler)
        self.cookie = f"dinov2_explore_{self.port}"  # cookies of one host are shared by its ports

    def server_bind(self) -> None:
        """As a plain TCP server does: what `HTTPServer` adds asks a name server for a name that nothing needs."""
        socketserver.TCPServer.server_bind(self)

    @property
    def port(self) -> int:
        """The port, also where any was asked for."""
        return int(self.server_address[1])

    @property
    def address(self) -> str:
        """What to open, with the token where there is one."""
        host = str(self.server_address[0])
        if host in ("0.0.0.0", "::"):
            host = socket.gethostname()
        name = f"[{host}]" if ":" in host else host
        return f"http://{name}:{self.port}/" + (f"?token={self.guard.token}" if self.guard.token else "")

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - as the base class has it
        """Says what was wrong; a reader that went away is nothing."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            traceback.print_exc()


def check_address(host: str, port: int) -> None:
    """Raises ConfigError where the address cannot be had, naming a free port where the port is taken."""
    family = _family(host, port)
    try:
        with socket.socket(family, socket.SOCK_STREAM) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
            tried.bind((host, port))
    except OSError as error:
        raise ConfigError(_why_not(error, host=host, port=port, family=family)) from error


def open_server(shown: Exploration, *, host: str, port: int, with_token: bool = False) -> ExploreServer:
    """A server that listens; port 0 is any.  Off this machine, or `with_token`, its address holds a token.

    Raises ConfigError as `check_address` does.
    """
    family = _family(host, port)
    try:
        return ExploreServer(shown, host=host, port=port, family=family, guard=guard_for(host, with_token=with_token))
    except OSError as error:
        raise ConfigError(_why_not(error, host=host, port=port, family=family)) from error


def _family(host: str, port: int) -> socket.AddressFamily:
    if not 0 <= port <= HIGHEST_PORT:
        raise ConfigError(f"--port {port}: give 1 to {HIGHEST_PORT}, or 0 for any that is free.")
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
    except (OSError, UnicodeError) as error:
        raise ConfigError(
            f"--host {host}: no address of this name ({error}). Give 127.0.0.1, or 0.0.0.0 for all of this machine's."
        ) from error


def _why_not(error: OSError, *, host: str, port: int, family: socket.AddressFamily) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"--port {port}: taken on {host}, perhaps by another `dinov2 explore`. {_offer(host, port, family)}"
    if error.errno == errno.EACCES:
        return f"--port {port}: not for users of this machine. Give one above 1023, or 0 for any that is free."
    if error.errno == errno.EADDRNOTAVAIL:
        return f"--host {host}: not an address of this machine. Give 127.0.0.1, or 0.0.0.0 for all that it has."
    return f"--host {host} --port {port}: {error.strerror or error}. Give another."


def _offer(host: str, port: int, family: socket.AddressFamily) -> str:
    for free in range(port + 1, min(port + PORTS_TRIED, HIGHEST_PORT) + 1):
        with socket.socket(family, socket.SOCK_STREAM) as tried:
            try:
                tried.bind((host, free))
            except OSError:
                continue
            return f"{free} is free: --port {free}."
    return "Let one be found: --port 0."


class _Handler(BaseHTTPRequestHandler):
    server: ExploreServer
    protocol_version = "HTTP/1.1"
    server_version = "dinov2"
    sys_version = ""
    timeout = IDLE_SECONDS

    def do_GET(self) -> None:
        if not self._is_welcome():
            return
        parts = urlsplit(self.path)
        if parts.scheme or parts.netloc:  # as a proxy is asked
            self._refuse(HTTPStatus.NOT_FOUND, "There is nothing here.")
        elif parts.path == "/":
            self._page()
        elif found := FILM.fullmatch(parts.path):
            self._film(int(found[1]), size=found[2])
        elif found := ROW.fullmatch(parts.path):
            self._row(int(found[1]))
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "There is nothing here.")

    do_HEAD = do_GET

    def end_headers(self) -> None:
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name is the standard library's
        """Nothing: a line a picture would bury the address."""

    def _is_welcome(self) -> bool:
        """Whether the request is for this server and by who may; it is answered here where it is not."""
        guard, hosts = self.server.guard, self.headers.get_all("Host") or []
        if len(hosts) != 1 or not guard.knows_host(hosts[0]):
            self._refuse(HTTPStatus.FORBIDDEN, "This server is not asked by that name. Open the address it printed.")
            return False
        site, mode = self.headers.get("Sec-Fetch-Site", ""), self.headers.get("Sec-Fetch-Mode", "")
        if site in ("cross-site", "same-site") and mode != "navigate":
            self._refuse(HTTPStatus.FORBIDDEN, "Other pages get nothing from here.")
            return False
        if guard.admits(self.headers.get("Cookie", ""), cookie=self.server.cookie):
            return True
        if self._brings_token():
            self.send_response(HTTPStatus.SEE_OTHER)  # once more, without the token in the address
            self.send_header("Set-Cookie", f"{self.server.cookie}={guard.secret}; HttpOnly; SameSite=Lax; Path=/")
            self.send_header("Location", "/")
            self._finish(b"", kind="text/plain; charset=utf-8", kept="no-store")
        else:
            self._refuse(
                HTTPStatus.FORBIDDEN, "This address needs its token: open the whole address that the command printed."
            )
        return False

    def _brings_token(self) -> bool:
        parts = urlsplit(self.path)
        try:
            given = parse_qs(parts.query, max_num_fields=8).get("token", [])
        except ValueError:
            return False
        return parts.path == "/" and len(given) == 1 and self.server.guard.is_token(given[0])

    def _page(self) -> None:
        takes_gzip = "gzip" in self.headers.get("Accept-Encoding", "")
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Security-Policy", self.server.policy)
        if takes_gzip:
            self.send_header("Content-Encoding", "gzip")
        self._finish(
            self.server.packed_page if takes_gzip else self.server.page,
            kind="text/html; charset=utf-8",
            kept="no-store",
            policy="",
        )

    def _film(self, row: int, *, size: str) -> None:
        if row >= len(self.server.shown.films):
            self._refuse(HTTPStatus.NOT_FOUND, "There is no such film.")
            return
        try:
            jpeg = self.server.thumbnails.jpeg(row, size=size)
        except ManifestError as error:
            self._refuse(HTTPStatus.NOT_FOUND, str(error))
            return
        self.send_response(HTTPStatus.OK)
        self._finish(jpeg, kind="image/jpeg", kept="private, max-age=600")

    def _row(self, row: int) -> None:
        shown = self.server.shown
        if row >= len(shown.films):
            self._refuse(HTTPStatus.NOT_FOUND, "There is no such film.")
            return
        rows, similarity = shown.neighbours.of(row)
        said = {
            "fields": [[name, str(value)] for name, value in shown.films.fields(row).items()],
            "neighbours": rows.tolist(),
            "similarity": [round(float(value), 4) for value in similarity],
        }
        self.send_response(HTTPStatus.OK)
        self._finish(json.dumps(said).encode(), kind="application/json", kept="no-store")

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        self.send_response(status)
        self._finish(why.encode(), kind="text/plain; charset=utf-8", kept="no-store")

    def _finish(self, content: bytes, *, kind: str, kept: str, policy: str = CLOSED) -> None:
        """What every answer has; the page brings its own policy."""
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", kept)
        self.send_header("Vary", "Cookie, Accept-Encoding")
        if policy:
            self.send_header("Content-Security-Policy", policy)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
