"""A number that is not finite on one process is everybody's business."""

from pathlib import Path
from typing import Any

import torch

from dinov2.checkpoint.store import CheckpointStore, Retention
from dinov2.distributed import World, gather_to_main
from dinov2.train.state import named_tensors, restore_scaler, restore_tensors, scaler_facts
from dinov2.train.step import logged_values, train_step

from .processes import on_ranks
from .sharded_steps import PLAN, config_of, started, views_of


def with_a_bad_picture_on_rank_1(world: World) -> dict[str, Any]:
    tools = started(config_of("train.centering=centering"), world=world)
    train_step(tools, [views_of(0, world=world)], plan=PLAN, num_micro_batches=1)
    before = {name: value.clone() for name, value in gather_to_main(tools.networks, world=world).items()}
    bad = views_of(1, world=world)
    if world.rank == 1:
        bad.local_crops[0, 0, 0, 0] = float("inf")
    result = train_step(tools, [bad], plan=PLAN, num_micro_batches=1)
    after = gather_to_main(tools.networks, world=world)
    unchanged = all(torch.equal(value, before[name]) for name, value in after.items())
    good = train_step(tools, [views_of(2, world=world)], plan=PLAN, num_micro_batches=1)
    return {
        "places": sorted({(finding.rank, finding.micro_batch) for finding in result.findings}),
        "names": sorted({finding.name for finding in result.findings}),
        "unchanged": unchanged,
        "good": not good.skipped,
    }


def test_a_bad_picture_on_one_process_is_named_and_the_step_skipped_on_all() -> None:
    for told in on_ranks(with_a_bad_picture_on_rank_1):
        assert told["places"] == [(1, 0)]
        assert "dino_local_crops_loss" in told["names"]
        assert "ibot_loss" not in told["names"], "the global crops were sound"
        assert told["unchanged"]
        assert told["good"]


def half_precision(world: World, folder: str) -> dict[str, Any]:
    """Five steps in fp16 whose scale is too large at first, and the last three of them again from a checkpoint."""
    config = config_of("runtime.precision=fp16", "train.centering=centering")
    tools = started(config, world=world)
    tools.scaler.load_state_dict(tools.scaler.state_dict() | {"scale": 2.0**26, "growth_interval": 2})
    store = CheckpointStore(Path(folder), retention=Retention(keep_last=0))
    told = []
    for step in range(5):
        result = train_step(tools, [views_of(step, world=world)], plan=PLAN, num_micro_batches=1)
        told.append((result.overflow, tools.scaler.get_scale(), logged_values(result, world=world)["total_loss"]))
        if step == 1:
            store.save(2, tensors=named_tensors(tools), facts={"scaler": scaler_facts(tools.scaler)})
            facts = scaler_facts(tools.scaler)
    again_tools = started(config, world=world)
    restore_tensors(again_tools, store.path(2))
    restore_scaler(again_tools.scaler, facts)
    again = []
    for step in range(2, 5):
        result = train_step(again_tools, [views_of(step, world=world)], plan=PLAN, num_micro_batches=1)
        again.append(
            (result.overflow, again_tools.scaler.get_scale(), logged_values(result, world=world)["total_loss"])
        )
    store.close()
    return {"told": told, "again": again}


def test_the_loss_scale_and_the_skipped_steps_survive_a_resume_on_two_processes(tmp_path: Any) -> None:
    first, second = on_ranks(half_precision, str(tmp_path))
    assert first["told"] == second["told"], "both processes skip the same steps"
    overflows = [overflow for overflow, _, _ in first["told"]]
    assert overflows[0], "the scale was meant to be too large"
    assert overflows[2], "and still too large where the checkpoint was written"
    assert first["again"] == first["told"][2:]
    assert first["told"][-1][1] < first["told"][0][1]
