from dinov2.batch import Made
from dinov2.data.pace import NUM_BATCHES, Pace


def made(worker: int, seconds: float, *, slowest: float = 0.1) -> Made:
    return Made(
        worker=worker, process=70 + worker, seconds=seconds, slowest_path=f"{slowest}.png", slowest_seconds=slowest
    )


def rounds(pace: Pace, seconds: dict[int, float], *, count: int = NUM_BATCHES) -> list[str]:
    """What is said while every worker makes `count` batches."""
    told = [pace.add(made(worker, time)) for _ in range(count) for worker, time in seconds.items()]
    return [words for words in told if words]


def test_a_worker_that_stays_slow_is_named_once_with_its_slowest_picture() -> None:
    pace = Pace()
    pace.add(made(2, 4.0, slowest=3.5))
    (told,) = rounds(pace, {0: 0.5, 1: 0.6, 2: 4.0}, count=NUM_BATCHES - 1) or [""]
    assert told == (
        "data worker 2 (process 72) takes 4 s a batch, the other 2 take 0.55 s; the slowest picture of its last "
        f"{NUM_BATCHES} batches was 3.5.png (3.5 s to read)"
    )
    assert rounds(pace, {0: 0.5, 1: 0.6, 2: 4.0}) == []


def test_one_that_recovered_may_be_named_again() -> None:
    pace = Pace()
    assert len(rounds(pace, {0: 0.5, 1: 0.5, 2: 4.0})) == 1
    assert rounds(pace, {0: 0.5, 1: 0.5, 2: 0.5}) == []
    assert len(rounds(pace, {0: 0.5, 1: 0.5, 2: 4.0})) == 1


def test_one_slow_picture_names_nobody() -> None:
    pace = Pace()
    rounds(pace, {0: 0.5, 1: 0.5})
    assert pace.add(made(1, 60.0)) is None


def test_where_all_are_slow_or_there_is_one_nobody_is_named() -> None:
    assert rounds(Pace(), {0: 9.0, 1: 8.0, 2: 10.0}, count=20) == []
    assert rounds(Pace(), {0: 9.0}, count=20) == []
