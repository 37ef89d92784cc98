"""Sharded training is training: any strategy, any number of processes, the same numbers."""

from typing import Any

import numpy as np
import pytest

from .processes import on_ranks
from .sharded_steps import several, with_strategy

CENTERING = ("train.centering=centering",)
SINKHORN = ("train.centering=sinkhorn_knopp",)
CASES: dict[str, dict[str, Any]] = {
    "centering": {"words": CENTERING},
    "sinkhorn": {"words": SINKHORN},
    "some ranks without a masked patch": {"words": CENTERING, "unmasked": 4},
    "no masked patch anywhere": {"words": SINKHORN, "unmasked": 8},
}


def assert_same(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    for step, (mine, other) in enumerate(zip(ours["losses"], theirs["losses"], strict=True)):
        for name, value in other.items():
            assert mine[name] == pytest.approx(value, rel=1e-4, abs=1e-5, nan_ok=True), (step, name)
    for kind, tolerance in (("gradients", 1e-5), ("state", 5e-5)):
        assert ours[kind].keys() == theirs[kind].keys()
        for name, value in theirs[kind].items():
            np.testing.assert_allclose(ours[kind][name], value, rtol=1e-4, atol=tolerance, err_msg=f"{kind} {name}")


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    return on_ranks(several, CASES, size=1)[0]


TOGETHER = {
    2: [
        ("centering", with_strategy("FULL_SHARD")),
        ("centering", with_strategy("NO_SHARD")),
        ("sinkhorn", with_strategy("SHARD_GRAD_OP")),
        ("some ranks without a masked patch", with_strategy("FULL_SHARD")),
        ("no masked patch anywhere", with_strategy("SHARD_GRAD_OP")),
        ("sinkhorn", (*with_strategy("FULL_SHARD"), *with_strategy("NO_SHARD")[2:])),  # the heads otherwise
        ("centering", (*with_strategy("FULL_SHARD"), "runtime.activation_checkpointing=full")),
        ("sinkhorn", (*with_strategy("FULL_SHARD"), "runtime.compile=always")),
    ],
    4: [
        ("some ranks without a masked patch", with_strategy("SHARD_GRAD_OP")),
        ("sinkhorn", with_strategy("FULL_SHARD")),
        ("centering", (*with_strategy("HYBRID_SHARD"), "runtime.shard_group_size=2")),
        ("some ranks without a masked patch", with_strategy("NO_SHARD")),
    ],
}


@pytest.mark.parametrize("size", [2, 4])
def test_every_strategy_gives_the_losses_gradients_teacher_and_centres_of_one_process(
    alone: dict[str, Any], size: int
) -> None:
    settings = TOGETHER[size]
    cases = {
        f"{i} {case}": CASES[case] | {"words": (*CASES[case]["words"], *words)}
        for i, (case, words) in enumerate(settings)
    }
    together = on_ranks(several, cases, size=size)[0]
    for name, ours in together.items():
        assert_same(ours, alone[name.partition(" ")[2]])


def test_the_case_without_masks_is_not_empty(alone: dict[str, Any]) -> None:
    assert alone["no masked patch anywhere"]["losses"][0]["ibot_loss"] == 0
    assert alone["centering"]["losses"][0]["ibot_loss"] > 0
    assert np.abs(alone["centering"]["state"]["dino_loss.center"]).max() > 0
