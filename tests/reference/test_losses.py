"""Assignments, centres and losses give the numbers of the public code."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from dinov2.loss import ONE_PROCESS, DINOLoss, KoLeoLoss, centred_softmax, iBOTPatchLoss, sinkhorn

from .reference_cases import case_name, cases, load_case, under

TOLERANCE = {"rtol": 1e-6, "atol": 1e-5}  # the relative part for losses above 10, whose float32 spacing is near 1e-5
CASES = cases("losses")
NUM_TEACHER_VIEWS = 2
TEMPERATURES = [i / 1000 for i in range(20, 151)]


def steps_of(tensors: dict[str, Tensor], term: str) -> list[dict[str, Tensor]]:
    first_words = {name.split(".")[0] for name in under(tensors, term)}
    numbers = sorted(int(word) for word in first_words if word.isdigit())
    assert numbers
    return [under(tensors, f"{term}.{i}") for i in numbers]


def temperature_of(recorded: dict[str, Tensor], assign: Callable[[float], Tensor]) -> float:
    """The teacher temperature of a step; where it was not recorded, the one that comes nearest to what was."""
    if "temp" in recorded:
        return float(recorded["temp"])
    return min(TEMPERATURES, key=lambda t: float((assign(t) - recorded["probs"]).abs().max()))


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_dino_with_a_centre_follows_the_public_steps(case: dict[str, Any]) -> None:
    tensors = load_case(case)
    loss = DINOLoss(case["n_prototypes"], case["student_temp"], center_momentum=case["center_momentum"])
    for step in steps_of(tensors, "dino_centering"):
        assigned = loss.softmax_center_teacher(step["teacher"], float(step["temp"]))
        loss.update_center(step["teacher"])
        assert_close(assigned, step["probs"], **TOLERANCE)
        teacher_views = assigned.chunk(NUM_TEACHER_VIEWS)
        student_views = step["student"].split(len(teacher_views[0]))
        assert_close(loss(student_views, teacher_views), step["loss"], **TOLERANCE)
    assert_close(loss.center, tensors["dino_centering.final_center"], **TOLERANCE)


@pytest.mark.parametrize("weights_given", [True, False], ids=["weights given", "weights from the masks"])
@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_ibot_with_a_centre_follows_the_public_steps(case: dict[str, Any], weights_given: bool) -> None:
    tensors = load_case(case)
    loss = iBOTPatchLoss(case["n_prototypes"], case["student_temp"], center_momentum=case["center_momentum"])
    for step in steps_of(tensors, "ibot_centering"):
        center = loss.center.clone()
        temperature = temperature_of(
            step, lambda t, step=step, center=center: centred_softmax(step["teacher"], center=center[0], temperature=t)
        )
        assigned = loss.softmax_center_teacher(step["teacher"].unsqueeze(0), temperature).squeeze(0)
        loss.update_center(step["teacher"].unsqueeze(0))
        assert_close(assigned, step["probs"], **TOLERANCE)
        value = loss.forward_masked(
            step["student"],
            assigned,
            student_masks_flat=step["masks"],
            masks_weight=step["masks_weight"] if weights_given else None,
        )
        assert_close(value, step["loss"], **TOLERANCE)
    assert_close(loss.center, tensors["ibot_centering.final_center"], **TOLERANCE)


@pytest.mark.parametrize("term", ["dino", "ibot"])
@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_sinkhorn_gives_the_public_assignment(case: dict[str, Any], term: str) -> None:
    recorded = under(load_case(case), f"{term}_sinkhorn")
    iterations = case["sinkhorn_iterations"]
    temperature = temperature_of(
        recorded,
        lambda t: sinkhorn(recorded["teacher"], temperature=t, reductions=ONE_PROCESS, iterations=iterations),
    )
    loss = {"dino": DINOLoss, "ibot": iBOTPatchLoss}[term](case["n_prototypes"])
    assigned = loss.sinkhorn_knopp_teacher(recorded["teacher"], temperature, n_iterations=iterations)
    assert_close(assigned, recorded["probs"], **TOLERANCE)


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_koleo_gives_the_public_value(case: dict[str, Any]) -> None:
    recorded = under(load_case(case), "koleo")
    assert_close(KoLeoLoss()(recorded["input"]), recorded["loss"], **TOLERANCE)
    assert torch.isfinite(recorded["loss"])
