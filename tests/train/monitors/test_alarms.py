"""Alarms are told once when they begin, once when they end, and say what to do."""

import math
from typing import Any

import pytest

from dinov2.config.load import load_config
from dinov2.train.monitors.alarms import Alarms

SHORT = ("optim.total_steps=50", "optim.warmup_steps=5", "optim.freeze_last_layer_steps=0", "monitors.every_steps=10")
LN_64 = math.log(64)
SOUND = {
    "monitor/teacher_entropy": 0.5 * LN_64,
    "monitor/teacher_marginal_entropy": 0.9 * LN_64,
    "monitor/rankme": 30.0,
    "monitor/mean_cosine": 0.4,
    "dino_global_cross_entropy": 3.0,
    "dino_local_cross_entropy": 3.1,
    "ibot_cross_entropy": 2.0,
}


def alarms(*words: str) -> Alarms:
    config = load_config(None, overrides=[*SHORT, "dino.head_n_prototypes=64", *words]).config
    return Alarms(config, num_pictures=100, width=64)


def heard(watch: Alarms, step: int, **changed: Any) -> list[str]:
    numbers = SOUND | {name.replace("__", "/"): value for name, value in changed.items()}
    return [text for text, _ in watch.hear(step, numbers)]


def test_a_sound_training_is_silent() -> None:
    watch = alarms()
    assert [heard(watch, step) for step in range(10, 60, 10)] == [[]] * 5


def test_a_teacher_at_ln_k_is_told_after_the_second_look_once_and_when_it_is_over() -> None:
    watch = alarms()
    assert heard(watch, 10, monitor__teacher_entropy=LN_64) == []
    (begun,) = heard(watch, 20, monitor__teacher_entropy=LN_64)
    assert begun.startswith(
        "step 20: the teacher is at ln K: uniform (entropy 4.1589 of ln 64 = 4.1589) since step 10."
    )
    assert "dino.head_n_prototypes, now 64" in begun
    assert "train.centering=sinkhorn_knopp" in begun
    assert heard(watch, 30, monitor__teacher_entropy=LN_64) == []
    (ended,) = heard(watch, 40)
    assert ended.startswith("step 40: no longer so: the teacher is at ln K")
    assert ended.endswith("since step 10.")
    assert heard(watch, 50) == []


def test_a_way_out_that_is_taken_already_is_not_advised() -> None:
    watch = alarms("train.centering=sinkhorn_knopp")
    heard(watch, 10, monitor__teacher_entropy=LN_64)
    (begun,) = heard(watch, 20, monitor__teacher_entropy=LN_64)
    assert "sinkhorn" not in begun


def test_one_bad_look_between_good_ones_is_no_alarm() -> None:
    watch = alarms()
    said = [heard(watch, step, monitor__mean_cosine=0.99 if step % 20 else 0.5) for step in range(10, 60, 10)]
    assert said == [[]] * 5


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("monitor__teacher_marginal_entropy", 0.01, "about one prototype"),
        ("monitor__rankme", 1.1, "class tokens use 1.10 of 64 dimensions"),
        ("monitor__mean_cosine", 0.96, "nearly equal (mean cosine 0.9600)"),
        ("dino_local_cross_entropy", LN_64 + 0.01, "the loss dino_local is at the value of a uniform answer"),
        ("ibot_cross_entropy", LN_64 - 0.01, "the loss ibot is at the value of a uniform answer"),
    ],
)
def test_every_collapse_has_its_words(name: str, value: float, words: str) -> None:
    watch = alarms()
    heard(watch, 10, **{name: value})
    (begun,) = heard(watch, 20, **{name: value})
    assert words in begun
    assert "Try " in begun


def test_thresholds_and_patience_are_read() -> None:
    watch = alarms("monitors.max_cosine=0.3", "monitors.patience=1", "monitors.min_rank_share=0.5")
    assert len(heard(watch, 10)) == 2


def test_a_loss_that_is_above_the_uniform_value_is_not_at_it() -> None:
    watch = alarms("monitors.patience=1")
    assert heard(watch, 10, dino_global_cross_entropy=1.2 * LN_64) == []


def test_in_the_warm_up_that_is_said() -> None:
    (begun,) = heard(alarms("monitors.patience=1"), 5, monitor__mean_cosine=0.99)
    assert "In the warm-up (until step 5) this may still pass." in begun


def test_a_number_that_is_not_there_or_null_is_no_news() -> None:
    watch = alarms()
    heard(watch, 10, monitor__teacher_entropy=LN_64)
    assert list(watch.hear(20, {"monitor/teacher_entropy": None})) == []
    assert list(watch.hear(30, {})) == []
    assert len(heard(watch, 40, monitor__teacher_entropy=LN_64)) == 1


def test_a_run_that_continues_does_not_repeat_what_was_told_before_it_stopped() -> None:
    lines: list[dict[str, Any]] = [
        {"step": step} | SOUND | {"monitor/mean_cosine": 0.99 if step < 30 else 0.5} for step in (10, 20, 30)
    ]
    told, fresh = alarms(), alarms()
    told.catch_up(lines, until=20)
    assert heard(told, 25, monitor__mean_cosine=0.99) == []
    assert len(heard(told, 30)) == 1
    fresh.catch_up(lines, until=10)
    assert len(heard(fresh, 20, monitor__mean_cosine=0.99)) == 1
