"""`dinov2 check` as a whole: doubts, faults, the plan, the command that starts the run."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from dinov2.cli import main
from dinov2.config.load import load_config
from dinov2.forecast.data import Copies, DataReport, Sizes
from dinov2.forecast.doubts import Facts, doubts
from dinov2.forecast.launch import plan_launch, start_command
from dinov2.forecast.page import plan_table
from dinov2.forecast.plan import make_plan
from dinov2.forecast.stops import lower_bound, stops
from dinov2.train.loggers.loggers import LOGGERS
from tests.forecast.steps import SMALL
from tests.integration.runs import write_pictures

DATA = DataReport(
    num_pictures=2000,
    groups={"split": {"train": 2000}},
    num_sampled=100,
    unreadable={},
    kinds={"8-bit grey, PNG": 100},
    sizes=Sizes(smallest=64, median=80, largest=100, share_below_crop=0.0),
    copies=Copies(same_file=0, same_look=None, named=0),
    split_patients=(),
    num_split_patients=0,
    pictures_per_core_second=50.0,
    cores=8,
)
QUIET = (  # a run that nothing is to be said of
    "dino.head_n_prototypes=64",
    "ibot.head_n_prototypes=64",
    "train.batch_size_per_gpu=40",
    "optim.total_steps=2000",
    "optim.warmup_steps=100",
    "optim.freeze_last_layer_steps=10",
    "teacher.warmup_teacher_temp_steps=100",
    "student.layerscale=1",
    "checkpoint.every_steps=500",
    "evaluation.eval_period_iterations=500",
    "train.num_workers=4",
)


def facts(*words: str, processes: int = 1, data: DataReport | None = DATA, rate: float | None = None) -> Facts:
    loaded = load_config(None, overrides=[*SMALL, *QUIET, *words])
    launch, _ = plan_launch(loaded.config, processes=processes, per_node=None)
    plan = make_plan(
        loaded.config,
        launch,
        num_pictures=data.num_pictures if data else None,
        num_parameters=1_000_000,
        rate=rate,
        output_dir=None,
    )
    return Facts(config=loaded.config, given=loaded.given, launch=launch, plan=plan, data=data, memory=None, rate=rate)


def test_a_sound_run_raises_no_doubt() -> None:
    assert doubts(facts()) == ()


COPIES = replace(DATA, copies=Copies(same_file=7, same_look=3, named=None))
LEAKING = replace(DATA, num_split_patients=2, split_patients=("patient 1 is in the splits test, train",))
CASES: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "every step sees pictures more than once": (("train.batch_size_per_gpu=4000",), {}),
    "one picture may be in a batch twice": (("train.batch_size_per_gpu=900",), {}),
    "passes over the data; the published chest encoders were taken after about 100.": (("optim.total_steps=101",), {}),
    "gather more pictures": (("optim.total_steps=100000",), {}),
    "prototypes for 40 pictures a step": (("dino.head_n_prototypes=1024",), {}),
    "stayed at the uniform solution; those that learned": (("student.layerscale=1e-5",), {}),
    "the learning rate peaks at 0.05": (("optim.lr=0.05",), {}),
    "the learning rate peaks at 1e-06": (("optim.lr=1e-6",), {}),
    "from given weights": (("student.pretrained_weights=some.pth",), {}),
    "init_from.freeze_backbone_steps=200 init_from.head_lr_factor=10": (("student.pretrained_weights=some.pth",), {}),
    "more than a third": (("optim.warmup_steps=900",), {}),
    "only its end is saved": (("checkpoint.every_steps=5000",), {}),
    "exported once, at the end": (("evaluation.eval_period_iterations=5000",), {}),
    "one process shards nothing": (("compute_precision.student.backbone.sharding_strategy=FULL_SHARD",), {}),
    "has no neighbour for KoLeo": (("train.global_batch_size=4",), {"processes": 4}),
    "so 0.50 are dropped": (("train.global_batch_size=4", "dino.koleo_loss_weight=0"), {"processes": 4}),
    "this one has 8 cores": (("train.num_workers=9",), {}),
    "need 10 data workers": ((), {"rate": 500.0}),
    "7 pictures are copies of others, and dino.koleo_loss_weight": ((), {"data": COPIES}),
    "they count as often as they come": (("dino.koleo_loss_weight=0",), {"data": COPIES}),
    "dinov2 manifest split deals patients": ((), {"data": LEAKING}),
    "data.splits=[train] leaves them out": (
        (),
        {"data": replace(DATA, groups={"split": {"train": 1500, "test": 500}})},
    ),
    "even a crop of the whole picture is blown up": (
        (),
        {"data": replace(DATA, sizes=Sizes(smallest=32, median=48, largest=64, share_below_crop=0.75))},
    ),
    "1 of 100 sampled pictures cannot be read": ((), {"data": replace(DATA, unreadable={"a.png": "empty"})}),
}


@pytest.mark.parametrize("words", CASES)
def test_each_doubt_comes_where_it_should(words: str) -> None:
    overrides, rest = CASES[words]
    assert any(words in text for text in doubts(facts(*overrides, **rest)))


def test_pictures_that_cannot_be_read_stop_a_run_only_where_that_is_sure() -> None:
    few = replace(DATA, unreadable={"a.png": "empty", "b.png": "empty"})  # 2 of 100: may be 1% of all
    assert stops(facts(data=few), output_dir=None) == ()
    whole = replace(few, num_pictures=100)
    (text,) = stops(facts(data=whole), output_dir=None)
    assert "2 of 100 pictures cannot be read" in text
    assert lower_bound(2, of=100) < 0.01 < lower_bound(2, of=20)


def test_a_disk_without_room_for_two_checkpoints_stops_a_run(tmp_path: Path) -> None:
    known = facts()
    full = replace(known, plan=replace(known.plan, disk_free=known.plan.checkpoint_bytes))
    (text,) = stops(full, output_dir=tmp_path / "run")
    assert "two checkpoints" in text
    tight = replace(known, plan=replace(known.plan, disk_free=known.plan.disk_bytes - 1))
    assert stops(tight, output_dir=tmp_path / "run") == ()
    assert any("Lower checkpoint.keep_last" in text for text in doubts(tight))


def test_days_follow_from_the_rate_and_the_schedule_from_the_batch() -> None:
    known = facts("optim.lr=0.001", processes=4, rate=20.0)
    assert known.plan.global_batch == 160
    assert known.plan.days == pytest.approx(2000 * 160 / (20 * 4) / 86400)
    assert known.plan.passes == 2000 * 160 / 2000
    assert (known.plan.peak_lr, known.plan.peak_step) == (pytest.approx(0.001), 99)


def test_a_head_warm_up_is_part_of_the_plan_and_takes_its_doubt_away() -> None:
    words = ("student.pretrained_weights=some.pth", "init_from.freeze_backbone_steps=200", "optim.lr=0.0001")
    known = facts(*words, "init_from.head_lr_factor=10")
    assert not any("init_from.freeze_backbone_steps=" in text for text in doubts(known))
    assert known.plan.freeze_backbone_steps == 200
    assert known.plan.frozen_head_lr == pytest.approx(10 * known.plan.peak_lr)  # the warm-up ends within the freeze
    early = facts(*words, "init_from.head_lr_factor=10", "optim.warmup_steps=400")
    assert early.plan.frozen_head_lr == pytest.approx(10 * 0.0001 * 199 / 399)
    console = Console(record=True, width=120)
    console.print(plan_table(known.plan, processes=1))
    assert "backbone frozen" in (page := console.export_text())
    assert "200 steps, in which the heads learn at up to 0.001" in page


@pytest.mark.parametrize(
    ("words", "written", "kept"),
    [
        ((), 4, 3),
        (("checkpoint.keep_last=0",), 4, 4),
        (("checkpoint.keep_last=1", "checkpoint.keep_every_steps=1000"), 4, 2),
        (("checkpoint.keep_last=1", "checkpoint.select_by=total_loss", "checkpoint.keep_best=2"), 4, 3),
        (("checkpoint.every_steps=600",), 4, 3),
    ],
)
def test_checkpoints_on_the_disk_are_those_that_retention_leaves(
    words: tuple[str, ...], written: int, kept: int
) -> None:
    plan = facts(*words).plan
    assert (plan.num_checkpoints, plan.num_kept) == (written, kept)


@pytest.mark.parametrize(
    ("processes", "per_node", "begins"),
    [
        (1, None, "dinov2 train --config-file f.yaml"),
        (4, None, "torchrun --standalone --nproc-per-node 4 -m dinov2 train"),
        (16, 4, "torchrun --nnodes 4 --nproc-per-node 4 --rdzv-backend c10d"),
    ],
)
def test_the_command_that_starts_the_run(processes: int, per_node: int | None, begins: str) -> None:
    launch, faults = plan_launch(facts().config, processes=processes, per_node=per_node)
    command = start_command(launch, config_file="f.yaml", output_dir="my run", overrides=["a.b=[1, 2]"])
    assert faults == ()
    assert command.startswith(begins)
    assert command.endswith("--output-dir 'my run' 'a.b=[1, 2]'")


def test_a_batch_that_does_not_divide_names_the_nearest_that_do() -> None:
    config = facts("train.global_batch_size=100").config
    _, (fault,) = plan_launch(config, processes=8, per_node=None)
    assert "Take 96 or 104" in fault
    _, faults = plan_launch(facts().config, processes=9, per_node=8)
    assert "not a multiple of --processes-per-node 8" in faults[0]


def test_the_command_says_everything_as_json_and_ends_with_the_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = write_pictures(tmp_path / "pictures")
    words = ["check", "--config-file", "cpu_smoke", *SMALL, f"train.dataset_path={pictures}"]
    assert main([*words[:3], "--json", "--sample", "5", "--processes", "2", *words[3:]]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["data"]["num_pictures"] == 24
    assert [row["strategy"] for row in found["memory"]["rows"]][1:] == [
        "FULL_SHARD",
        "SHARD_GRAD_OP",
        "HYBRID_SHARD",
        "NO_SHARD",
    ]
    assert found["memory"]["rows"][0]["peak"]["total"] == sum(found["memory"]["rows"][0]["peak"]["parts"].values())
    assert found["stops"] == []
    assert found["command"].startswith("torchrun --standalone --nproc-per-node 2 -m dinov2 train")


def test_a_run_that_would_fail_hears_every_reason_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        *("check", "--config-file", "cpu_smoke", "--processes", "3", "--gpu-memory-gb", "0.001"),
        *SMALL,
        f"train.dataset_path={tmp_path / 'none.parquet'}",
        f"student.pretrained_weights={tmp_path / 'none.pth'}",
        "train.global_batch_size=64",
        "runtime.device=cuda",
    ]
    assert main(words) == 2
    said = " ".join(capsys.readouterr().out.split())
    for reason in (
        "none.parquet: no such manifest",
        "none.pth: no such file",
        "64 cannot be divided",
        "--gpu-memory-gb",
    ):
        assert f"{reason}" in said
    assert "mend these, then check again." in said


def test_a_logger_whose_package_is_absent_is_told_before_anything_is_looked_at(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LOGGERS["wandb"][0], "MODULE", "wandb_that_nobody_has")
    assert main(["check", "--config-file", "cpu_smoke", "logging.loggers=[wandb]"]) == 2
    assert "pip install 'dinov2[wandb]'" in capsys.readouterr().err


def test_wrong_numbers_on_the_command_line_are_refused_together(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--config-file", "cpu_smoke", "--processes", "0", "--sample", "-1"]) == 2
    said = capsys.readouterr().err
    assert "--processes 0: give more than 0" in said
    assert "--sample -1: give more than 0" in said
