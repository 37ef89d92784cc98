"""R@k and P@k of planted neighbours."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dinov2.errors import ConfigError
from dinov2.eval.features import Features, Labelled
from dinov2.eval.probes.retrieval import Found, retrieve
from tests.eval.pictures.made import examples_of

ANGLES = (0.0, 1.0, 2.0, 3.0, 50.0, 51.0)


def on_circle(
    angles: tuple[float, ...], labels: Any, *, task: Any = "multiclass", patients: Any = None, name: str = "films"
) -> Labelled:
    radians = np.deg2rad(angles)
    inputs = np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)
    labels = np.asarray(labels, dtype=np.float32)
    classes = ("a", "b", "c") if task == "multiclass" else tuple("abc")[: labels.shape[1]]
    examples = examples_of(
        [np.zeros((2, 2), dtype=np.uint8)] * len(angles),
        labels=labels,
        classes=classes,
        task=task,
        patients=patients,
        name=name,
    )
    return Labelled(Features(cls=inputs[:, None], pooled=None), examples)


def values(found: Found, ks: tuple[int, ...]) -> dict[str, float]:
    return {name: one.value for name, one in found.scores(ks, draws=20, seed=0).items()}


def test_planted_neighbours_give_the_shares_counted_by_hand() -> None:
    queries = on_circle((0.2, 50.2), [0, 1], name="test")
    gallery = on_circle(ANGLES, [0, 1, 0, 1, 0, 1])
    scores = values(retrieve(queries, gallery, most=3), (1, 2, 3))
    # 0.2: rows 0 1 2 are a b a; 50.2: rows 4 5 3 are a b b
    assert scores == pytest.approx(
        {"R@1": 0.5, "R@2": 1.0, "R@3": 1.0, "P@1": 0.5, "P@2": 0.5, "P@3": (2 / 3 + 2 / 3) / 2}
    )


def test_a_picture_never_finds_itself() -> None:
    split = on_circle(ANGLES, [0, 0, 1, 1, 2, 2])
    found = retrieve(split, None, most=5)
    assert all(row not in near for row, near in enumerate(found.neighbours.rows.tolist()))
    assert found.neighbours.rows[0].tolist() == [1, 2, 3, 4, 5]


def test_pictures_that_nothing_is_relevant_to_are_left_out_and_counted() -> None:
    queries = on_circle((0.1, 50.0), [0, 2], name="test")
    found = retrieve(queries, on_circle(ANGLES, [0, 1, 0, 1, 0, 1]), most=1)
    assert found.findable.tolist() == [True, False]
    assert values(found, (1,)) == {"R@1": 1.0, "P@1": 1.0}


def test_the_only_picture_of_a_class_has_nothing_to_find_among_the_others() -> None:
    found = retrieve(on_circle(ANGLES, [0, 0, 0, 0, 0, 1]), None, most=1)
    assert found.findable.tolist() == [True] * 5 + [False]


def test_multi_label_pictures_are_relevant_that_share_a_positive_label() -> None:
    labels = [[1, 1], [0, 1], [1, 0], [0, 0], [0, np.nan], [1, -1]]
    queries = on_circle((0.1, 49.0), [[0, 1], [0, 0]], task="multilabel", name="test")
    found = retrieve(queries, on_circle(ANGLES, labels, task="multilabel"), most=6)
    assert found.findable.tolist() == [True, False]
    assert found.relevant[0].tolist() == [True, True, False, False, False, False]
    assert found.by_class((1,))["b"] == {"queries": 1.0, "R@1": 1.0, "P@1": 1.0}
    assert found.by_class((1,))["a"] == {"queries": 0.0}


def test_another_picture_of_the_patient_is_what_is_looked_for() -> None:
    patients = ["p", "q", "p", "r", "s", "s"]
    found = retrieve(on_circle(ANGLES, [0] * 6, patients=patients), None, most=2, by="patient")
    assert found.findable.tolist() == [True, False, True, False, True, True]
    assert values(found, (1, 2)) == pytest.approx({"R@1": 0.5, "R@2": 0.75, "P@1": 0.5, "P@2": 0.375})


def test_no_picture_with_anything_to_find_is_refused() -> None:
    with pytest.raises(ConfigError, match="no picture has another picture of its patient"):
        retrieve(on_circle(ANGLES, [0] * 6), None, most=1, by="patient")


def test_more_neighbours_than_pictures_are_refused() -> None:
    with pytest.raises(ConfigError, match="there are 5 pictures to be near to"):
        retrieve(on_circle(ANGLES, [0] * 6), None, most=6)


def test_features_without_meaning_retrieve_at_the_rate_of_the_class() -> None:
    rng = np.random.default_rng(0)
    labels: NDArray[Any] = (rng.random(400) < 0.3).astype(np.float32)
    angles = tuple(float(angle) for angle in rng.uniform(0, 360, 400))
    share = values(retrieve(on_circle(angles, labels), None, most=10), (10,))["P@10"]
    assert share == pytest.approx(0.7**2 + 0.3**2, abs=0.05)
