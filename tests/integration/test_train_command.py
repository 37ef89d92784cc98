"""The real `dinov2 train` on small pictures: finishing, being killed, being refused."""

import json
import math
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from dinov2 import load_backbone
from dinov2.checkpoint.reading import steps_in

from .runs import (
    command,
    environment,
    finish,
    finish_together,
    metrics,
    torchrun,
    train_words,
    write_pictures,
    write_tiny_config,
)

PARTS = [f"{side}.{part}" for side in ("student", "teacher") for part in ("backbone", "dino_head", "ibot_head")]


def every_part(setting: str) -> list[str]:
    return [f"compute_precision.{part}.{setting}" for part in PARTS]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_config(tmp_path_factory.mktemp("config"))


@pytest.fixture(scope="module")
def whole_run(config: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of 12 steps."""
    run = tmp_path_factory.mktemp("whole") / "run"
    finish(command(*train_words(config, pictures, run)))
    return run


def wait_for_step(process: subprocess.Popen[str], run: Path, step: int) -> None:
    for _ in range(1200):
        if process.poll() is not None:
            raise AssertionError(f"ended early with {process.returncode}: {process.communicate()}")
        if (run / "training_metrics.json").is_file() and len(
            (run / "training_metrics.json").read_text().splitlines()
        ) >= step:
            return
        time.sleep(0.05)
    raise AssertionError("the run did not get that far")


def start(words: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())


def test_a_run_leaves_metrics_checkpoints_config_and_an_exported_teacher(whole_run: Path) -> None:
    lines = metrics(whole_run)
    assert [line["step"] for line in lines] == list(range(1, 13))
    for line in lines:
        parts = (
            line["dino_local_crops_loss"]
            + line["dino_global_crops_loss"]
            + 2 * line["koleo_loss"]
            + 2 * line["ibot_loss"]
        )
        assert line["total_loss"] == pytest.approx(parts, rel=1e-5), "what is logged is what is optimised"
    assert lines[-1]["dino_global_cross_entropy"] < lines[0]["dino_global_cross_entropy"]
    assert lines[0]["last_layer_lr"] == 0.0
    assert lines[1]["last_layer_lr"] > 0.0
    assert (whole_run / "config.yaml").is_file()
    assert steps_in(whole_run / "checkpoints") == [4, 8, 12]
    timing = [json.loads(line) for line in (whole_run / "logs" / "timing.json").read_text().splitlines()]
    assert all(line["pictures_per_second"] > 0 for line in timing)
    backbone = load_backbone(whole_run / "exports" / "12")
    assert backbone.forward_features(torch.randn(1, 3, 32, 32))["x_norm_clstoken"].shape == (1, 32)


@pytest.mark.parametrize("kill_at", [5, 9])
def test_a_run_that_was_killed_continues_as_if_nothing_had_happened(
    config: Path, pictures: Path, whole_run: Path, tmp_path: Path, kill_at: int
) -> None:
    run = tmp_path / "run"
    process = start(command(*train_words(config, pictures, run)))
    wait_for_step(process, run, kill_at)
    process.kill()
    process.communicate()
    done = finish(command(*train_words(config, pictures, run)))
    assert "continuing from" in done.stdout
    assert (run / "training_metrics.json").read_bytes() == (whole_run / "training_metrics.json").read_bytes()
    for name in ("backbone", "dino_head"):
        file = f"exports/12/{name}.safetensors"
        assert (run / file).read_bytes() == (whole_run / file).read_bytes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_asked_to_stop_saves_first(
    config: Path, pictures: Path, whole_run: Path, tmp_path: Path, number: signal.Signals
) -> None:
    run = tmp_path / "run"
    words = command(*train_words(config, pictures, run, "checkpoint.every_steps=1000"))
    process = start(words)
    wait_for_step(process, run, 2)
    process.send_signal(number)
    out, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert "Run the same command again to continue" in out
    assert "Traceback" not in error
    finish(words)
    assert (run / "training_metrics.json").read_bytes() == (whole_run / "training_metrics.json").read_bytes()


def test_a_cluster_that_stops_every_process_of_a_run_gets_a_whole_checkpoint(
    config: Path, pictures: Path, whole_run: Path, tmp_path: Path
) -> None:
    """SIGTERM to the data workers too; with several batches a step, some are still wanted after it."""
    run = tmp_path / "run"
    common = ("checkpoint.every_steps=1000", "train.num_workers=2", "data.prefetch_batches=1")
    more = ("runtime.gradient_accumulation_steps=4", "train.batch_size_per_gpu=2", "dino.koleo_loss_weight=0")
    words = command(*train_words(config, pictures, run, *common, *more))
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(), start_new_session=True
    )
    wait_for_step(process, run, 2)
    os.killpg(process.pid, signal.SIGTERM)
    out, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert "stopped by SIGTERM" in out
    assert "died" not in error
    finish(words)
    assert [line["step"] for line in metrics(run)] == list(range(1, 13))


def test_a_finished_run_says_so_and_does_nothing(config: Path, pictures: Path, whole_run: Path) -> None:
    before = (whole_run / "training_metrics.json").read_bytes()
    done = finish(command(*train_words(config, pictures, whole_run)))
    assert "done: 12 steps" in done.stdout
    assert (whole_run / "training_metrics.json").read_bytes() == before


def test_no_resume_starts_anew_and_keeps_what_was_there(config: Path, pictures: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    finish(command(*train_words(config, pictures, run, "optim.total_steps=4")))
    finish(command(*train_words(config, pictures, run, "optim.total_steps=4", "train.seed=1"), "--no-resume"))
    assert metrics(run)[0] != metrics(run / "superseded" / "1")[0]
    assert "--no-resume: what an earlier run left" in (run / "logs" / "train.log").read_text()
    restarted = {"SLURM_RESTART_COUNT": "1"}
    words = train_words(config, pictures, run, "optim.total_steps=4", "train.seed=1")
    again = subprocess.run(
        [*command(*words), "--no-resume"], capture_output=True, text=True, check=True, env=environment() | restarted
    )
    assert "continuing from" in again.stdout, "a job that SLURM started again goes on"
    assert not (run / "superseded" / "2").exists()
    assert [line["step"] for line in metrics(run)] == [1, 2, 3, 4]


def test_another_architecture_in_the_same_folder_is_refused_with_both_sides(
    config: Path, pictures: Path, whole_run: Path
) -> None:
    done = finish(command(*train_words(config, pictures, whole_run, "student.embed_dim=64")), code=2)
    assert "student.embed_dim: 32 in the checkpoint, 64 now" in done.stderr
    assert "Traceback" not in done.stderr


def test_two_runs_in_one_folder_are_refused(config: Path, pictures: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = start(
        command(*train_words(config, pictures, run, "optim.total_steps=100000", "teacher.warmup_teacher_temp_steps=4"))
    )
    try:
        wait_for_step(process, run, 1)
        done = finish(command(*train_words(config, pictures, run)), code=2)
        assert "another run is writing to this folder" in done.stderr
    finally:
        process.kill()
        process.communicate()


def test_two_processes_train_as_one_does(config: Path, pictures: Path, tmp_path: Path) -> None:
    """Twice half the batch is the whole batch: same pictures, one assignment over all, mean of the gradients."""
    common = ("dino.koleo_loss_weight=0", "student.drop_path_rate=0", "optim.total_steps=6", "train.num_workers=0")
    finish(command(*train_words(config, pictures, tmp_path / "one", *common, "train.batch_size_per_gpu=8")))
    finish_together(2, command(*train_words(config, pictures, tmp_path / "two", *common)))
    for one, two in zip(metrics(tmp_path / "one"), metrics(tmp_path / "two"), strict=True):
        for name in ("total_loss", "dino_local_crops_loss", "ibot_loss", "grad_norm_backbone", "grad_norm_dino_head"):
            assert two[name] == pytest.approx(one[name], rel=2e-3), (one["step"], name)


@pytest.mark.parametrize(
    "words",
    [
        ["dino.loss_weight=0"],
        ["ibot.loss_weight=0"],
        ["dino.koleo_loss_weight=0"],
        ["crops.local_crops_number=0"],
        ["train.centering=centering"],
        ["ibot.separate_head=true", "dino.loss_weight=0"],
        ["runtime.precision=bf16"],
        ["runtime.precision=fp16"],
        ["runtime.gradient_accumulation_steps=2"],
        ["student.in_chans=1", "data.mean=[0.53]", "data.std=[0.26]"],
        ["student.num_register_tokens=2", "student.ffn_layer=swiglufused"],
    ],
    ids=" ".join,
)
def test_every_combination_trains_and_exports(config: Path, pictures: Path, tmp_path: Path, words: list[str]) -> None:
    run = tmp_path / "run"
    finish(command(*train_words(config, pictures, run, "optim.total_steps=3", "train.num_workers=0", *words)))
    assert all(math.isfinite(line["total_loss"]) for line in metrics(run))
    assert (run / "exports" / "3" / "backbone.safetensors").is_file()


@pytest.mark.parametrize(
    "words",
    [
        ["runtime.precision=bf16", *every_part("sharding_strategy=FULL_SHARD"), "train.centering=centering"],
        ["runtime.precision=fp16", *every_part("sharding_strategy=NO_SHARD"), "ibot.separate_head=true"],
        ["runtime.gradient_accumulation_steps=2", "train.global_batch_size=8", "dino.koleo_loss_weight=0"],
    ],
    ids=["bf16 FULL_SHARD", "fp16 NO_SHARD", "accumulation"],
)
def test_two_processes_train_in_every_format_and_export(
    config: Path, pictures: Path, tmp_path: Path, words: list[str]
) -> None:
    run = tmp_path / "run"
    more = ("optim.total_steps=3", "train.num_workers=0", *words)
    finish_together(2, command(*train_words(config, pictures, run, *more)))
    assert all(math.isfinite(line["total_loss"]) for line in metrics(run))
    assert metrics(run)[-1]["pictures_seen"] == 24
    assert (run / "exports" / "3" / "backbone.safetensors").is_file()


def test_a_global_batch_that_cannot_be_divided_is_refused(config: Path, pictures: Path, tmp_path: Path) -> None:
    words = train_words(config, pictures, tmp_path / "run", "train.global_batch_size=7", "checkpoint.self_test=false")
    complained = "".join(done.stderr for done in finish_together(2, command(*words), code=2))
    assert complained.count("train.global_batch_size = 7 cannot be divided among 2 processes") == 1
    assert "Take 6 or 8" in complained


def test_a_mistake_in_the_settings_is_told_by_one_process(config: Path, pictures: Path, tmp_path: Path) -> None:
    done = finish(torchrun(2, *train_words(config, pictures, tmp_path / "run", "student.patch_sise=14")), code=1)
    assert done.stderr.count("no such key") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["student.patch_sise=14"], "student.patch_size"),
        (["crops.global_crops_size=33"], "multiple of"),
        (["student.pretrained_weights=/nowhere/weights.pth"], "/nowhere/weights.pth"),
        (["train.dataset_path=/nowhere/pictures"], "/nowhere/pictures"),
    ],
    ids=["misspelt key", "crop no multiple of the patch", "no such weights", "no such data"],
)
def test_a_mistake_ends_in_one_message_and_exit_code_2(
    config: Path, pictures: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    done = finish(command(*train_words(config, pictures, tmp_path / "run", *words)), code=2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_without_pictures_is_refused(config: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = finish(command(*train_words(config, tmp_path / "empty", tmp_path / "run")), code=2)
    assert "no picture in this folder" in done.stderr


def test_a_manifest_that_names_a_missing_file_is_refused_by_row(config: Path, pictures: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "films.csv"
    manifest.write_text(f"image\n{pictures}/film_00.png\n{pictures}/gone.png\n")
    done = finish(command(*train_words(config, manifest, tmp_path / "run")), code=2)
    assert "gone.png" in done.stderr


def test_too_many_unreadable_pictures_stop_the_run_with_their_names(config: Path, tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "pictures")
    for i in range(6):
        (folder / f"film_{i:02d}.png").write_bytes(b"not a picture")
    done = finish(command(*train_words(config, folder, tmp_path / "run")), code=2)
    assert "film_0" in done.stderr
    assert "max_unreadable_share" in done.stderr


def test_a_few_unreadable_pictures_are_replaced_counted_and_logged(config: Path, tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "pictures")
    (folder / "film_03.png").write_bytes(b"not a picture")
    run = tmp_path / "run"
    finish(command(*train_words(config, folder, run, "data.max_unreadable_share=0.1")))
    assert metrics(run)[-1]["unreadable_files"] == 1
    assert "film_03.png" in (run / "logs" / "train.log").read_text()


def test_an_export_into_a_folder_with_files_is_refused(whole_run: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("")
    done = finish(command("export", "--checkpoint", str(whole_run), "--output-dir", str(tmp_path)), code=2)
    assert "exists and is not empty" in done.stderr
