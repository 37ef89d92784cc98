"""Small messages between processes, apart from the exchanges of the training.

In: JSON objects. Out: the same at the other end, one per line over TCP. What torch's own store cannot do is done here:
the end of a process is seen at once, as the end of its connection, and nothing ever blocks for longer than a second.
"""

import json
import os
import selectors
import socket
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

Message = dict[str, Any]

SEND_SECONDS = 1.0  # a peer that takes nothing for so long, with full buffers, is not there
MAX_LINE_BYTES = 2**20
CHUNK_BYTES = 2**16

_open_sockets: "weakref.WeakSet[socket.socket]" = weakref.WeakSet()


def _close_copies() -> None:
    """A forked data worker holds copies of the sockets, which would keep the connections of a dead parent open."""
    for copy in list(_open_sockets):
        copy.close()


os.register_at_fork(after_in_child=_close_copies)


class Wire:
    """One connection.  Sending is safe from several threads; receiving is for one."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(SEND_SECONDS)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _open_sockets.add(connection)
        self.socket = connection
        self._lock = threading.Lock()
        self._unread = b""

    @classmethod
    def connect(cls, address: str, port: int, *, timeout_seconds: float) -> "Wire":
        """A connection to a `Switchboard`.  Raises OSError."""
        return cls(socket.create_connection((address, port), timeout=timeout_seconds))

    def send(self, message: Message) -> bool:
        """Whether it went out; False where the other end is gone or takes nothing any more."""
        with self._lock:
            try:
                self.socket.sendall(json.dumps(message).encode() + b"\n")
            except OSError:
                return False
        return True

    def receive(self) -> tuple[list[Message], bool]:
        """What has come since the last call, and whether the other end is still open.  Call when readable."""
        try:
            chunk = self.socket.recv(CHUNK_BYTES)
        except TimeoutError:
            return [], True
        except OSError:
            return [], False
        self._unread += chunk
        *lines, self._unread = self._unread.split(b"\n")
        try:
            messages = [json.loads(line) for line in lines]
        except ValueError:
            return [], False
        sound = all(isinstance(message, dict) for message in messages) and len(self._unread) <= MAX_LINE_BYTES
        return (messages if sound else []), bool(chunk) and sound

    def close(self) -> None:
        """Closes, once; what was sent still arrives."""
        _open_sockets.discard(self.socket)
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)
        self.socket.close()


class Switchboard:
    """The end of all wires, on rank 0.  Only who shows `token` with the first message, and its rank, is let in."""

    def __init__(self, *, token: str, size: int) -> None:
        dual = socket.has_dualstack_ipv6()
        self._server = socket.create_server(
            ("", 0), family=socket.AF_INET6 if dual else socket.AF_INET, dualstack_ipv6=dual, backlog=max(size, 128)
        )
        self._server.setblocking(False)
        _open_sockets.add(self._server)
        self.token, self._size = token, size
        self._selector = selectors.PollSelector()
        self._selector.register(self._server, selectors.EVENT_READ)
        self._strangers: dict[Wire, float] = {}  # and since when
        self.wires: dict[int, Wire] = {}  # by rank

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.getsockname()[1])

    def receive(self, timeout_seconds: float) -> Iterator[tuple[int, Message | None]]:
        """(rank, message) of what comes within the time; None once a rank's connection has ended."""
        for key, _ in self._selector.select(timeout_seconds):
            if key.data is None:
                self._accept()
                continue
            wire: Wire = key.data
            messages, is_open = wire.receive()
            if wire in self._strangers and messages:
                self._let_in(wire, messages.pop(0))
            rank = next((rank for rank, known in self.wires.items() if known is wire), None)
            if rank is not None:
                yield from ((rank, message) for message in messages)
            if not is_open:
                self._drop(wire)
                if rank is not None:
                    del self.wires[rank]
                    yield rank, None
        self._drop_idle_strangers()

    def send(self, message: Message) -> None:
        """To all."""
        for wire in list(self.wires.values()):
            wire.send(message)

    def close(self) -> None:
        """Ends every connection."""
        for wire in [*self.wires.values(), *self._strangers]:
            wire.close()
        self._selector.close()
        self._server.close()

    def _accept(self) -> None:
        try:
            connection, _ = self._server.accept()
        except OSError:
            return
        wire = Wire(connection)
        self._strangers[wire] = time.monotonic()
        self._selector.register(connection, selectors.EVENT_READ, wire)

    def _let_in(self, wire: Wire, message: Message) -> None:
        del self._strangers[wire]
        rank = message.get("rank")
        if message.get("token") == self.token and isinstance(rank, int) and 0 < rank < self._size:
            self.wires[rank] = wire
        else:
            self._drop(wire)

    def _drop(self, wire: Wire) -> None:
        self._strangers.pop(wire, None)
        if wire.socket.fileno() >= 0:
            self._selector.unregister(wire.socket)
            wire.close()

    def _drop_idle_strangers(self) -> None:
        now = time.monotonic()
        for wire, since in list(self._strangers.items()):
            if now - since > 10 * SEND_SECONDS:
                self._drop(wire)


class Spoke:
    """The end of one wire, on every rank but 0: what comes, comes from rank 0."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._selector = selectors.PollSelector()
        self._selector.register(wire.socket, selectors.EVENT_READ)
        self._is_open = True

    def receive(self, timeout_seconds: float) -> Iterator[tuple[int, Message | None]]:
        """As `Switchboard.receive`."""
        if not self._is_open:
            time.sleep(timeout_seconds)
        elif self._selector.select(timeout_seconds):
            messages, self._is_open = self._wire.receive()
            yield from ((0, message) for message in messages)
            if not self._is_open:
                self._selector.unregister(self._wire.socket)
                yield 0, None

    def send(self, message: Message) -> None:
        """To rank 0."""
        self._wire.send(message)

    def close(self) -> None:
        """Ends the connection."""
        self._selector.close()
        self._wire.close()


class NoLink:
    """One process alone: nothing comes and nothing goes."""

    def receive(self, timeout_seconds: float) -> Iterator[tuple[int, Message | None]]:
        """As `Switchboard.receive`."""
        time.sleep(timeout_seconds)
        yield from ()

    def send(self, message: Message) -> None:
        """To nobody."""

    def close(self) -> None:
        """Nothing to end."""


Link = Switchboard | Spoke | NoLink
