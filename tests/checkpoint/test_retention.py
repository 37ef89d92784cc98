from hypothesis import given
from hypothesis import strategies as st

from dinov2.checkpoint.retention import KEEP_ALL, Retention, best_first, reasons_to_keep

SCORES = st.dictionaries(st.integers(1, 40), st.none() | st.floats(allow_nan=True), min_size=1)
RETENTIONS = st.builds(
    Retention,
    keep_last=st.integers(0, 4),
    keep_every_steps=st.integers(0, 7),
    keep_best=st.integers(0, 4),
    mode=st.sampled_from(["min", "max"]),
)


@given(SCORES, RETENTIONS)
def test_the_newest_always_stays_and_zero_keeps_all(scores: dict[int, float | None], retention: Retention) -> None:
    kept = reasons_to_keep(scores, retention=retention)
    assert "latest" in kept[max(scores)]
    assert set(sorted(scores)[-retention.keep_last :]) <= kept.keys()
    if retention.keep_last == 0:
        assert kept.keys() == scores.keys()


@given(SCORES, RETENTIONS)
def test_removing_what_is_not_kept_changes_nothing_about_the_rest(
    scores: dict[int, float | None], retention: Retention
) -> None:
    kept = reasons_to_keep(scores, retention=retention)
    again = {step: scores[step] for step in kept}
    assert reasons_to_keep(again, retention=retention) == kept


def test_every_reason_is_named() -> None:
    retention = Retention(keep_last=1, keep_every_steps=4, keep_best=2, mode="min")
    assert reasons_to_keep({1: 3.0, 2: 1.0, 4: None, 5: 2.0, 6: 9.0}, retention=retention) == {
        2: ("best",),
        4: ("every 4",),
        5: ("among the best 2",),
        6: ("latest", "last 1"),
    }


def test_of_equal_scores_the_later_one_is_better_and_nan_is_none() -> None:
    scores = {1: 1.0, 2: 1.0, 3: float("nan"), 4: None, 5: 0.0}
    assert best_first(scores, mode="max") == [2, 1, 5]
    assert best_first(scores, mode="min") == [5, 2, 1]


def test_without_a_score_nothing_is_the_best() -> None:
    assert reasons_to_keep({1: None, 2: None}, retention=KEEP_ALL) == {
        1: ("all are kept",),
        2: ("latest", "all are kept"),
    }
    assert reasons_to_keep({}, retention=KEEP_ALL) == {}
