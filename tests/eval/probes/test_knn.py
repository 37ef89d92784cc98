"""Nearest neighbours give the answer of a plain computation, and the planted one."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.neighbors import KNeighborsClassifier

from dinov2.errors import ConfigError
from dinov2.eval.examples import UNCERTAIN
from dinov2.eval.features import Features, Labelled
from dinov2.eval.probes import knn
from dinov2.eval.probes.judging import About, judge
from dinov2.eval.probes.knn import KnnProbe, candidates_for, knn_scores, nearest, tokens_of
from dinov2.eval.scores import auroc
from tests.eval.pictures.made import examples_of

Array = NDArray[Any]
ABOUT = About(probe="knn", backbone="made", settings={})


def unit(array: Array) -> Array:
    return array / np.linalg.norm(array, axis=1, keepdims=True)


def draw(count: int, *, width: int = 8, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)


def labelled(inputs: Array, labels: Array, *, name: str, task: Any = "multilabel", num_classes: int = 2) -> Labelled:
    pictures = [np.zeros((2, 2), dtype=np.uint8)] * len(inputs)
    classes = [f"class{place}" for place in range(num_classes)]
    examples = examples_of(pictures, labels=labels, classes=classes, task=task, name=name)
    return Labelled(Features(cls=inputs[:, None].astype(np.float32), pooled=None), examples)


def plain(bank: Array, labels: Array, query: Array, *, k: int, temperature: float) -> Array:
    """One query, in a loop."""
    similarity = unit(bank.astype(float)) @ unit(query[None].astype(float))[0]
    near = sorted(range(len(bank)), key=lambda row: (-similarity[row], row))[:k]
    total, counted = np.zeros(labels.shape[1]), np.zeros(labels.shape[1])
    for row in near:
        weight = np.exp(similarity[row] / temperature)
        for place, label in enumerate(labels[row]):
            if not np.isnan(label) and label != UNCERTAIN:
                total[place] += weight * label
                counted[place] += weight
    return total / counted


def test_multi_label_scores_equal_a_loop_over_neighbours() -> None:
    rng = np.random.default_rng(1)
    bank, queries = draw(60), draw(9, seed=2)
    labels = rng.choice([0.0, 1.0, np.nan, UNCERTAIN], p=[0.4, 0.4, 0.1, 0.1], size=(60, 3))
    scores = knn_scores(
        bank, labels.astype(np.float32), queries, k=20, temperature=0.2, task="multilabel", num_classes=3
    )
    expected = np.stack([plain(bank, labels, query, k=20, temperature=0.2) for query in queries])
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_single_label_votes_equal_scikit_learn() -> None:
    bank, queries = draw(80), draw(15, seed=3)
    labels = np.random.default_rng(4).integers(0, 4, 80)
    temperature = 0.1
    theirs = KNeighborsClassifier(
        10, weights=lambda squared: np.exp((1 - squared**2 / 2) / temperature), algorithm="brute"
    ).fit(unit(bank), labels)
    ours = knn_scores(bank, labels, queries, k=10, temperature=temperature, task="multiclass", num_classes=4)
    np.testing.assert_allclose(ours, theirs.predict_proba(unit(queries)), atol=1e-4)
    np.testing.assert_allclose(ours.sum(dim=1), 1, atol=1e-5)


def test_a_batch_of_one_query_keeps_its_dimension_and_its_answer() -> None:
    bank, queries, labels = draw(30), draw(5, seed=1), (draw(30, width=2) > 0).astype(np.float32)
    arguments: dict[str, Any] = {"k": 5, "temperature": 0.07, "task": "multilabel", "num_classes": 2}
    together = knn_scores(bank, labels, queries, **arguments)
    for row in range(5):
        alone = knn_scores(bank, labels, queries[row : row + 1], **arguments)
        assert alone.shape == (1, 2)
        torch.testing.assert_close(alone[0], together[row], atol=1e-5, rtol=0)


def test_of_equally_near_pictures_the_earlier_comes_first() -> None:
    bank = np.tile(np.asarray([[1.0, 0.0], [0.0, 1.0]], dtype=np.float32), (50, 1))
    found = nearest(bank, np.asarray([[1.0, 0.0], [1.0, 0.0]], dtype=np.float32), k=7)
    assert found.rows.tolist() == [[0, 2, 4, 6, 8, 10, 12]] * 2
    everything = nearest(bank, bank[:1], k=100)
    assert everything.rows[0].tolist() == [*range(0, 100, 2), *range(1, 100, 2)]


def test_chunks_of_queries_give_what_one_product_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    bank, queries = draw(40), draw(23, seed=5)
    whole = nearest(bank, queries, k=6)
    monkeypatch.setattr(knn, "MAX_PRODUCT", 40 * 4)
    parts = nearest(bank, queries, k=6)
    assert torch.equal(whole.rows, parts.rows)
    torch.testing.assert_close(whole.similarity, parts.similarity)


def test_a_small_temperature_does_not_overflow() -> None:
    bank, labels = draw(10), np.arange(10) % 2
    scores = knn_scores(bank, labels, bank[:3], k=5, temperature=1e-3, task="multiclass", num_classes=2)
    np.testing.assert_allclose(scores.numpy().argmax(axis=1), labels[:3])
    assert scores.isfinite().all()


def test_a_class_that_no_neighbour_states_gets_its_share_in_the_bank() -> None:
    bank = np.asarray([[1, 0], [1, 0.1], [0, 1], [0.1, 1], [0.2, 1]], dtype=np.float32)
    labels = np.asarray([[np.nan, 1], [UNCERTAIN, 1], [1, 0], [0, 0], [0, 0]], dtype=np.float32)
    scores = knn_scores(bank, labels, bank[:1], k=2, temperature=0.1, task="multilabel", num_classes=2)
    np.testing.assert_allclose(scores, [[1 / 3, 1]], atol=1e-6)


def planted(count: int, *, seed: int, name: str) -> Labelled:
    """Class 0 is the sign of a direction that neighbours agree on; class 1 is chance."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, (count, 2)).astype(np.float32)
    inputs = rng.normal(size=(count, 6)).astype(np.float32)
    inputs[:, 0] += 6 * (2 * labels[:, 0] - 1)
    return labelled(inputs, labels, name=name)


