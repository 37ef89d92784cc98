"""How the processes of a run find each other.

In: rank, number of processes, and the address where rank 0, or torchrun's agent, keeps the store. Out: a store that
every process has reached, or a LaunchError that says who is missing and what to look at.
"""

import json
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta

from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

from dinov2.distributed.words import name_ranks
from dinov2.errors import LaunchError

LOOK_SECONDS = 0.25  # between two looks for who is there
SAY_SECONDS = 10.0  # between two words about who is awaited
ARRIVED = "arrived"
READ = "read"
READ_SECONDS = 10.0  # for all to read who is there, where the launch is refused


@dataclass(frozen=True, kw_only=True)
class Attendant:
    """What a process says of itself on arrival."""

    rank: int
    size: int
    host: str
    gpu: str  # identity of its GPU; empty without one


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a run meets.  `attempt` keeps a restarted launch apart from the one before."""

    address: str
    port: int
    serves: bool  # this process keeps the store
    attempt: str = "0"

    def __str__(self) -> str:
        return f"{self.address}:{self.port}"


def meet(me: Attendant, *, place: Place, timeout_seconds: float, say: Callable[[str], None] | None = None) -> Store:
    """A store in which all processes have signed in.  Collective; `say` hears who is awaited where it takes long.

    Raises LaunchError where somebody does not come in time, where processes disagree about their number, and where two
    share a GPU.
    """
    deadline = time.monotonic() + timeout_seconds
    if not place.serves:
        _await_server(me, place=place, deadline=deadline, waited=timeout_seconds)
    with _named_errors(f"rank {me.rank} ({me.host}) cannot {'open' if place.serves else 'join'} {place}"):
        server = TCPStore(
            place.address,
            place.port,
            is_master=place.serves,
            wait_for_workers=False,
            multi_tenant=place.serves,
            timeout=timedelta(seconds=timeout_seconds),
        )
    store = PrefixStore(f"dinov2/{place.attempt}", server)
    with _named_errors(f"rank {me.rank} ({me.host}) lost the meeting point {place}, or whoever keeps it ended"):
        store.set(_key(me.rank), json.dumps(asdict(me)))
        present = _await_all(store, me, place=place, deadline=deadline, waited=timeout_seconds, say=say)
    try:
        _refuse_differing_sizes(present)
        _refuse_shared_gpus(present)
    except LaunchError:
        _let_all_read(store, num_processes=len(present), serves=place.serves)
        raise
    return store


def _let_all_read(store: Store, *, num_processes: int, serves: bool) -> None:
    """All refuse alike, but whoever keeps the store must not end before the others have read it."""
    num_read = store.add(READ, 1)
    deadline = time.monotonic() + READ_SECONDS
    while serves and num_read < num_processes and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
        num_read = store.add(READ, 0)


def _key(rank: int) -> str:
    return f"here/{rank}"


@contextmanager
def _named_errors(what: str) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        first_line = (str(error) or type(error).__name__).splitlines()[0]
        raise LaunchError(
            f"{what}: {first_line}. Look at the log of rank 0 first; where the port is taken, set MASTER_PORT to "
            "a free one."
        ) from error


def _await_server(me: Attendant, *, place: Place, deadline: float, waited: float) -> None:
    """Returns once something listens.  Looks itself, because torch's own wait does not hear Ctrl-C."""
    while True:
        try:
            socket.create_connection((place.address, place.port), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise LaunchError(
                    f"rank {me.rank} of {me.size} ({me.host}): nothing answers at {place} after {waited:g} s "
                    f"({error.strerror or error}). Rank 0 keeps the meeting point there: look at its log first. If it "
                    "is up: does MASTER_ADDR name its machine, and may this one reach that port (firewall)?"
                ) from error
            time.sleep(LOOK_SECONDS)


def _await_all(
    store: Store,
    me: Attendant,
    *,
    place: Place,
    deadline: float,
    waited: float,
    say: Callable[[str], None] | None,
) -> list[Attendant]:
    keys = [_key(rank) for rank in range(me.size)]
    last_said = time.monotonic()
    arrived = store.add(ARRIVED, 1)
    while arrived < me.size or not store.check(keys):
        now = time.monotonic()
        if now > deadline:
            here = [key for key in keys if store.check([key])]
            raise LaunchError(_absence(_read(store, here), size=me.size, waited=waited, place=place))
        if say is not None and now - last_said > SAY_SECONDS:
            say(f"waiting for the other processes: {arrived} of {me.size} are here")
            last_said = now
        time.sleep(LOOK_SECONDS)
        arrived = store.add(ARRIVED, 0)
    return _read(store, keys)


def _read(store: Store, keys: list[str]) -> list[Attendant]:
    return [Attendant(**json.loads(value)) for value in store.multi_get(keys)]


def _absence(present: list[Attendant], *, size: int, waited: float, place: Place) -> str:
    missing = sorted(set(range(size)) - {one.rank for one in present})
    hosts = sorted({one.host for one in present})
    return (
        f"{len(present)} of {size} processes came within {waited:g} s; missing: {name_ranks(missing)}. Those that came "
        f"run on {', '.join(hosts)} and met at {place}. Look at the logs of the missing ones: was every machine "
        "started, do all name the same MASTER_ADDR and MASTER_PORT, and may they reach that port (firewall)?"
    )


def _refuse_differing_sizes(present: Iterable[Attendant]) -> None:
    sizes = sorted({one.size for one in present})
    if len(sizes) > 1:
        raise LaunchError(
            f"the processes disagree about their number: WORLD_SIZE is {' or '.join(map(str, sizes))}. Start every "
            "machine with the same number of machines and of processes each."
        )


def _refuse_shared_gpus(present: Iterable[Attendant]) -> None:
    users: dict[tuple[str, str], list[int]] = {}
    for one in present:
        if one.gpu:
            users.setdefault((one.host, one.gpu), []).append(one.rank)
    for (host, _), ranks in users.items():
        if len(ranks) > 1:
            raise LaunchError(
                f"{name_ranks(ranks)} ({host}) share one GPU: there are more processes on this machine than GPUs. "
                "Start fewer of them, or give each its own (srun --gpus-per-task=1)."
            )
