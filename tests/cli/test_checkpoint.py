"""`dinov2 checkpoint` on checkpoints of a small but complete state."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from dinov2.bench.checkpoint import real_state
from dinov2.checkpoint.store import CheckpointStore, Retention
from dinov2.cli import main
from dinov2.config.load import load_config
from dinov2.config.schema import Config
from dinov2.models.weights import read_weights
from tests.integration.runs import TINY

SEPARATE = ["ibot.separate_head=true", "checkpoint.keep_last=1", "checkpoint.keep_best=1"]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    file = tmp_path_factory.mktemp("config") / "tiny.yaml"
    file.write_text(TINY)
    return load_config(file, overrides=SEPARATE).config


@pytest.fixture(scope="module")
def state(config: Config) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return real_state(config, device=torch.device("cpu"), shard=False)


@pytest.fixture
def run(tmp_path: Path, config: Config, state: dict[str, torch.Tensor]) -> Path:
    store = CheckpointStore(tmp_path / "run" / "checkpoints", retention=Retention(keep_last=1, keep_best=1))
    for step, score in ((4, 0.75), (8, 0.5)):
        facts = {"position": 4 * step, "global_batch": 4, "world_size": 1, "config": asdict(config)}
        store.save(step, tensors=state, facts=facts, score=score)
    return tmp_path / "run"


def command(capsys: pytest.CaptureFixture[str], *words: object, code: int = 0) -> str:
    assert main(["checkpoint", *map(str, words)]) == code
    said = capsys.readouterr()
    return said.out + said.err


def test_ls_tells_why_each_is_kept_and_what_is_wrong(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "checkpoints" / ".partial-12").mkdir()
    rows = json.loads(command(capsys, "ls", run, "--json"))["checkpoints"]
    assert [(row["step"], row["kept"], row["wrong"], row["score"]) for row in rows] == [
        (4, ["best"], None, 0.75),
        (8, ["latest", "last 1"], None, 0.5),
    ]
    assert (run / "checkpoints" / ".partial-12").is_dir(), "looking removes nothing: the run may be writing"
    said = command(capsys, "ls", run)
    assert ".partial-12: being written now" in said
    assert "next: dinov2 checkpoint show" in said
    (run / "checkpoints" / "8" / "__0_0.distcp").unlink()
    said = command(capsys, "ls", run)
    assert "cannot be found" in said
    assert f"next: dinov2 checkpoint verify {run}/checkpoints/8" in said.replace("\n", "")


def test_ls_of_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no run folder" in command(capsys, "ls", tmp_path / "nowhere", code=2)


def test_show_tells_progress_parts_and_settings(
    run: Path, state: dict[str, torch.Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    said = json.loads(command(capsys, "show", run, "--json"))
    assert (said["step"], said["total_steps"], said["pictures_seen"], said["global_batch"]) == (8, 12, 32, 4)
    assert sum(part["num_values"] for part in said["parts"]) == sum(tensor.numel() for tensor in state.values())
    assert sum(part["num_tensors"] for part in said["parts"]) == len(state)
    parts = {(part["side"], part["part"]): part for part in said["parts"]}
    backbone, moments = parts["student", "backbone"], parts["optimizer", "backbone"]
    assert parts["teacher", "backbone"] == backbone | {"side": "teacher"}
    # Two moments and a step for every parameter; all of the backbone's tensors are parameters.
    assert moments["num_values"] == 2 * backbone["num_values"] + backbone["num_tensors"]
    assert said["settings"]["student.embed_dim"] == 32
    assert "student.bias" not in said["settings"]
    assert "train.seed" not in said["settings"], "a default"
    text = command(capsys, "show", run / "checkpoints" / "best")
    assert "step 4 of 12, 16 pictures seen" in text
    assert "student backbone" in text


def test_the_configuration_that_show_prints_gives_the_same_run(
    run: Path, tmp_path: Path, config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "again.yaml").write_text(command(capsys, "show", run, "--config"))
    assert yaml.safe_load((tmp_path / "again.yaml").read_text())["student"]["arch"] == "vit_custom"
    assert load_config(tmp_path / "again.yaml").config == config


def test_a_sound_checkpoint_is_verified(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = command(capsys, "verify", run, "--all")
    assert said.count("every tensor readable, finite and of the shape") == 2
    assert "next: dinov2 export" in said


def test_one_changed_byte_is_found(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = run / "checkpoints" / "8" / "__0_0.distcp"
    bytes_ = bytearray(data.read_bytes())
    bytes_[len(bytes_) // 2] ^= 1
    data.write_bytes(bytes_)
    said = command(capsys, "verify", run, code=2)
    assert "__0_0.distcp: its bytes are not those that were written" in said
    assert f"next: dinov2 checkpoint verify {run}/checkpoints/4" in said


def test_a_lost_file_makes_every_tensor_in_it_a_fault(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / "checkpoints" / "4" / "__0_0.distcp").unlink()
    said = command(capsys, "verify", run / "checkpoints" / "4", code=2)
    assert "__0_0.distcp: cannot be read (No such file or directory)" in said
    assert "networks.student.backbone.cls_token: cannot be read" in said
    assert "more" in said


def test_values_that_are_not_finite_and_other_shapes_are_named(
    tmp_path: Path, config: Config, state: dict[str, torch.Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    bad = dict(state)
    weight = bad["networks.student.backbone.norm.weight"].clone()
    weight[:3] = float("nan")
    bad["networks.student.backbone.norm.weight"] = weight
    bad["networks.teacher.backbone.norm.bias"] = torch.zeros(5)
    del bad["optimizer.backbone.norm.bias.exp_avg"]
    bad["extra"] = torch.zeros(1)
    CheckpointStore(tmp_path / "checkpoints").save(1, tensors=bad, facts={"config": asdict(config)})
    said = command(capsys, "verify", tmp_path, code=2)
    assert "networks.student.backbone.norm.weight: 3 of 32 values are not finite" in said
    assert "networks.teacher.backbone.norm.bias: [5], [32] by its configuration" in said
    assert "optimizer.backbone.norm.bias.exp_avg: absent, [32] by its configuration" in said
    assert "extra: unknown to its configuration" in said
    assert "No other checkpoint of this run is all there." in said


def test_consolidated_parts_load_as_weights_and_equal_the_checkpoint(
    run: Path, tmp_path: Path, state: dict[str, torch.Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    said = command(capsys, "consolidate", run / "checkpoints" / "latest", "--output-dir", tmp_path / "plain")
    assert "read back: every value equals" in said
    parts = read_weights(tmp_path / "plain").parts
    assert set(parts) == {"backbone", "dino_head", "ibot_head"}
    for part, tensors in parts.items():
        expected = {
            name.removeprefix(f"networks.teacher.{part}."): tensor
            for name, tensor in state.items()
            if name.startswith(f"networks.teacher.{part}.")
        }
        torch.testing.assert_close(dict(tensors), expected, rtol=0, atol=0)
    assert json.loads((tmp_path / "plain" / "consolidated.json").read_text())["checkpoint"]["step"] == 8
    assert "not empty" in command(capsys, "consolidate", run, "--output-dir", tmp_path / "plain", code=2)


def test_consolidating_all_leaves_out_nothing(
    run: Path, tmp_path: Path, state: dict[str, torch.Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    command(capsys, "consolidate", run, "--output-dir", tmp_path / "plain", "--what", "all")
    files = {
        file.relative_to(tmp_path / "plain").as_posix(): load_file(file)
        for file in sorted(tmp_path.glob("plain/**/*.safetensors"))
    }
    assert sum(len(tensors) for tensors in files.values()) == len(state)
    assert set(files["centers.safetensors"]) == {"dino_loss.center", "ibot_patch_loss.center"}
    moment = files["optimizer/backbone.safetensors"]["blocks.0.attn.qkv.weight.exp_avg"]
    assert torch.equal(moment, state["optimizer.backbone.blocks.0.attn.qkv.weight.exp_avg"])
    student = files["student/dino_head.safetensors"]
    assert all(torch.equal(value, state[f"networks.student.dino_head.{name}"]) for name, value in student.items())


def test_a_side_that_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    CheckpointStore(tmp_path / "checkpoints").save(1, tensors={"networks.student.backbone.a": torch.ones(1)}, facts={})
    said = command(capsys, "consolidate", tmp_path, "--output-dir", tmp_path / "plain", code=2)
    assert "holds no teacher, only student" in said
    assert not (tmp_path / "plain").exists()
