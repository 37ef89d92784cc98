"""`dinov2 eval finetune` and `segment`, from words to files."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dinov2.cli import main
from dinov2.eval.backbones import open_backbone

BACKBONE = "random:vit_small/14@28"


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    rng = np.random.default_rng(0)
    with (folder / "films.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "patient_id", "split", "sex", "bright", "spots"])
        for i in range(20):
            bright, spots = i % 2, i // 2 % 2
            mask = np.zeros((40, 36), dtype=np.uint8)
            mask[8:24, 4:20], mask[20:36, 22:34] = 1, 2
            picture = rng.normal(90 + 60 * bright, 8, mask.shape) + np.where(mask == 1, 40, np.where(mask == 2, -40, 0))
            picture[::5, ::5] += 80 * spots
            Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / f"{i}.png")
            Image.fromarray(mask).save(folder / f"{i}_mask.png")
            split = "train" if i < 12 else "val" if i < 16 else "test"
            table.writerow([f"{i}.png", f"p{i}", split, "FM"[i // 3 % 2], bright, spots])
    text = (folder / "films.csv").read_text().splitlines()
    rows = [f"{line},{'mask' if i == 0 else f'{i - 1}_mask.png'}" for i, line in enumerate(text)]
    (folder / "films.csv").write_text("\n".join(rows) + "\n")
    return folder / "films.csv"


def _words(manifest: Path, output: Path, *more: str) -> list[str]:
    common = ["--backbone", BACKBONE, "--dataset", str(manifest), "--output-dir", str(output), "--device", "cpu"]
    return [*common, "--workers", "0", "--draws", "20", "--epochs", "1", "--batch-size", "6", *more]


def test_finetune_writes_a_result_and_a_backbone_that_opens(manifest: Path, tmp_path: Path) -> None:
    words = _words(manifest, tmp_path, "--labels", "bright", "spots", "--backbone-lrs", "1e-4")
    assert main(["eval", "finetune", *words]) == 0
    result = json.loads((tmp_path / "result.json").read_text())
    assert "finetune" in json.dumps(result)
    epochs = list(csv.DictReader((tmp_path / "epochs.csv").open()))
    assert [bool(one["validation"]) for one in epochs] == [True, False]  # the refit has seen validation
    tuned = open_backbone(str(tmp_path / "backbone" / "backbone.safetensors"))
    assert tuned.traits.fingerprint != open_backbone(BACKBONE).traits.fingerprint


def test_mode_frozen_leaves_the_backbone_alone_and_writes_a_head(manifest: Path, tmp_path: Path) -> None:
    words = _words(manifest, tmp_path, "--labels", "bright", "spots", "--mode", "frozen", "--augment", "none")
    assert main(["eval", "finetune", *words]) == 0
    assert (tmp_path / "head.safetensors").exists()
    assert not (tmp_path / "backbone").exists()
    assert not (tmp_path / "tuned.safetensors").exists()


def test_segment_writes_a_result_a_decoder_and_outlines(manifest: Path, tmp_path: Path) -> None:
    words = _words(manifest, tmp_path, "--masks", "mask", "--classes", "a", "b", "--lrs", "1e-2", "--groups", "sex")
    assert main(["eval", "segment", *words]) == 0
    assert (tmp_path / "result.json").exists()
    assert (tmp_path / "head.safetensors").exists()
    with Image.open(tmp_path / "films.png") as sheet:
        assert min(sheet.size) > 200


@pytest.mark.parametrize("value", ["False", "true"])
def test_a_flag_takes_no_value_that_could_mean_its_contrary(
    value: str, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["eval", "finetune", *_words(manifest, tmp_path), "--flip", value])
    assert stopped.value.code == 2
    assert value in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["finetune", "--mode", "frozen", "--backbone-lrs", "1e-4"], "--backbone-lrs"),
        (["finetune", "--augment", "none", "--flip"], "--flip"),
        (["finetune", "--layer-decay", "0"], "--layer-decay"),
        (["finetune", "--metric", "goodness"], "goodness"),
        (["segment", "--backbone-lrs", "1e-4"], "--backbone-lrs"),
        (["segment", "--width", "10"], "--width"),
        (["segment", "--tune", "lora", "--tokens", "disk"], "--tokens disk"),
    ],
)
def test_a_mistake_is_one_message(
    words: list[str], said: str, manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    probe, *more = words
    data = ["--labels", "bright", "spots"] if probe == "finetune" else ["--masks", "mask", "--classes", "a", "b"]
    assert main(["eval", probe, *_words(manifest, tmp_path), *data, *more]) == 2
    assert said in capsys.readouterr().err


def test_segment_refuses_several_processes(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"RANK": 0, "WORLD_SIZE": 2, "LOCAL_RANK": 0, "MASTER_ADDR": "x", "MASTER_PORT": 1}.items():
        monkeypatch.setenv(name, str(value))
    assert main(["eval", "segment", *_words(manifest, tmp_path), "--masks", "mask"]) == 2
    assert "one process" in capsys.readouterr().err
