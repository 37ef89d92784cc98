"""The protocol as the heads follow it: validation chooses, train + validation fits, test is looked at once."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from dinov2.errors import ConfigError
from dinov2.eval.features import Labelled
from dinov2.eval.probes.attentive import AttentiveProbe, AttentiveSettings
from dinov2.eval.probes.judging import About, judge
from dinov2.eval.probes.linear_inputs import InputChoice
from dinov2.eval.probes.linear_probe import LinearProbe, LinearSettings, grid
from dinov2.eval.probes.logreg import LogregProbe, LogregSettings
from tests.eval.probes.planted import CLASSES, splits, with_labels

ABOUT = About(probe="any", backbone="planted", settings={})


def cases() -> list[tuple[str, object, list[dict[str, object]]]]:
    logreg = LogregProbe(
        settings=LogregSettings(task="multilabel", num_classes=len(CLASSES)), choice=InputChoice(1, False)
    )
    return [
        ("logreg", logreg, [{"C": 1e-6}, {"C": 1e-2}, {"C": 1.0}]),
        ("linear", LinearProbe(settings=LinearSettings(epochs=3)), grid(blocks=[1, 2], learning_rates=[1e-4, 0.1])),
        (
            "attentive",
            AttentiveProbe(settings=AttentiveSettings(epochs=6, batch_size=32)),
            [{"learning_rate": 1e-4}, {"learning_rate": 1e-2}],
        ),
    ]


CASES = pytest.mark.parametrize(
    ("name", "probe", "candidates"), cases(), ids=lambda one: one if isinstance(one, str) else ""
)


class Watching:
    """A probe that notes what it was fitted on and asked for."""

    def __init__(self, probe: object) -> None:
        self._probe = probe
        self.fitted_on: list[tuple[int, int]] = []
        self.predicted: list[str] = []

    def fit(self, candidates: Sequence[object], split: Labelled) -> Sequence[object]:
        self.fitted_on.append((len(candidates), len(split)))
        return self._probe.fit(candidates, split)

    def predict(self, fitted: object, split: Labelled) -> object:
        self.predicted.append(split.examples.name)
        return self._probe.predict(fitted, split)


@CASES
def test_candidates_see_train_the_chosen_one_sees_train_and_validation_and_test_is_predicted_once(
    name: str, probe: object, candidates: list[dict[str, object]]
) -> None:
    watched = Watching(probe)
    outcome, _ = judge(watched, about=ABOUT, candidates=candidates, splits=splits(), join=Labelled.joined)
    assert watched.fitted_on == [(len(candidates), 160), (1, 240)]
    assert watched.predicted == ["val"] * len(candidates) + ["test"]
    assert outcome.counts == {"train": 160, "val": 80, "test": 120}
    assert outcome.fitted_on == "train + val"


@CASES
def test_shuffled_test_labels_change_neither_what_is_chosen_nor_what_is_predicted(
    name: str, probe: object, candidates: list[dict[str, object]]
) -> None:
    train, val, test = splits()
    shuffled = with_labels(test, np.random.default_rng(0).permutation(test.examples.labels))
    one, _ = judge(probe, about=ABOUT, candidates=candidates, splits=(train, val, test), join=Labelled.joined)
    other, _ = judge(probe, about=ABOUT, candidates=candidates, splits=(train, val, shuffled), join=Labelled.joined)
    assert one.chosen == other.chosen
    assert one.trail == other.trail
    np.testing.assert_array_equal(one.test.scores, other.test.scores)


@CASES
def test_without_validation_one_setting_is_fitted_on_train_and_several_are_refused(
    name: str, probe: object, candidates: list[dict[str, object]]
) -> None:
    train, _, test = splits()
    outcome, _ = judge(probe, about=ABOUT, candidates=candidates[-1:], splits=(train, None, test), join=Labelled.joined)
    assert outcome.fitted_on == "train"
    assert outcome.val is None
    with pytest.raises(ConfigError, match="no validation split"):
        judge(probe, about=ABOUT, candidates=candidates, splits=(train, None, test), join=Labelled.joined)


@CASES
def test_the_order_of_the_outputs_is_the_datasets(
    name: str, probe: object, candidates: list[dict[str, object]]
) -> None:
    outcome, _ = judge(probe, about=ABOUT, candidates=candidates, splits=splits(), join=Labelled.joined)
    assert outcome.test.classes == CLASSES
    matched = [
        [np.corrcoef(outcome.test.scores[:, one], outcome.test.labels[:, other])[0, 1] for other in range(3)]
        for one in range(3)
    ]
    assert np.argmax(matched, axis=1).tolist() == [0, 1, 2]


def test_without_refitting_the_fit_on_train_is_tested() -> None:
    _, probe, candidates = cases()[0]
    watched = Watching(probe)
    outcome, _ = judge(watched, about=ABOUT, candidates=candidates, splits=splits(), join=Labelled.joined, refit=False)
    assert watched.fitted_on == [(3, 160)]
    assert outcome.fitted_on == "train"


def test_an_unknown_metric_is_refused_with_the_known_ones() -> None:
    _, probe, candidates = cases()[0]
    with pytest.raises(ConfigError, match="macro_auroc"):
        judge(probe, about=replace(ABOUT, metric="auc"), candidates=candidates, splits=splits(), join=Labelled.joined)