def test_a_planted_direction_is_found_and_chance_is_not() -> None:
    splits = tuple(planted(200, seed=seed, name=name) for seed, name in enumerate(("train", "val", "test")))
    outcome, _ = judge(
        KnnProbe(),
        about=ABOUT,
        candidates=candidates_for(200, temperatures=[0.07]),
        splits=splits,
        join=Labelled.joined,
    )
    test: Any = outcome.test
    assert auroc(test.labels[:, 0], test.scores[:, 0]) > 0.99
    assert abs(auroc(test.labels[:, 1], test.scores[:, 1]) - 0.5) < 0.12
    assert outcome.fitted_on == "train + val"
    assert len(outcome.trail) == 6


def test_validation_pictures_join_the_neighbours_for_the_test() -> None:
    train = labelled(np.asarray([[1.0, 0.0], [0.0, 1.0]]), np.asarray([0, 1]), name="train", task="multiclass")
    val = labelled(np.asarray([[1.0, 0.05], [-1.0, 0.0]]), np.asarray([1, 0]), name="val", task="multiclass")
    test = labelled(np.asarray([[-1.0, -0.1]]), np.asarray([0]), name="test", task="multiclass")
    arguments: dict[str, Any] = {"about": ABOUT, "candidates": [{"k": 1, "temperature": 0.07}], "join": Labelled.joined}
    joined, _ = judge(KnnProbe(), splits=(train, val, test), **arguments)
    alone, _ = judge(KnnProbe(), splits=(train, val, test), refit=False, **arguments)
    assert joined.test.scores.tolist() == [[1, 0]]  # type: ignore[union-attr]
    assert alone.test.scores.tolist() == [[0, 1]]  # type: ignore[union-attr]


def test_shuffled_test_labels_change_nothing_of_what_was_chosen() -> None:
    train, val, test = (planted(60, seed=seed, name=name) for seed, name in enumerate(("train", "val", "test")))
    shuffled = labelled(test.features.cls[:, 0], test.examples.labels[::-1], name="test")
    candidates = candidates_for(60, ks=(1, 5, 20), temperatures=[0.05, 0.5])
    results = [
        judge(KnnProbe(), about=ABOUT, candidates=candidates, splits=(train, val, one), join=Labelled.joined)[0]
        for one in (test, shuffled)
    ]
    assert results[0].chosen == results[1].chosen
    assert results[0].trail == results[1].trail
    np.testing.assert_array_equal(results[0].test.scores, results[1].test.scores)  # type: ignore[union-attr]


def test_several_candidates_without_validation_are_refused() -> None:
    train, test = planted(60, seed=0, name="train"), planted(60, seed=1, name="test")
    with pytest.raises(ConfigError, match="no validation split"):
        judge(
            KnnProbe(),
            about=ABOUT,
            candidates=candidates_for(60, temperatures=[0.07]),
            splits=(train, None, test),
            join=Labelled.joined,
        )


def test_uncertain_labels_of_test_are_not_counted() -> None:
    train = planted(60, seed=0, name="train")
    labels = np.asarray([[UNCERTAIN, 1], [0, np.nan]], dtype=np.float32)
    test = labelled(draw(2, width=6), labels, name="test")
    outcome, _ = judge(
        KnnProbe(),
        about=ABOUT,
        candidates=[{"k": 5, "temperature": 0.07}],
        splits=(train, None, test),
        join=Labelled.joined,
    )
    np.testing.assert_array_equal(np.isnan(outcome.test.labels), [[True, False], [False, True]])  # type: ignore[union-attr]


def test_ks_beyond_the_bank_are_left_out_and_wrong_ones_refused() -> None:
    assert [one["k"] for one in candidates_for(60, temperatures=[0.07])] == [5, 10, 20, 50]
    with pytest.raises(ConfigError, match="there are 3 training pictures"):
        candidates_for(3, temperatures=[0.07])
    with pytest.raises(ConfigError, match="--k 0"):
        candidates_for(60, ks=(0, 5), temperatures=[0.07])
    with pytest.raises(ConfigError, match="temperature 0"):
        candidates_for(60, temperatures=[0.0])


def test_pooled_tokens_of_a_backbone_without_patches_are_refused() -> None:
    features = Features(cls=draw(4)[:, None], pooled=None)
    with pytest.raises(ConfigError, match="no patch tokens"):
        tokens_of(features, "both")
    both = tokens_of(Features(cls=draw(4)[:, None] * 9, pooled=draw(4, seed=1)[:, None]), "both")
    np.testing.assert_allclose(np.linalg.norm(both[:, :8], axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(both[:, 8:], axis=1), 1, rtol=1e-5)
