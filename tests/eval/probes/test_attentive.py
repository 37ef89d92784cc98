import numpy as np
import pytest
import torch

from dinov2.errors import ConfigError
from dinov2.eval.examples import UNCERTAIN
from dinov2.eval.features import Features, Labelled
from dinov2.eval.probes.attentive import AttentiveProbe, AttentiveSettings
from dinov2.eval.probes.judging import About, judge
from dinov2.eval.scores import macro_auroc
from tests.eval.probes.planted import planted, splits, with_labels

ABOUT = About(probe="attentive", backbone="planted", settings={})
QUICK = AttentiveSettings(epochs=20, batch_size=32)


@pytest.mark.parametrize("task", ["multilabel", "multiclass"])
def test_what_one_patch_alone_knows_is_found_and_the_better_learning_rate_is_chosen(task: str) -> None:
    outcome, _ = judge(
        AttentiveProbe(settings=QUICK),
        about=ABOUT,
        candidates=[{"learning_rate": 1e-6}, {"learning_rate": 1e-2}],
        splits=splits(task),
        join=Labelled.joined,
    )
    assert outcome.chosen["learning_rate"] == 1e-2
    assert macro_auroc(outcome.test) > 0.9


def test_a_head_does_not_depend_on_the_others_of_the_grid() -> None:
    split = planted(60, name="train")
    probe = AttentiveProbe(settings=AttentiveSettings(epochs=2, batch_size=32))
    together = probe.fit([{"learning_rate": 1e-3}, {"learning_rate": 1e-2}], split)[1]
    alone = probe.fit([{"learning_rate": 1e-2}], split)[0]
    for one, other in zip(together.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_fitting_leaves_the_random_state_of_the_process_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    AttentiveProbe(settings=AttentiveSettings(epochs=1)).fit([{"learning_rate": 1e-3}], planted(20, name="train"))
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize("task", ["multilabel", "multiclass"])
def test_one_picture_keeps_its_dimension_in_training_and_in_predicting(task: str) -> None:
    split = planted(33, name="train", task=task)
    probe = AttentiveProbe(settings=AttentiveSettings(epochs=1, batch_size=32, num_queries=2))
    fitted = probe.fit([{"learning_rate": 1e-3}], split)[0]
    assert probe.predict(fitted, split.take([4])).scores.shape == (1, 3)


def test_the_batch_of_predicting_does_not_change_what_is_predicted() -> None:
    split = planted(50, name="train")
    fitted = AttentiveProbe(settings=QUICK).fit([{"learning_rate": 1e-2}], split)[0]
    small = AttentiveProbe(settings=AttentiveSettings(batch_size=7)).predict(fitted, split)
    large = AttentiveProbe(settings=AttentiveSettings(batch_size=50)).predict(fitted, split)
    np.testing.assert_allclose(small.scores, large.scores, atol=1e-6)


def test_an_output_of_its_own_for_uncertain_labels_is_trained_and_left_aside() -> None:
    split = planted(60, name="train")
    labels = split.examples.labels.copy()
    labels[::5] = UNCERTAIN
    probe = AttentiveProbe(settings=AttentiveSettings(epochs=1, policy="own-class"))
    fitted = probe.fit([{"learning_rate": 1e-3}], with_labels(split, labels))[0]
    assert fitted.linear.out_features == 9
    assert probe.predict(fitted, split).scores.shape == (60, 3)


def test_features_without_patches_are_refused() -> None:
    split = planted(4, name="train")
    bare = Labelled(Features(cls=split.features.cls, pooled=None), split.examples)
    with pytest.raises(ConfigError, match="no patch tokens"):
        AttentiveProbe(settings=QUICK).fit([{"learning_rate": 1e-3}], bare)
