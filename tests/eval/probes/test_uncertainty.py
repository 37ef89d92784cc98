import numpy as np
import pytest

from dinov2.errors import ConfigError
from dinov2.eval.examples import UNCERTAIN
from dinov2.eval.probes.predictions import predictions_of
from dinov2.eval.probes.uncertainty import POLICIES, SMOOTH_BOUNDS, UNCERTAIN_CLASS, apply_policy
from tests.eval.probes.planted import examples_of

LABELS = np.array([[1, UNCERTAIN, 0], [np.nan, 0, UNCERTAIN]], dtype=np.float32)


@pytest.mark.parametrize(
    ("policy", "value"), [("zeros", 0.0), ("ones", 1.0), ("ignore", np.nan), ("own-class", UNCERTAIN_CLASS)]
)
def test_a_policy_changes_uncertain_entries_alone(policy: str, value: float) -> None:
    expected = np.array([[1, value, 0], [np.nan, 0, value]], dtype=np.float32)
    np.testing.assert_array_equal(apply_policy(LABELS, policy), expected)


@pytest.mark.parametrize("policy", sorted(SMOOTH_BOUNDS))
def test_smoothed_targets_fill_their_bounds_and_are_the_same_for_the_same_seed(policy: str) -> None:
    labels = np.full((500, 4), UNCERTAIN, dtype=np.float32)
    low, high = SMOOTH_BOUNDS[policy]
    drawn = apply_policy(labels, policy, seed=3)
    assert low <= drawn.min() < low + 0.02
    assert high - 0.02 < drawn.max() <= high
    assert drawn.mean() == pytest.approx((low + high) / 2, abs=0.01)
    np.testing.assert_array_equal(drawn, apply_policy(labels, policy, seed=3))
    assert (drawn != apply_policy(labels, policy, seed=4)).any()


def test_the_labels_that_were_given_are_left_as_they_are() -> None:
    before = LABELS.copy()
    for policy in POLICIES:
        apply_policy(LABELS, policy)
    np.testing.assert_array_equal(LABELS, before)


def test_an_unknown_policy_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="own-class"):
        apply_policy(LABELS, "U-Ones")


def test_uncertain_labels_are_not_counted_where_predictions_are_scored() -> None:
    said = predictions_of(examples_of(LABELS, name="test"), np.full((2, 3), 0.5))
    np.testing.assert_array_equal(said.labels, [[1, np.nan, 0], [np.nan, 0, np.nan]])
