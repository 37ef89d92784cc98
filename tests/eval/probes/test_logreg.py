import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler, normalize

from dinov2.errors import ConfigError
from dinov2.eval.examples import UNCERTAIN
from dinov2.eval.features import Labelled
from dinov2.eval.probes.judging import About, judge
from dinov2.eval.probes.linear_inputs import InputChoice
from dinov2.eval.probes.logreg import LogregProbe, LogregSettings, fit_logreg, remarks, strengths
from dinov2.eval.scores import macro_auroc
from tests.eval.probes.planted import CLASSES, splits

RNG = np.random.default_rng(0)
INPUTS = RNG.normal(size=(150, 6)) * np.array([1, 10, 0.1, 1, 1, 0])
LABELS = (INPUTS[:, :3] / [1, 10, 0.1] + RNG.normal(size=(150, 3)) > 0.3).astype(np.float32)


def settings(**options: object) -> LogregSettings:
    return LogregSettings(**({"task": "multilabel", "num_classes": 3} | options))


@pytest.mark.parametrize("task", ["multilabel", "multiclass"])
def test_a_planted_direction_is_found_and_the_best_strength_is_chosen(task: str) -> None:
    outcome, _ = judge(
        LogregProbe(settings=settings(task=task), choice=InputChoice(1, False)),
        about=About(probe="logreg", backbone="planted", settings={}, metric="accuracy"),
        candidates=[{"C": value} for value in (1e-6, 1e-2, 1.0)],
        splits=splits(task),
        join=Labelled.joined,
    )
    assert macro_auroc(outcome.test) > 0.99
    assert outcome.chosen["C"] > 1e-6  # so strong a pull to zero says the commoner value to all
    values = [one["validation"] for one in outcome.trail]
    assert max(values) == values[[one["C"] for one in outcome.trail].index(outcome.chosen["C"])]


def test_features_that_know_nothing_stay_at_one_half() -> None:
    found = []
    for seed in range(4):
        outcome, _ = judge(
            LogregProbe(settings=settings(), choice=InputChoice(2, True)),
            about=About(probe="logreg", backbone="planted", settings={}),
            candidates=[{"C": value} for value in (1e-3, 1.0)],
            splits=splits(signal=0.0, seed=seed),
            join=Labelled.joined,
        )
        found.append(macro_auroc(outcome.test))
    assert np.mean(found) == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize(
    ("scaling", "scaled"),
    [("standard", StandardScaler().fit_transform(INPUTS)), ("l2", normalize(INPUTS)), ("none", INPUTS)],
)
def test_it_is_scikit_learns_on_scaled_features_with_unstated_pictures_left_out(
    scaling: str, scaled: np.ndarray
) -> None:
    labels = LABELS.copy()
    labels[RNG.random(150) < 0.3, 1] = np.nan
    known = ~np.isnan(labels[:, 1])
    fitted = fit_logreg(INPUTS, labels, settings=settings(scaling=scaling), candidates=[0.1])[0]
    expected = LogisticRegression(C=0.1, max_iter=1000).fit(scaled[known], labels[known, 1]).predict_proba(scaled)[:, 1]
    np.testing.assert_allclose(fitted.probabilities(INPUTS)[:, 1], expected, atol=1e-5)


@pytest.mark.parametrize("task", ["multilabel", "multiclass"])
def test_balanced_is_scikit_learns_class_weight(task: str) -> None:
    labels = LABELS if task == "multilabel" else LABELS.sum(axis=1).clip(max=2).astype(np.float32)
    fitted = fit_logreg(
        INPUTS, labels, settings=settings(task=task, balance="balanced", scaling="none"), candidates=[1.0]
    )[0]
    model = LogisticRegression(class_weight="balanced", max_iter=1000)
    model.fit(INPUTS, labels[:, 0] if task == "multilabel" else labels)
    expected = model.predict_proba(INPUTS)
    said = fitted.probabilities(INPUTS)
    np.testing.assert_allclose(said[:, 0], expected[:, 1] if task == "multilabel" else expected[:, 0], atol=1e-3)


def test_a_class_with_one_value_in_training_says_that_value_and_is_named() -> None:
    labels = LABELS.copy()
    labels[:, 0], labels[:, 2] = 0, np.nan
    fitted = fit_logreg(INPUTS, labels, settings=settings(), candidates=[1.0])[0]
    said = fitted.probabilities(INPUTS)
    assert (said[:, 0] == 0).all()
    assert (said[:, 2] == 0).all()
    assert np.ptp(said[:, 1]) > 0.5
    assert remarks(fitted, classes=CLASSES)["constant, for want of two values in training"] == ["zebra", "mango"]


def test_a_class_of_many_that_training_does_not_show_has_probability_zero_and_is_named() -> None:
    labels = np.where(LABELS[:, 0] == 1, 2, 0).astype(np.float32)
    fitted = fit_logreg(INPUTS, labels, settings=settings(task="multiclass"), candidates=[1.0])[0]
    said = fitted.probabilities(INPUTS)
    assert (said[:, 1] == 0).all()
    np.testing.assert_allclose(said.sum(axis=1), 1, atol=1e-6)
    assert fitted.constant == (1,)


def test_a_smoothed_target_gives_the_model_that_minimises_its_cross_entropy() -> None:
    labels = np.full((150, 1), UNCERTAIN, dtype=np.float32)
    labels[:60, 0] = LABELS[:60, 0]
    fitted = fit_logreg(
        INPUTS, labels, settings=settings(num_classes=1, policy="smooth-ones", scaling="none"), candidates=[1e5]
    )[0]
    from dinov2.eval.probes.uncertainty import apply_policy

    targets = apply_policy(labels, "smooth-ones")[:, 0]
    slope = (fitted.probabilities(INPUTS)[:, 0] - targets) @ INPUTS / 150  # zero at the minimum
    np.testing.assert_allclose(slope, 0, atol=2e-3)


def test_of_an_output_of_its_own_presence_is_told_against_absence() -> None:
    labels = LABELS.copy()
    labels[INPUTS[:, 3] > 1, 0] = UNCERTAIN
    fitted = fit_logreg(INPUTS, labels, settings=settings(policy="own-class"), candidates=[1.0])[0]
    three = fitted.models[0].predict_proba(fitted.scaler.transform(INPUTS))
    assert three.shape == (150, 3)
    np.testing.assert_allclose(fitted.probabilities(INPUTS)[:, 0], three[:, 1] / (three[:, 0] + three[:, 1]), atol=1e-6)


def test_a_fit_that_was_cut_short_is_named() -> None:
    fitted = fit_logreg(INPUTS, LABELS, settings=settings(max_iterations=1, scaling="none"), candidates=[1e5])[0]
    assert remarks(fitted, classes=CLASSES)["not converged in 1 iterations"] == list(CLASSES)


def test_the_sweep_has_the_public_ends_and_the_public_count_by_asking() -> None:
    public = strengths(45)
    assert len(public) == 45
    assert public[0] == pytest.approx(1e-6)
    assert public[-1] == pytest.approx(1e5)
    assert strengths(12) == pytest.approx([10.0**power for power in range(-6, 6)])
    assert strengths(1) == (1.0,)
    with pytest.raises(ConfigError, match="1 or more"):
        strengths(0)


def test_one_picture_keeps_its_dimension() -> None:
    fitted = fit_logreg(INPUTS, LABELS, settings=settings(), candidates=[1.0])[0]
    assert fitted.probabilities(INPUTS[:1]).shape == (1, 3)
