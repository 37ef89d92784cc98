import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Iterator

import pytest

from dinov2.distributed.wire import Message, Spoke, Switchboard, Wire


@pytest.fixture
def board() -> Iterator[Switchboard]:
    board = Switchboard(token="secret", size=3)
    yield board
    board.close()


def call(board: Switchboard, *, rank: object, token: str = "secret") -> Wire:
    wire = Wire.connect("127.0.0.1", board.port, timeout_seconds=5)
    wire.send({"token": token, "rank": rank})
    return wire


def heard(board: Switchboard, *, seconds: float = 1.0) -> list[tuple[int, Message | None]]:
    """What comes, until something has come or the time is over."""
    deadline = time.monotonic() + seconds
    found: list[tuple[int, Message | None]] = []
    while not found and time.monotonic() < deadline:
        found += board.receive(0.05)
    return found


def test_messages_arrive_in_order_and_whole_however_long(board: Switchboard) -> None:
    wire = call(board, rank=2)
    sent = [{"text": "x" * length} for length in (1, 200_000, 2)]
    for message in sent:
        wire.send(message)
    got: list[tuple[int, Message | None]] = []
    while len(got) < 3:
        got += heard(board)
    assert got == [(2, message) for message in sent]


def test_the_end_of_a_process_is_the_end_of_its_connection(board: Switchboard) -> None:
    wire = call(board, rank=1)
    wire.send({"last": "words"})
    wire.close()
    got: list[tuple[int, Message | None]] = []
    while (1, None) not in got:
        got += heard(board)
    assert got == [(1, {"last": "words"}), (1, None)]


def _die_before_the_child(port: int, writer: int) -> None:
    wire = Wire.connect("127.0.0.1", port, timeout_seconds=5)
    wire.send({"token": "secret", "rank": 1})
    if os.fork() == 0:  # as a data worker that hangs
        os.write(writer, str(os.getpid()).encode())
        time.sleep(60)
    os._exit(0)


def test_a_forked_child_does_not_keep_its_dead_parents_connection_open(board: Switchboard) -> None:
    reader, writer = os.pipe()
    context = multiprocessing.get_context("fork")
    parent = context.Process(target=_die_before_the_child, args=(board.port, writer))
    parent.start()
    parent.join()
    child = int(os.read(reader, 20))
    try:
        assert heard(board, seconds=10) == [(1, None)]
    finally:
        os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize(("token", "rank"), [("wrong", 1), ("secret", 0), ("secret", 3), ("secret", "1")])
def test_strangers_are_not_heard(board: Switchboard, token: str, rank: object) -> None:
    wire = call(board, rank=rank, token=token)
    wire.send({"any": "thing"})
    assert heard(board) == []
    assert board.wires == {}


def test_what_is_no_json_ends_the_connection_and_nothing_else(board: Switchboard) -> None:
    with socket.create_connection(("127.0.0.1", board.port)) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert heard(board) == []
    wire = call(board, rank=1)
    wire.send({"still": "here"})
    assert heard(board) == [(1, {"still": "here"})]


def test_what_rank_0_says_reaches_all(board: Switchboard) -> None:
    ends = [Spoke(call(board, rank=rank)) for rank in (1, 2)]
    while len(board.wires) < 2:
        heard(board, seconds=0.1)
    board.send({"verdict": "v"})
    for end in ends:
        assert next(iter(end.receive(5))) == (0, {"verdict": "v"})
        end.close()
