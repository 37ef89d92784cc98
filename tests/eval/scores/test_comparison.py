"""Two results on the same pictures."""

from dataclasses import replace

import numpy as np
import pytest

from dinov2.errors import ConfigError
from dinov2.eval.scores import MACRO, Side, compare
from dinov2.eval.scores.comparison import take, two_sided_p
from tests.eval.scores.made import multiclass, multilabel, segmentations


@pytest.mark.parametrize("said", [multilabel(), multiclass(), segmentations()], ids=["labels", "classes", "masks"])
def test_a_result_does_not_differ_from_itself(said: object) -> None:
    found = compare(Side("a", said), Side("b", said), draws=50)
    assert {one.class_name for one in found} == {MACRO, *said.classes}
    assert all(tuple(one.value) == (0.0, 0.0, 0.0) and one.p == 1.0 and one.better == 0 for one in found)


def test_order_of_the_pictures_does_not_matter() -> None:
    one, two = multilabel(), multilabel(signal=0.5)
    two = replace(two, labels=one.labels)
    mixed = take(two, np.random.default_rng(0).permutation(len(two.ids)))
    assert compare(Side("a", one), Side("b", two), draws=30) == compare(Side("a", one), Side("b", mixed), draws=30)


def test_a_better_result_is_said_to_be_better_and_the_sign_turns_with_the_sides() -> None:
    one = multilabel(signal=3.0)
    two = replace(one, scores=multilabel(signal=0.3).scores)
    found = {(d.class_name, d.name): d for d in compare(Side("a", one), Side("b", two), draws=200)}
    back = {(d.class_name, d.name): d for d in compare(Side("b", two), Side("a", one), draws=200)}
    first, turned = found[MACRO, "auroc"], back[MACRO, "auroc"]
    assert (first.better, turned.better) == (1, -1)
    assert first.value.low > 0
    assert turned.value.value == pytest.approx(-first.value.value)
    assert first.p == pytest.approx(2 / 201)


def test_less_is_better_for_distances() -> None:
    one = segmentations()
    two = replace(one, hausdorff95=one.hausdorff95 + 3)
    found = {(d.class_name, d.name): d for d in compare(Side("a", one), Side("b", two), draws=100)}
    assert found[MACRO, "hausdorff95"].value.value == pytest.approx(-3)
    assert found[MACRO, "hausdorff95"].better == 1
    assert found[MACRO, "dice"].better == 0


def test_two_noises_are_rarely_told_apart() -> None:
    told = []
    for seed in range(40):
        one = multilabel(num=120, num_patients=120, prevalence=(0.4,), signal=0, seed=seed)
        two = replace(one, scores=np.random.default_rng(1000 + seed).random(one.scores.shape).astype(np.float32))
        found = compare(Side("a", one), Side("b", two), draws=100, seed=seed)
        told.append(next(d for d in found if d.name == "auroc").better != 0)
    assert np.mean(told) <= 0.15


def test_p_counts_the_replicates_on_the_rarer_side() -> None:
    assert two_sided_p(np.asarray([1.0, 2.0, 3.0, -1.0])) == pytest.approx(2 * 2 / 5)
    assert two_sided_p(np.asarray([1.0, np.nan, 2.0])) == pytest.approx(2 / 3)
    assert np.isnan(two_sided_p(np.asarray([np.nan])))


def test_other_pictures_labels_classes_or_tasks_are_refused_with_numbers() -> None:
    one = multilabel()
    fewer = take(one, np.arange(250))
    other = one.labels.copy()
    other[:7, 0] = np.where(other[:7, 0] == 1, 0, 1)
    patients = one.patients.copy()
    patients[:4] = "somebody"
    twice = replace(one, ids=np.full(300, "same"))
    for two, words in (
        (fewer, "of 300 and 250 pictures 250 are in both"),
        (replace(one, labels=other), "7 of 300 pictures have other labels"),
        (replace(one, classes=("b", "a")), "the same --labels"),
        (replace(one, patients=patients), "4 of 300 pictures are of another patient"),
        (multiclass(), "Compare results of one task"),
        (segmentations(), "Compare results of one task"),
        (twice, "299 ids are there twice"),
    ):
        with pytest.raises(ConfigError, match=words):
            compare(Side("a", one), Side("b", two), draws=5)
    masks = segmentations()
    larger = replace(masks, false_negatives=masks.false_negatives + 1)
    with pytest.raises(ConfigError, match="40 of 40 pictures have other masks"):
        compare(Side("a", masks), Side("b", larger), draws=5)
