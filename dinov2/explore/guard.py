"""Who may see the page.

In: what a request says of itself. Out: whether it is answered.

Three things stand between the films and others. The address: this machine alone, unless told otherwise. The `Host`
line: a page elsewhere can make a browser take a name of its own for this machine (DNS rebinding), but not this
machine's names for its own. The token, which only who was told the whole address has; a cookie holds a second secret
after the first visit, so that the token does not stay in the address.
"""

import hmac
import ipaddress
import re
import secrets
import socket
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie

SECRET_BYTES = 32
HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[^:\[\]]+)(:\d{1,5})?")


@dataclass(frozen=True)
class Guard:
    """The names and secrets of one server."""

    names: frozenset[str]  # host names under which it may be asked, in lower case
    only_loopback: bool  # addresses as names: those of this machine to itself only, else all
    token: str | None  # None: nobody else can reach the address
    secret: str = field(default_factory=lambda: secrets.token_urlsafe(SECRET_BYTES))

    def knows_host(self, given: str) -> bool:
        """Whether a `Host` line, with or without a port, names this server; the port may be that of a tunnel."""
        found = HOST.fullmatch(given.strip())
        if found is None:
            return False
        name = found["name"].strip("[]").lower().rstrip(".")
        if name in self.names:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or not self.only_loopback

    def is_token(self, given: str) -> bool:
        """Whether it is the token."""
        return self.token is not None and _equal(given, self.token)

    def admits(self, cookies: str, *, cookie: str) -> bool:
        """Whether a `Cookie` line holds the secret under the name `cookie`, where one is needed."""
        if self.token is None:
            return True
        try:
            held = SimpleCookie(cookies).get(cookie)
        except CookieError:
            return False
        return held is not None and _equal(held.value, self.secret)


def guard_for(host: str, *, with_token: bool) -> Guard:
    """Of a server bound to `host`; off this machine it always has a token."""
    only_loopback = is_loopback(host)
    names = {"localhost"}
    if not only_loopback:
        names |= {host.lower(), socket.gethostname().lower(), socket.getfqdn().lower()}
    token = secrets.token_urlsafe(SECRET_BYTES) if with_token or not only_loopback else None
    return Guard(frozenset(names), only_loopback, token)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server bound to `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _equal(one: str, other: str) -> bool:
    """In a time that does not tell how much of it is right."""
    return hmac.compare_digest(one.encode("utf-8", "surrogateescape"), other.encode())
