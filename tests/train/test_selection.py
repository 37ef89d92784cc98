"""Which number chooses the best checkpoint, and whether a score is the best."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dinov2.backbone_card import BackboneCard
from dinov2.checkpoint.retention import Retention
from dinov2.checkpoint.store import CheckpointStore
from dinov2.config.load import load_config
from dinov2.config.schema import Config
from dinov2.distributed import World
from dinov2.errors import ConfigError
from dinov2.train.run_folder import RunFolder
from dinov2.train.selection import BEST, Selected, best_so_far, check_selection, is_best, logged_names, score_of

SHORT = ("optim.total_steps=50", "optim.warmup_steps=5", "optim.freeze_last_layer_steps=0", "monitors.every_steps=10")
BY_RANK = ("checkpoint.select_by=monitor/rankme",)


def config_of(*words: str) -> Config:
    return load_config(None, overrides=[*SHORT, *words]).config


def a_run(folder: Path, *words: str, step: int) -> Any:
    config = config_of(*words)
    store = CheckpointStore(folder / "checkpoints", retention=Retention(keep_last=0))
    alone = World(rank=0, size=1, local_rank=0, device=torch.device("cpu"))
    return SimpleNamespace(config=config, store=store, folder=RunFolder(folder), step=step, world=alone)


def save(this: Any, scores: dict[int, float | None], *, mode: str = "max") -> None:
    section = {"select_by": this.config.checkpoint.select_by, "select_mode": mode}
    for step, score in scores.items():
        this.store.save(step, tensors={"a": torch.zeros(1)}, facts={"config": {"checkpoint": section}}, score=score)


def card(folder: Path, *, step: int, score: float, by: str = "monitor/rankme") -> None:
    (folder / "exports" / BEST).mkdir(parents=True)
    provenance = {"selected_by": by, "select_mode": "max", "score": score}
    BackboneCard(
        arch="vit_small", architecture={}, resolution_px=32, in_chans=3, mean=(0.5,), std=(0.5,), step=step,
        provenance=provenance,
    ).write(folder / "exports" / BEST)  # fmt: skip


def test_a_misspelt_score_is_refused_with_the_list_of_what_there_will_be() -> None:
    config = config_of("checkpoint.select_by=linear_val_macro_auroc")
    with pytest.raises(ConfigError) as caught:
        check_selection(config, monitored=("linear/val/macro_auroc", "monitor/rankme"))
    assert caught.value.everywhere
    for name in ("linear/val/macro_auroc", "monitor/rankme", "ibot_cross_entropy", "total_loss"):
        assert name in str(caught.value)


@pytest.mark.parametrize("name", ["", "total_loss", "dino_local_cross_entropy", "monitor/rankme"])
def test_a_score_that_there_will_be_is_taken(name: str) -> None:
    check_selection(config_of(f"checkpoint.select_by={name}"), monitored=("monitor/rankme",))


def test_a_loss_that_is_not_computed_is_no_score() -> None:
    names = logged_names(config_of("ibot.loss_weight=0", "crops.local_crops_number=0"))
    assert "ibot_cross_entropy" not in names
    assert "dino_local_cross_entropy" not in names
    assert "dino_global_cross_entropy" in names


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["checkpoint.select_by=monitor/rankme", "monitors.every_steps=0"], "monitors.every_steps = 0 is off"),
        (["checkpoint.select_by=monitor/rankme", "monitors.every_steps=51"], "exceeds the 50 steps of the run"),
        (["checkpoint.select_by=knn/val/macro_auroc"], "that probe does not run"),
        (["monitors.probes=[knn, forest]"], "there is no forest. Take of ['knn', 'linear']"),
        (["monitors.size=100"], "not a multiple of student.patch_size = 16. Take 96 or 112, or 0"),
    ],
)
def test_a_score_that_could_never_be_is_refused_with_the_settings(words: list[str], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config_of(*words)
    assert told in str(caught.value)


def test_a_score_of_the_monitors_is_of_its_own_step_alone_and_a_loss_holds_until_the_next() -> None:
    keep = config_of(*BY_RANK).checkpoint
    monitored = ("monitor/rankme",)
    assert score_of({"monitor/rankme": 3.0}, keep, before=1.0, monitored=monitored) == 3.0
    assert score_of({"total_loss": 1.0}, keep, before=3.0, monitored=monitored) is None
    assert score_of({"monitor/rankme": float("nan")}, keep, before=3.0, monitored=monitored) is None
    by_loss = config_of("checkpoint.select_by=total_loss").checkpoint
    assert score_of({"total_loss": float("nan")}, by_loss, before=3.0, monitored=monitored) == 3.0


def test_the_later_of_equal_scores_is_the_best_as_in_the_store(tmp_path: Path) -> None:
    this = a_run(tmp_path, *BY_RANK, step=20)
    assert is_best(this, 5.0, before=Selected(10, 5.0))
    assert is_best(this, 5.0, before=None)
    assert not is_best(this, 4.9, before=Selected(10, 5.0))
    smallest = a_run(tmp_path, *BY_RANK, "checkpoint.select_mode=min", step=20)
    assert is_best(smallest, 4.9, before=Selected(10, 5.0))


def test_a_run_that_continues_knows_the_best_of_its_checkpoints(tmp_path: Path) -> None:
    this = a_run(tmp_path, *BY_RANK, step=30)
    save(this, {10: 4.0, 20: 6.0, 30: None})
    assert best_so_far(this) == Selected(20, 6.0)


def test_scores_of_another_number_or_of_the_other_direction_do_not_count(tmp_path: Path) -> None:
    this = a_run(tmp_path, *BY_RANK, step=30)
    save(this, {10: 9.0}, mode="min")
    card(tmp_path, step=20, score=50.0, by="total_loss")
    assert best_so_far(this) is None


def test_an_export_of_a_step_that_is_to_be_made_again_does_not_count(tmp_path: Path) -> None:
    this = a_run(tmp_path, *BY_RANK, step=20)
    save(this, {10: 4.0})
    card(tmp_path, step=30, score=9.0)
    assert best_so_far(this) == Selected(10, 4.0)


def test_the_export_is_remembered_where_its_checkpoint_is_not_kept(tmp_path: Path) -> None:
    this = a_run(tmp_path, *BY_RANK, step=40)
    save(this, {40: 4.0})
    card(tmp_path, step=30, score=9.0)
    assert best_so_far(this) == Selected(30, 9.0)
