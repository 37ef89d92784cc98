import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from dinov2.errors import ConfigError
from dinov2.eval.examples import UNCERTAIN
from dinov2.eval.features import Features, Labelled
from dinov2.eval.probes.judging import About, judge
from dinov2.eval.probes.linear import Candidate, cosine_share, fit_heads
from dinov2.eval.probes.linear_inputs import InputChoice, inputs_of
from dinov2.eval.probes.linear_probe import LinearProbe, LinearSettings, grid
from dinov2.eval.scores import macro_auroc
from tests.eval.probes.planted import CLASSES, DIM, planted, splits, with_labels

ABOUT = About(probe="linear", backbone="planted", settings={})
RNG = np.random.default_rng(0)


def heads(inputs: torch.Tensor, labels: np.ndarray, candidates: list[Candidate], **options: object):
    task = "multiclass" if labels.ndim == 1 else "multilabel"
    classes = 3 if labels.ndim == 1 else labels.shape[1]
    return fit_heads({"x": inputs}, labels, task=task, num_classes=classes, candidates=candidates, **options)


@pytest.mark.parametrize("task", ["multilabel", "multiclass"])
def test_a_planted_direction_is_found_and_the_block_that_holds_it_is_needed(task: str) -> None:
    outcome, _ = judge(
        LinearProbe(settings=LinearSettings()),
        about=ABOUT,
        candidates=grid(blocks=[1, 2], pooled=[True, False], learning_rates=[1e-5, 0.1]),
        splits=splits(task),
        join=Labelled.joined,
    )
    assert macro_auroc(outcome.test) > 0.99
    assert outcome.chosen["learning_rate"] == 0.1
    assert len(outcome.trail) == 8
    assert outcome.test.classes == CLASSES  # the dataset's order, not the alphabet's
    assert outcome.fitted_on == "train + val"


def test_features_that_know_nothing_stay_at_one_half() -> None:
    found = []
    for seed in range(4):
        outcome, _ = judge(
            LinearProbe(settings=LinearSettings(epochs=5)),
            about=ABOUT,
            candidates=grid(blocks=[1], pooled=[False], learning_rates=[0.01, 0.1]),
            splits=splits(signal=0.0, seed=seed),
            join=Labelled.joined,
        )
        found.append(macro_auroc(outcome.test))
    assert np.mean(found) == pytest.approx(0.5, abs=0.04)


def test_what_a_head_becomes_does_not_depend_on_the_others_of_the_grid() -> None:
    split = planted(150, name="train")
    probe = LinearProbe(settings=LinearSettings(epochs=3, batch_size=32))
    candidates = grid(blocks=[1, 2], pooled=[True, False], learning_rates=[1e-3, 0.1, 1.0], weight_decays=[0.0, 0.01])
    together = probe.fit(candidates, split)
    for place in (0, 5, 11, 23):
        alone = probe.fit([candidates[place]], split)[0]
        torch.testing.assert_close(together[place].head.weight, alone.head.weight, rtol=1e-4, atol=1e-6)


