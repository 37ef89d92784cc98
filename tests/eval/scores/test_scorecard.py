"""Every score with its interval: values, draws of patients, what is left out and said."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn import metrics

from dinov2.eval.outcome import Predictions
from dinov2.eval.scores import MACRO, METRICS, PatientDraws, auprc, auroc, interval, mean_interval, score
from dinov2.eval.scores.classes import choose_thresholds
from dinov2.eval.scores.classification import BINS, replicate_predictions
from tests.eval.scores.made import multiclass, multilabel, segmentations


def test_scores_of_a_class_agree_with_scikit_learn_at_the_threshold_of_validation() -> None:
    said, validation = multilabel(seed=1), multilabel(seed=2)
    card = score(said, validation=validation, draws=5)
    assert "validation" in card.threshold_origin
    for i, name in enumerate(said.classes):
        known = ~np.isnan(said.labels[:, i])
        labels, scores = said.labels[known, i], said.scores[known, i]
        answers = scores >= np.float32(card.thresholds[name])
        expected = {
            "auroc": metrics.roc_auc_score(labels, scores),
            "auprc": metrics.average_precision_score(labels, scores),
            "f1": metrics.f1_score(labels, answers),
            "sensitivity": metrics.recall_score(labels, answers),
            "specificity": metrics.recall_score(labels, answers, pos_label=0),
            "accuracy": metrics.accuracy_score(labels, answers),
            "balanced_accuracy": metrics.balanced_accuracy_score(labels, answers),
        }
        for one, value in expected.items():
            assert card.find(one, name).value == pytest.approx(value), one
        assert card.find("auroc", name).num_positive == int(labels.sum())


def test_the_threshold_is_chosen_on_validation_alone() -> None:
    validation = multilabel(seed=2)
    said = multilabel(seed=1)
    flipped = replace(said, labels=1 - said.labels)
    assert choose_thresholds(said, validation=validation) == choose_thresholds(flipped, validation=validation)
    assert choose_thresholds(said, validation=None).values == dict.fromkeys(said.classes, 0.5)


def test_scores_that_are_no_probabilities_have_no_calibration_error_and_no_threshold_of_one_half() -> None:
    said = replace(multilabel(), calibrated=False)
    card = score(said, draws=5)
    assert np.isnan(card.find("calibration_error").value)
    assert np.isnan(card.find("f1").value)
    assert any("no F1" in remark for remark in card.remarks)
    assert score(said, validation=said, draws=5).find("f1").value > 0


def test_calibration_error_is_the_weighted_distance_of_confidence_and_share_over_bins() -> None:
    said = multiclass()
    card = score(said, draws=5)

    def expected(probability: np.ndarray, right: np.ndarray) -> float:
        bins = np.minimum((probability.astype(np.float64) * BINS).astype(int), BINS - 1)
        parts = [
            (bins == b).mean() * abs(probability[bins == b].mean(dtype=np.float64) - right[bins == b].mean())
            for b in np.unique(bins)
        ]
        return float(sum(parts))

    right = said.scores.argmax(axis=1) == said.labels
    assert card.find("calibration_error").value == pytest.approx(expected(said.scores.max(axis=1), right), abs=1e-6)
    binary = score(multilabel(), draws=5)
    said = multilabel()
    by_class = []
    for i in range(2):
        known = ~np.isnan(said.labels[:, i])
        by_class.append(expected(said.scores[known, i], said.labels[known, i]))
        assert binary.find("calibration_error", said.classes[i]).value == pytest.approx(by_class[i], abs=1e-6)
    assert binary.find("calibration_error").value == pytest.approx(np.mean(by_class), abs=1e-6)


@pytest.mark.parametrize("said", [multilabel(signal=2.0), multiclass()], ids=["multilabel", "multiclass"])
def test_the_number_that_chose_is_the_number_that_is_reported(said: Predictions) -> None:
    card = score(said, validation=said, draws=5)
    for name in ("macro_auroc", "macro_auprc", "macro_f1", "macro_sensitivity_at_specificity"):
        assert card.find(name.removeprefix("macro_")).value == pytest.approx(METRICS[name](said)), name
    if said.task == "multiclass":
        for name in ("accuracy", "balanced_accuracy"):
            assert card.find(name).value == pytest.approx(METRICS[name](said))


def test_a_replicate_is_the_score_of_the_patients_pictures_copied_as_often_as_they_were_drawn() -> None:
    said = multilabel(num=80, num_patients=20)
    draws = PatientDraws.of(said.patients, draws=12, seed=3)
    made = replicate_predictions(said, draws=draws, thresholds=choose_thresholds(said, validation=None))
    weights = np.concatenate(list(draws.chunks()), axis=1)
    assert weights.shape == (draws.num_patients, 13)
    assert (weights.sum(axis=0) == draws.num_patients).all()
    for replicate in range(13):
        rows = np.repeat(np.arange(80), weights[draws.units, replicate].astype(int))
        for i, name in enumerate(said.classes):
            labels, scores = said.labels[rows, i], said.scores[rows, i]
            assert made.of("auroc", name)[replicate] == pytest.approx(auroc(labels, scores))
            assert made.of("auprc", name)[replicate] == pytest.approx(auprc(labels, scores))
            known = ~np.isnan(labels)
            assert made.of("f1", name)[replicate] == pytest.approx(
                metrics.f1_score(labels[known], scores[known] >= 0.5)
            )


def test_a_replicate_without_a_class_is_left_out_for_it_and_does_not_shift_the_mean() -> None:
    said = multilabel(num=60, num_patients=60, prevalence=(0.5, 0.5))
    labels = said.labels.copy()
    labels[:, 1] = 0
    labels[0, 1] = 1  # one positive: a third of the replicates has none
    said = replace(said, labels=labels)
    draws = PatientDraws.of(said.patients, draws=200, seed=0)
    made = replicate_predictions(said, draws=draws, thresholds=choose_thresholds(said, validation=None))
    first, second = (made.of("auroc", name) for name in said.classes)
    missing = np.isnan(second)
    assert 0.2 < missing.mean() < 0.55
    assert not np.isnan(first).any()
    macro = made.of("auroc", MACRO)
    assert macro[missing] == pytest.approx((first[missing] + second[0]) / 2)


def test_the_same_seed_gives_the_same_intervals_and_another_seed_others() -> None:
    said = multilabel()
    assert score(said, draws=40, seed=1).scores == score(said, draws=40, seed=1).scores
    assert score(said, draws=40, seed=1).find("auroc").low != score(said, draws=40, seed=2).find("auroc").low


def test_intervals_are_wider_where_pictures_of_a_patient_are_alike() -> None:
    """Every picture five times: pictures drawn one by one would make the interval too narrow."""
    said = multilabel(num=100, num_patients=100)
    five = np.repeat(np.arange(100), 5)
    told = {
        "labels": said.labels[five],
        "scores": said.scores[five],
        "groups": {},
        "ids": np.asarray([str(i) for i in range(500)]),
    }
    by_patient = score(replace(said, patients=said.patients[five], **told), draws=200).find("auroc")
    by_picture = score(replace(said, patients=told["ids"], **told), draws=200).find("auroc")
    once = score(replace(said, groups={}), draws=200).find("auroc")
    assert by_patient.interval == pytest.approx(once.interval)
    assert by_picture.high - by_picture.low < 0.7 * (by_patient.high - by_patient.low)


def test_the_interval_holds_the_true_auroc_about_as_often_as_it_says() -> None:
    """Two normal distributions one apart: the true AUROC is the normal distribution function of 1 / sqrt(2)."""
    rng = np.random.default_rng(0)
    held = []
    for seed in range(150):
        labels = (np.arange(120) % 2).astype(np.float32)[:, None]
        scores = (rng.normal(size=(120, 1)) + labels).astype(np.float32)
        ids = np.asarray([str(i) for i in range(120)])
        said = Predictions(
            task="multilabel", classes=("x",), ids=ids, patients=ids, labels=labels, scores=scores, calibrated=False
        )
        found = score(said, draws=200, seed=seed).find("auroc", "x")
        held.append(found.low <= 0.7602 <= found.high)
    assert 0.88 <= np.mean(held) <= 0.99


def test_an_interval_needs_values_in_half_of_the_replicates() -> None:
    values = np.asarray([0.5, 0.4, np.nan, np.nan, 0.6])
    assert interval(values).value == 0.5
    assert not np.isnan(interval(values).low)
    assert np.isnan(interval(np.asarray([0.5, 0.4, np.nan, np.nan, np.nan])).low)
    assert np.isnan(interval(np.asarray([0.5])).high)


def test_a_mean_over_rows_has_an_interval_by_patient_and_leaves_out_what_is_not_known() -> None:
    found = mean_interval([1.0, 0.0, np.nan, 1.0], ["a", "b", "b", "c"], draws=100, seed=0)
    assert found.value == pytest.approx(2 / 3)
    assert found.low <= found.value <= found.high


def test_one_picture_keeps_its_dimension() -> None:
    for said in (multilabel(num=1), multiclass(num=1), segmentations(num=1)):
        card = score(said, draws=5)
        assert card.num_pictures == 1
        assert card.num_patients == 1
    assert METRICS["accuracy"](multiclass(num=1)) in (0.0, 1.0) or np.isnan(METRICS["accuracy"](multiclass(num=1)))
    assert score(segmentations(num=1), draws=5).find("dice", "lungs").value > 0


def test_scores_of_a_diverged_fit_are_missing_and_named() -> None:
    said = multilabel()
    scores = said.scores.copy()
    scores[3, 1] = np.nan
    card = score(replace(said, scores=scores), draws=5)
    assert np.isnan(card.find("auroc", said.classes[1]).value)
    assert np.isnan(card.find("auroc").value)
    assert any(said.classes[1] in remark and "no numbers" in remark for remark in card.remarks)


def test_classes_of_few_pictures_are_named_with_their_count() -> None:
    said = multilabel()
    labels = said.labels.copy()
    labels[:, 1] = 0
    labels[:3, 1] = 1
    remarks = score(replace(said, labels=labels), draws=5).remarks
    assert any("too few pictures" in remark and "finding 1 3" in remark for remark in remarks)
    assert not any("too few" in remark for remark in score(said, draws=5).remarks)
