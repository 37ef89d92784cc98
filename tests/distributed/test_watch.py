"""What follows from what processes say and do not say.  Time is handed in, so nothing here waits."""

from dinov2.distributed.watch import Limits, Watch
from dinov2.distributed.wire import Message
from dinov2.distributed.words import name_ranks

LIMITS = Limits(lost=30, stall=300, patience=10, beat=2)


def beat(*, step: int = 812, phase: str = "backward", seconds: float = 1.0, **changes: object) -> Message:
    whole: Message = {"step": step, "phase": phase, "phase_seconds": seconds, "step_seconds": seconds}
    return whole | {"details": "", "ended": "", "words": ""} | changes


def watch(size: int = 8, *, per_host: int = 4) -> Watch:
    seen = Watch.over({rank: f"node{rank // per_host}" for rank in range(size)}, limits=LIMITS, now=0)
    for rank in range(size):
        seen.hear(rank, beat(), now=100)
    return seen


def settled(seen: Watch, *, now: float) -> str:
    """The verdict once there was time for more bad news."""
    assert seen.verdict(now=now) is None
    verdict = seen.verdict(now=now + 0.6)
    assert verdict is not None
    return verdict.text


def test_ranks_are_named_in_ranges() -> None:
    assert name_ranks([3]) == "rank 3"
    assert name_ranks([5, 0, 2, 1, 4, 9]) == "ranks 0-2, 4-5, 9"


def test_all_processes_of_a_machine_that_is_gone_are_named_together() -> None:
    seen = watch()
    for late, rank in enumerate(range(4)):
        seen.hear(rank, beat(), now=140.5)
        seen.hear(4 + rank, beat(), now=110 + 0.4 * late)  # the last that was heard of each
    told = settled(seen, now=140.6)
    assert told.startswith("ranks 4-7 (node1): no sign of life for 31 s; last seen at step 812, phase backward")


def test_a_connection_that_ends_counts_at_once_and_before_what_follows_from_it() -> None:
    seen = watch()
    seen.hear(1, beat(ended="cut off", words="RuntimeError: gloo"), now=101)
    seen.close(6, now=101.1)
    assert settled(seen, now=101.2).startswith(
        "rank 6 (node1) ended without a word at step 812, phase backward (for 2 s)"
    )


def test_last_words_come_before_the_end_of_the_connection() -> None:
    seen = watch()
    seen.hear(6, beat(ended="failed", words="DataError: no disk"), now=101)
    seen.close(6, now=101)
    assert settled(seen, now=101) == "rank 6 (node1) ended at step 812: DataError: no disk"


def test_the_same_words_of_many_are_told_once() -> None:
    seen = watch()
    for rank in (2, 5, 6):
        seen.hear(rank, beat(ended="failed", words="OSError: no space" if rank > 2 else "ValueError: x"), now=101)
    assert settled(seen, now=101) == (
        "rank 2 (node0) ended at step 812: ValueError: x; rank 5 (node1) ended at step 812: OSError: no space"
    )


def test_a_process_that_is_done_is_not_missed() -> None:
    seen = watch(2)
    seen.hear(0, beat(ended="done"), now=101)
    seen.close(0, now=101)
    seen.hear(1, beat(), now=300)
    assert seen.verdict(now=300) is None
    seen.hear(1, beat(ended="done"), now=301)
    assert seen.all_ended()


def test_an_exchange_that_fails_while_all_live_is_told_with_where_everybody_stands() -> None:
    seen = watch(4)
    for now in range(101, 113):
        for rank in range(3):
            seen.hear(rank, beat(ended="cut off", words="RuntimeError: timed out"), now=now)
        seen.hear(3, beat(phase="data", seconds=700.0, details="worker 1 reads /x/y.png"), now=now)
        verdict = seen.verdict(now=now)
        assert (verdict is None) == (now < 111), "it is thought about for as long as patience lasts"
    assert verdict is not None
    assert verdict.ranks == ()
    assert "rank 0 (node0): RuntimeError: timed out. Where they stand: " in verdict.text
    assert "rank 3 (node0): data for 700 s: worker 1 reads /x/y.png" in verdict.text


def test_who_was_silent_when_an_exchange_failed_is_the_one() -> None:
    seen = watch(3)
    for now in range(101, 113):
        seen.hear(0, beat(ended="cut off", words="RuntimeError: gloo"), now=now)
        seen.hear(1, beat(), now=now)
        verdict = seen.verdict(now=now)
    assert verdict is not None
    assert verdict.ranks == (2,)
    assert "rank 2 (node0): no sign of life for 1" in verdict.text


def test_a_stall_is_told_once_and_the_next_one_again() -> None:
    seen = watch(64, per_host=8)

    def stand(step: int, *, now: float) -> str | None:
        for rank in range(64):
            if rank != 3:
                seen.hear(rank, beat(step=step, seconds=301), now=now)
        seen.hear(3, beat(step=step, phase="data", seconds=302, details="worker 1 reads /x/y.png for 300 s"), now=now)
        return seen.stall(now=now)

    assert stand(812, now=500) == (
        "step 812 has taken 302 s so far. ranks 0-2, 4-63: backward for 301 s; "
        "rank 3 (node0): data for 302 s: worker 1 reads /x/y.png for 300 s"
    )
    assert stand(812, now=800) is None
    assert str(stand(813, now=1200)).startswith("step 813 has taken")
