"""The teacher is looked at where it lies, and nothing is left behind."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from dinov2.distributed import World
from dinov2.train.monitors.passes import Look, look
from tests.distributed.sharded_steps import config_of, started

from .looks import NUM_PICTURES, looks, pictures_of

ALONE = World(rank=0, size=1, local_rank=0, device=torch.device("cpu"))
SINKHORN, CENTERING = "train.centering=sinkhorn_knopp", "train.centering=centering"


def assert_same(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    for name in ("cls", "pooled", "smoothness"):
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-4, atol=2e-4, err_msg=name)
    for name in ("entropy", "marginal_entropy", "prototype_usage"):
        assert ours[name] == pytest.approx(theirs[name], rel=1e-3), name


@pytest.mark.parametrize("centering", [SINKHORN, CENTERING])
def test_the_features_are_those_of_the_teacher_in_the_order_of_the_pictures(centering: str) -> None:
    tools = started(config_of(centering), world=ALONE)
    seen = looks(ALONE, (centering,), batch_size=4, look_at=(2,))
    assert seen["cls"].shape == seen["pooled"].shape == (NUM_PICTURES, 32)
    teacher = tools.networks.teacher["backbone"]
    state = {name.removeprefix("teacher.backbone."): torch.from_numpy(v) for name, v in seen["state"].items()}
    teacher.load_state_dict({name: value for name, value in state.items() if name in teacher.state_dict()})
    crops = (pictures_of(ALONE)[:, None].float().repeat(1, 3, 1, 1) / 255 - 0.5) / 0.25
    with torch.no_grad():
        features = teacher.eval().forward_features(crops)
    np.testing.assert_allclose(seen["cls"], features["x_norm_clstoken"].numpy(), atol=1e-5)
    np.testing.assert_allclose(seen["pooled"], features["x_norm_patchtokens"].mean(dim=1).numpy(), atol=1e-5)
    assert 0 < seen["entropy"] <= np.log(48) + 1e-5


def test_the_size_of_a_batch_changes_nothing() -> None:
    few, all_at_once = (looks(ALONE, (SINKHORN,), batch_size=size, look_at=(2,)) for size in (3, 64))
    assert_same(few, all_at_once)


def test_looks_between_steps_leave_the_training_as_it_was_to_the_bit() -> None:
    with_looks, without = (looks(ALONE, (CENTERING,), batch_size=4, look_at=at) for at in ((0, 1, 2), ()))
    for name, value in without["state"].items():
        assert np.array_equal(with_looks["state"][name], value), name


def test_without_a_head_for_class_tokens_there_is_no_entropy() -> None:
    seen = looks(ALONE, ("dino.loss_weight=0",), batch_size=4, look_at=(2,))
    assert seen["entropy"] is None
    assert seen["prototype_usage"] is None


@pytest.mark.parametrize(("copies_of", "used"), [((0,) * NUM_PICTURES, 1 / NUM_PICTURES), (range(NUM_PICTURES), None)])
def test_prototype_usage_counts_the_prototypes_that_are_a_first_choice(
    copies_of: Sequence[int], used: float | None
) -> None:
    tools = started(config_of(CENTERING), world=ALONE)
    pictures = pictures_of(ALONE)[list(copies_of)]
    what = Look(num_pictures=NUM_PICTURES, batch_size=4, mean=(0.5,) * 3, std=(0.25,) * 3)
    seen = look(tools, pictures, what=what, temperature=0.07)
    with torch.no_grad():
        chosen = tools.networks.teacher["dino_head"](seen.cls).argmax(dim=1)
    assert seen.prototype_usage == pytest.approx(len(chosen.unique()) / NUM_PICTURES)
    assert used is None or seen.prototype_usage == pytest.approx(used)


def test_compiled_blocks_are_looked_at_too() -> None:
    what = Look(num_pictures=NUM_PICTURES, batch_size=16, mean=(0.5,) * 3, std=(0.25,) * 3)
    plain, compiled = (
        look(
            started(config_of(SINKHORN, f"runtime.compile={how}", "student.depth=1"), world=ALONE),
            pictures_of(ALONE),
            what=what,
            temperature=0.07,
        )
        for how in ("never", "always")
    )
    assert torch.allclose(compiled.cls, plain.cls, atol=1e-4)
    assert compiled.entropy == pytest.approx(plain.entropy, rel=1e-3)
