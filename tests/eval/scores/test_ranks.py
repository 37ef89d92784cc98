"""Scores of the order agree with scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from dinov2.eval.scores import auprc, auroc, best_threshold, sensitivity_at_specificity

ROWS = st.lists(
    st.tuples(st.booleans(), st.integers(0, 6), st.integers(1, 5)), min_size=2, max_size=40
)  # few different scores: many ties


@settings(max_examples=80, deadline=None)
@given(ROWS)
def test_auroc_auprc_and_sensitivity_agree_with_scikit_learn_with_ties_and_weights(rows: list) -> None:
    labels, scores, weights = (np.asarray(column, dtype=np.float64) for column in zip(*rows, strict=True))
    if labels.min() == labels.max():
        assert np.isnan(auroc(labels, scores, weights=weights))
        return
    assert auroc(labels, scores, weights=weights) == pytest.approx(
        metrics.roc_auc_score(labels, scores, sample_weight=weights)
    )
    assert auprc(labels, scores, weights=weights) == pytest.approx(
        metrics.average_precision_score(labels, scores, sample_weight=weights)
    )
    false, true, _ = metrics.roc_curve(labels, scores, sample_weight=weights, drop_intermediate=False)
    for specificity in (0.5, 0.9, 1.0):
        found = sensitivity_at_specificity(labels, scores, specificity=specificity, weights=weights)
        assert found == pytest.approx(true[1 - false >= specificity - 1e-9].max())


@settings(max_examples=15, deadline=None)
@given(ROWS)
def test_the_best_threshold_has_the_highest_f1_of_all(rows: list) -> None:
    labels, scores, _ = (np.asarray(column) for column in zip(*rows, strict=True))
    if labels.min() == labels.max():
        assert np.isnan(best_threshold(labels, scores))
        return
    found = metrics.f1_score(labels, scores >= best_threshold(labels, scores))
    assert found == pytest.approx(max(metrics.f1_score(labels, scores >= bar) for bar in np.unique(scores)))


def test_a_weight_of_two_is_the_row_twice() -> None:
    labels, scores = np.asarray([1, 0, 1, 0, 0]), np.asarray([0.9, 0.8, 0.3, 0.3, 0.1])
    weights = np.asarray([2, 1, 1, 3, 1])
    for score in (auroc, auprc, sensitivity_at_specificity):
        assert score(labels, scores, weights=weights) == pytest.approx(
            score(np.repeat(labels, weights), np.repeat(scores, weights))
        )


def test_labels_that_are_not_known_do_not_count() -> None:
    labels, scores = np.asarray([1, np.nan, 0, 1, np.nan]), np.asarray([0.9, 0.99, 0.2, 0.1, np.nan])
    assert auroc(labels, scores) == auroc([1, 0, 1], [0.9, 0.2, 0.1])
    assert auprc(labels, scores) == auprc([1, 0, 1], [0.9, 0.2, 0.1])


@pytest.mark.parametrize("labels", [[1, 1, 1], [0, 0, 0], [np.nan, np.nan, 1]])
def test_a_class_without_positives_or_negatives_has_no_score_and_not_a_zero(labels: list[float]) -> None:
    for score in (auroc, auprc, sensitivity_at_specificity):
        assert np.isnan(score(labels, [0.1, 0.2, 0.3]))


def test_a_score_that_is_no_number_gives_no_auroc_and_does_not_rank_best() -> None:
    assert np.isnan(auroc([1, 0, 1], [np.nan, 0.2, 0.1]))