def test_a_step_is_that_of_torchs_sgd_with_momentum() -> None:
    inputs = torch.randn(20, 4, generator=torch.Generator().manual_seed(1))
    labels = (RNG.random((20, 2)) < 0.5).astype(np.float32)
    made = heads(inputs, labels, [Candidate(input="x", learning_rate=0.3)], epochs=4, batch_size=20, seed=7)[0]
    linear = torch.nn.Linear(4, 2)
    with torch.no_grad():
        linear.weight.copy_(torch.randn(4, 2, generator=torch.Generator().manual_seed(7)).T * 0.01)
        linear.bias.zero_()
    optimizer = torch.optim.SGD(linear.parameters(), lr=0.3, momentum=0.9)
    for step in range(4):
        optimizer.param_groups[0]["lr"] = 0.3 * cosine_share(step, total=4)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            linear(inputs), torch.from_numpy(labels), reduction="none"
        )
        optimizer.zero_grad()
        loss.sum(dim=1).mean().backward()
        optimizer.step()
    torch.testing.assert_close(made.weight, linear.weight.detach().T, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(made.bias, linear.bias.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("task", ["multilabel", "multiclass"])
def test_at_its_optimum_the_head_is_scikit_learns_logistic_regression(task: str) -> None:
    inputs = RNG.normal(size=(200, 5)).astype(np.float32)
    truth = inputs @ RNG.normal(size=(5, 3)) + RNG.logistic(size=(200, 3))
    if task == "multilabel":
        labels = (truth > 0).astype(np.float32)
        models = [LogisticRegression(C=1e6, tol=1e-8).fit(inputs, labels[:, one]) for one in range(3)]
        expected = np.stack([model.predict_proba(inputs)[:, 1] for model in models], axis=1)
    else:
        labels = truth.argmax(axis=1).astype(np.float32)
        expected = LogisticRegression(C=1e6, tol=1e-8).fit(inputs, labels).predict_proba(inputs)
    candidate = Candidate(input="x", learning_rate=0.5)
    made = heads(torch.from_numpy(inputs), labels, [candidate], epochs=800, batch_size=200)[0]
    np.testing.assert_allclose(made.probabilities(torch.from_numpy(inputs)), expected, atol=2e-3)


def test_scaled_inputs_are_features_of_mean_0_and_deviation_1_and_the_head_takes_them_as_they_are() -> None:
    inputs = RNG.normal(size=(90, 4)).astype(np.float32) * [1, 100, 0.01, 0] + [5, -300, 2, 3]
    labels = (RNG.random((90, 2)) < 0.5).astype(np.float32)
    spread = inputs.std(axis=0)
    ready = (inputs - inputs.mean(axis=0)) / np.where(spread > 1e-9, spread, 1)
    candidate = Candidate(input="x", learning_rate=0.1)
    raw, ready = (torch.from_numpy(values.astype(np.float32)) for values in (inputs, ready))
    scaled = heads(raw, labels, [candidate], scaling="standard")[0]
    expected = heads(ready, labels, [candidate])[0]
    np.testing.assert_allclose(scaled.probabilities(raw), expected.probabilities(ready), atol=1e-4)


def test_heads_are_trained_where_gradients_are_off_and_the_random_state_of_the_process_is_left_alone() -> None:
    labels = (RNG.random((50, 2)) < 0.5).astype(np.float32)
    inputs, candidate = (
        torch.from_numpy(RNG.normal(size=(50, 4)).astype(np.float32)),
        Candidate(input="x", learning_rate=0.1),
    )
    expected = heads(inputs, labels, [candidate])[0]
    before = torch.random.get_rng_state()
    with torch.no_grad():
        made = heads(inputs, labels, [candidate])[0]
    assert torch.equal(made.weight, expected.weight)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_weight_decay_shrinks_the_matrix() -> None:
    inputs, labels = torch.randn(50, 4), (RNG.random((50, 2)) < 0.5).astype(np.float32)
    candidates = [Candidate(input="x", learning_rate=0.1, weight_decay=decay) for decay in (0.0, 1.0)]
    free, held = heads(inputs, labels, candidates, epochs=50)
    assert held.weight.norm() < 0.5 * free.weight.norm()


def test_a_diverged_head_is_left_out_and_named() -> None:
    outcome, final = judge(
        LinearProbe(settings=LinearSettings(epochs=2)),
        about=ABOUT,
        candidates=[
            {
                "blocks": 1,
                "pooled": False,
                "learning_rate": 1e3,
                "weight_decay": 1e10,
            },  # each step is 1e13 times the last
            {"blocks": 1, "pooled": False, "learning_rate": 0.1, "weight_decay": 0.0},
        ],
        splits=splits(),
        join=Labelled.joined,
    )
    assert outcome.chosen["learning_rate"] == 0.1
    assert len(outcome.settings["diverged, so never chosen"]) == 1
    assert "learning_rate=1000.0" in outcome.settings["diverged, so never chosen"][0]
    assert np.isnan(outcome.trail[0]["validation"])
    assert not final.head.diverged


def test_a_single_setting_that_diverges_is_refused_in_words() -> None:
    train, _, test = splits()
    with pytest.raises(ConfigError, match="smaller learning rates"):
        judge(
            LinearProbe(settings=LinearSettings(epochs=2)),
            about=ABOUT,
            candidates=grid(blocks=[1], pooled=[False], learning_rates=[1e3], weight_decays=[1e10]),
            splits=(train, None, test),
            join=Labelled.joined,
        )


@pytest.mark.parametrize("task", ["multilabel", "multiclass"])
def test_one_picture_keeps_its_dimension_in_training_and_in_predicting(task: str) -> None:
    one = planted(129, name="train", task=task)  # the last batch of an epoch is one picture
    probe = LinearProbe(settings=LinearSettings(epochs=2))
    fitted = probe.fit(grid(blocks=[1], pooled=[True], learning_rates=[0.1]), one)[0]
    assert probe.predict(fitted, one.take([5])).scores.shape == (1, 3)
    alone = probe.fit(grid(blocks=[1], pooled=[True], learning_rates=[0.1]), one.take([5]))[0]
    assert np.isfinite(probe.predict(alone, one.take([5])).scores).all()


@pytest.mark.parametrize("policy", ["ignore", "zeros", "ones", "own-class", "smooth-zeros", "smooth-ones"])
def test_with_every_policy_the_planted_answer_is_found_though_a_tenth_of_the_labels_is_uncertain(policy: str) -> None:
    train, val, test = splits()
    labels = np.where(RNG.random(train.examples.labels.shape) < 0.1, UNCERTAIN, train.examples.labels)
    outcome, _ = judge(
        LinearProbe(settings=LinearSettings(policy=policy)),
        about=ABOUT,
        candidates=grid(blocks=[1], pooled=[False], learning_rates=[0.1]),
        splits=(with_labels(train, labels.astype(np.float32)), val, test),
        join=Labelled.joined,
    )
    assert macro_auroc(outcome.test) > 0.97


def test_the_policy_changes_what_is_learnt_of_uncertain_pictures() -> None:
    split = planted(200, name="train")
    labels = np.where(split.examples.labels == 1, UNCERTAIN, 0).astype(np.float32)
    labels[:30] = split.examples.labels[:30]
    means = {}
    for policy in ("zeros", "ones"):
        probe = LinearProbe(settings=LinearSettings(policy=policy, epochs=30))
        fitted = probe.fit(grid(blocks=[1], pooled=[False], learning_rates=[0.1]), with_labels(split, labels))[0]
        means[policy] = probe.predict(fitted, split).scores.mean()
    assert means["ones"] > means["zeros"] + 0.15


def test_an_input_is_the_cls_tokens_from_the_earlier_block_to_the_last_then_the_mean_patch() -> None:
    features = planted(3, name="train").features
    made = inputs_of(features, [InputChoice(1, False), InputChoice(2, True), InputChoice(1, True)])
    cls, pooled = features.cls, features.pooled
    np.testing.assert_array_equal(made["cls of 1 block"], cls[:, 1])
    np.testing.assert_array_equal(made["cls of 1 block + mean patch"], np.concatenate([cls[:, 1], pooled[:, 1]], 1))
    whole = np.concatenate([cls[:, 0], cls[:, 1], pooled[:, 1]], axis=1)
    np.testing.assert_array_equal(made["cls of 2 blocks + mean patch"], whole)
    assert whole.shape == (3, 3 * DIM)


def test_blocks_or_pooling_that_are_not_there_are_refused() -> None:
    features = planted(3, name="train").features
    with pytest.raises(ConfigError, match="gives 2"):
        inputs_of(features, [InputChoice(3, False)])
    with pytest.raises(ConfigError, match="no patch tokens"):
        inputs_of(Features(cls=features.cls, pooled=None), [InputChoice(1, True)])
