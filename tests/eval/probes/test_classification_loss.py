import numpy as np
import pytest
import torch
from torch.nn import functional

from dinov2.errors import ConfigError
from dinov2.eval.examples import UNCERTAIN
from dinov2.eval.probes.classification_loss import targets_of

RNG = np.random.default_rng(0)


def gradient(labels: np.ndarray, logits: torch.Tensor, rows: torch.Tensor, **options: str) -> torch.Tensor:
    targets = targets_of(labels, task="multilabel", num_classes=labels.shape[1], **options)
    leaf = logits.clone().requires_grad_()
    return torch.autograd.grad(targets.loss(leaf, rows).sum(), leaf)[0]


def test_a_class_is_learnt_as_if_it_were_alone_so_the_learning_rate_does_not_depend_on_the_number_of_classes() -> None:
    labels = (RNG.random((10, 5)) < 0.5).astype(np.float32)
    logits, rows = torch.randn(1, 10, 5), torch.arange(10)
    together = gradient(labels, logits, rows)
    alone = gradient(labels[:, 2:3], logits[:, :, 2:3], rows)
    torch.testing.assert_close(together[:, :, 2:3], alone)


def test_the_loss_is_a_mean_so_the_learning_rate_does_not_depend_on_the_batch_size() -> None:
    labels = (RNG.random((10, 5)) < 0.5).astype(np.float32)
    targets = targets_of(labels, task="multilabel", num_classes=5)
    logits = torch.randn(2, 10, 5)
    rows = torch.arange(10)
    twice = targets.loss(torch.cat([logits, logits], dim=1), torch.cat([rows, rows]))
    torch.testing.assert_close(twice, targets.loss(logits, rows))


def test_with_unstated_labels_the_whole_split_gives_every_class_the_mean_over_its_stated_entries() -> None:
    labels = (RNG.random((20, 3)) < 0.5).astype(np.float32)
    labels[5:, 1] = np.nan
    logits = torch.randn(1, 20, 3)
    loss = targets_of(labels, task="multilabel", num_classes=3).loss(logits, torch.arange(20))
    expected = sum(
        functional.binary_cross_entropy_with_logits(
            logits[0, ~np.isnan(labels[:, one]), one], torch.from_numpy(labels[~np.isnan(labels[:, one]), one])
        )
        for one in range(3)
    )
    assert loss.item() == pytest.approx(float(expected), rel=1e-5)


def test_an_unstated_label_gives_no_gradient() -> None:
    labels = np.array([[1, np.nan], [0, 1]], dtype=np.float32)
    slope = gradient(labels, torch.randn(1, 2, 2), torch.arange(2))
    assert slope[0, 0, 1] == 0
    assert (slope[0, 1] != 0).all()


def test_with_an_output_of_its_own_uncertain_is_a_third_state_and_presence_is_told_against_absence_alone() -> None:
    labels = np.array([[1], [0], [UNCERTAIN], [np.nan]], dtype=np.float32)
    targets = targets_of(labels, task="multilabel", num_classes=1, policy="own-class")
    assert targets.outputs.width == 3
    logits = torch.randn(1, 4, 3)
    expected = functional.cross_entropy(logits[0, :3], torch.tensor([1, 0, 2]))
    assert targets.loss(logits, torch.arange(4)).item() == pytest.approx(expected.item(), rel=1e-5)
    three = logits[0].softmax(dim=1)
    torch.testing.assert_close(
        targets.outputs.probabilities(logits[0])[:, 0], three[:, 1] / (three[:, 0] + three[:, 1])
    )


def test_balanced_positives_weigh_as_much_as_the_negatives() -> None:
    labels = np.array([[1], [0], [0], [0]], dtype=np.float32)
    slope = gradient(labels, torch.zeros(1, 4, 1), torch.arange(4), balance="balanced")[0, :, 0]
    assert slope[0].item() == pytest.approx(-slope[1:].sum().item())


def test_multiclass_is_the_cross_entropy_and_balanced_counts_classes_alike() -> None:
    labels = np.array([0, 0, 0, 1], dtype=np.float32)
    logits = torch.randn(1, 4, 3)
    whole, rows = torch.tensor([0, 0, 0, 1]), torch.arange(4)
    plain = targets_of(labels, task="multiclass", num_classes=3).loss(logits, rows)
    assert plain.item() == pytest.approx(functional.cross_entropy(logits[0], whole).item(), rel=1e-5)
    balanced = targets_of(labels, task="multiclass", num_classes=3, balance="balanced").loss(logits, rows)
    each = functional.cross_entropy(logits[0], whole, reduction="none")
    assert balanced.item() == pytest.approx((each[:3].mean() + each[3]).item() / 2, rel=1e-5)


def test_a_picture_without_a_class_is_refused() -> None:
    with pytest.raises(ConfigError, match="1 pictures have no class"):
        targets_of(np.array([0, np.nan], dtype=np.float32), task="multiclass", num_classes=2)
