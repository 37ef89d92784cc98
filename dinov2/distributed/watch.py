"""What is known of other processes, and what follows from it.

In: their messages, the ends of their connections, and the time. Out: a `Verdict` once a process is lost, and words
about steps that take too long. No threads and no sockets here; time is handed in.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from dinov2.distributed.wire import Message
from dinov2.distributed.words import Standing, name_places, tell_standings

SETTLE_SECONDS = 0.5  # between the first sign of a loss and the verdict, so that all who are lost together are named
CONTINUE = "The same command continues from the last checkpoint."


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Seconds after which something is noticed.

    `lost`: without a sign of life a process counts as lost; `stall`: a step is reported; `patience`: how long an
    exchange that failed is thought about before it is told without a culprit.
    """

    lost: float
    stall: float
    patience: float
    beat: float


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Why the run ends: words for a person, the ranks at fault, and whether anybody is lost at all."""

    text: str
    ranks: tuple[int, ...] = ()


@dataclass
class Sight:
    """One process as last seen.  Times are the watcher's."""

    host: str
    heard: float  # when the last sign of life came
    step: int = 0
    phase: str = "start"
    phase_since: float = 0.0
    step_since: float = 0.0
    details: str = ""
    ended: str = ""  # "done", "failed" or "cut off" once its work has ended in its own words
    words: str = ""
    closed: float | None = None  # when its connection ended


@dataclass
class Watch:
    """All processes that this one watches."""

    limits: Limits
    sights: dict[int, Sight]
    first_trouble: float | None = None
    reported_step: int = field(default=-1)

    @classmethod
    def over(cls, hosts: Mapping[int, str], *, limits: Limits, now: float) -> "Watch":
        """A watch that begins now."""
        fresh = {rank: Sight(host=host, heard=now, phase_since=now, step_since=now) for rank, host in hosts.items()}
        return cls(limits=limits, sights=fresh)

    def hear(self, rank: int, message: Message, *, now: float) -> None:
        """A message from a rank: where it stands, and whether its work has ended."""
        one = self.sights[rank]
        one.heard = now
        one.step, one.phase, one.details = message["step"], message["phase"], message["details"]
        one.phase_since, one.step_since = now - message["phase_seconds"], now - message["step_seconds"]
        one.ended, one.words = message["ended"] or one.ended, message["words"] or one.words

    def close(self, rank: int, *, now: float) -> None:
        """The connection of a rank has ended."""
        self.sights[rank].closed = now

    def all_ended(self) -> bool:
        """Whether nobody is left to be waited for."""
        return all(one.ended or one.closed is not None for one in self.sights.values())

    def verdict(self, *, now: float) -> Verdict | None:
        """Who is lost, if anybody: gone without a word before ended by an error before silent before cut off."""
        gone = self._ranks(one.closed is not None and not one.ended for one in self.sights.values())
        failed = self._ranks(one.ended == "failed" for one in self.sights.values())
        limits = self.limits
        silent = self._silent(limits.lost, now=now)
        cut_off = self._ranks(one.ended == "cut off" for one in self.sights.values())
        if not (gone or failed or silent or cut_off):
            return None
        if self.first_trouble is None:
            self.first_trouble = now
        waited = now - self.first_trouble
        if waited < SETTLE_SECONDS:
            return None
        if gone:
            return self._of_gone(gone, now=now)
        if failed:
            return self._of_failed(failed)
        # Those who fall silent together were not last heard in the same moment.
        if silent or (cut_off and waited >= limits.patience and (silent := self._silent(limits.patience, now=now))):
            together = self._silent(max(now - self.sights[silent[0]].heard - 2 * limits.beat, limits.beat), now=now)
            return self._of_silent(together, now=now)
        if waited >= limits.patience:
            return self._of_cut_off(cut_off, now=now)
        return None

    def stall(self, *, now: float) -> str | None:
        """Words about a step that takes too long, once for each."""
        running = [one for one in self.sights.values() if not one.ended and one.closed is None]
        late = [one.step for one in running if now - one.step_since > self.limits.stall]
        if not late or max(late) <= self.reported_step:
            return None
        self.reported_step = max(late)
        seconds = max(now - one.step_since for one in running if one.step in late)
        return f"step {max(late)} has taken {seconds:.0f} s so far. {self.standings(now=now)}"

    def standings(self, *, now: float) -> str:
        """What everybody does."""
        return tell_standings(
            {
                rank: Standing(
                    host=one.host,
                    step=one.step,
                    phase=one.phase,
                    seconds=now - one.phase_since,
                    details=one.details,
                    silent_seconds=now - one.heard if now - one.heard > 4 * self.limits.beat else 0.0,
                )
                for rank, one in self.sights.items()
                if one.closed is None and one.ended != "done"
            }
        )

    def _ranks(self, flags: Iterable[bool]) -> list[int]:
        return [rank for rank, flag in zip(self.sights, flags, strict=True) if flag]

    def _silent(self, seconds: float, *, now: float) -> list[int]:
        return self._ranks(
            not one.ended and one.closed is None and now - one.heard > seconds for one in self.sights.values()
        )

    def _places(self, ranks: list[int]) -> str:
        return name_places(ranks, {rank: one.host for rank, one in self.sights.items()})

    def _last_seen(self, rank: int) -> str:
        one = self.sights[rank]
        return f"at step {one.step}, phase {one.phase}"

    def _of_gone(self, ranks: list[int], *, now: float) -> Verdict:
        first = self.sights[ranks[0]]
        seconds = (first.closed or now) - first.phase_since
        return Verdict(
            text=f"{self._places(ranks)} ended without a word {self._last_seen(ranks[0])} (for {seconds:.0f} s). "
            f"Was it killed (out of memory: `dmesg` there tells), did it crash, or did its machine fail? {CONTINUE}",
            ranks=tuple(ranks),
        )

    def _of_failed(self, ranks: list[int]) -> Verdict:
        told = "; ".join(f"{self._places([rank])} ended at step {s.step}: {s.words}" for rank, s in self._some(ranks))
        return Verdict(text=told, ranks=tuple(ranks))

    def _of_silent(self, ranks: list[int], *, now: float) -> Verdict:
        seconds = max(now - self.sights[rank].heard for rank in ranks)
        return Verdict(
            text=f"{self._places(ranks)}: no sign of life for {seconds:.0f} s; last seen {self._last_seen(ranks[0])}. "
            f"Is the machine frozen, gone or unreachable, or is the process stopped? {CONTINUE}",
            ranks=tuple(ranks),
        )

    def _of_cut_off(self, ranks: list[int], *, now: float) -> Verdict:
        told = self.sights[ranks[0]].words
        return Verdict(
            text=f"an exchange failed, although every process gives signs of life; {self._places(ranks[:1])}: {told}. "
            f"Where they stand: {self.standings(now=now)}. {CONTINUE}"
        )

    def _some(self, ranks: list[int]) -> list[tuple[int, Sight]]:
        """The first of those who say the same."""
        first_by_words: dict[str, tuple[int, Sight]] = {}
        for rank in ranks:
            first_by_words.setdefault(self.sights[rank].words, (rank, self.sights[rank]))
        return list(first_by_words.values())
