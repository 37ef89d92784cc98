"""The number that chooses."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn import metrics

from dinov2.eval.scores import METRICS, macro_auroc
from tests.eval.scores.made import multiclass, multilabel


def test_a_class_without_positives_is_left_out_of_the_mean_and_does_not_count_as_zero() -> None:
    whole = multilabel(prevalence=(0.3, 0.5))
    labels = np.concatenate([whole.labels, np.zeros((len(whole.ids), 1), np.float32)], axis=1)
    scores = np.concatenate([whole.scores, whole.scores[:, :1]], axis=1)
    more = replace(whole, classes=(*whole.classes, "Hernia"), labels=labels, scores=scores)
    for name, metric in METRICS.items():
        assert metric(more) == pytest.approx(metric(whole)), name
        assert metric(whole) > 0.3


def test_macro_auroc_of_many_classes_is_scikit_learns_one_against_the_rest() -> None:
    said = multiclass(num_classes=4)
    assert macro_auroc(said) == pytest.approx(
        metrics.roc_auc_score(said.labels, said.scores, multi_class="ovr", average="macro")
    )


def test_scores_of_the_likeliest_class_agree_with_scikit_learn() -> None:
    said = multiclass()
    answers = said.scores.argmax(axis=1)
    assert METRICS["accuracy"](said) == pytest.approx(metrics.accuracy_score(said.labels, answers))
    assert METRICS["balanced_accuracy"](said) == pytest.approx(metrics.balanced_accuracy_score(said.labels, answers))
    assert METRICS["macro_f1"](said) == pytest.approx(metrics.f1_score(said.labels, answers, average="macro"))


def test_multi_label_accuracies_are_at_one_half() -> None:
    said = multilabel(signal=2.0)
    known = ~np.isnan(said.labels)
    for name, score in (("accuracy", metrics.accuracy_score), ("balanced_accuracy", metrics.balanced_accuracy_score)):
        by_class = [
            score(said.labels[known[:, i], i], said.scores[known[:, i], i] >= 0.5) for i in range(len(said.classes))
        ]
        assert METRICS[name](said) == pytest.approx(np.mean(by_class))


def test_a_fit_that_diverged_has_no_metric() -> None:
    said = multilabel()
    scores = said.scores.copy()
    scores[:, 1] = np.nan
    for name, metric in METRICS.items():
        assert np.isnan(metric(replace(said, scores=scores))), name
    assert all(
        np.isnan(metric(replace(multiclass(), scores=multiclass().scores * np.nan))) for metric in METRICS.values()
    )


def test_pictures_of_many_classes_without_a_label_do_not_count() -> None:
    said = multiclass()
    labels = said.labels.copy()
    labels[:50] = np.nan
    rest = replace(
        said, labels=said.labels[50:], scores=said.scores[50:], ids=said.ids[50:], patients=said.patients[50:]
    )
    for metric in METRICS.values():
        assert metric(replace(said, labels=labels)) == metric(rest)
