"""Weights to start from, judged by their headers."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dinov2.forecast.rehearsal import Rehearsal
from dinov2.forecast.weights import weight_faults
from dinov2.models.registry import build_backbone
from tests.forecast.steps import formats_of, small_config


def faults(*words: str) -> list[str]:
    config = small_config(*words)
    return list(weight_faults(config, Rehearsal(config, formats=formats_of(config), num_processes=1, on_gpu=True)))


def write_backbone(file: Path, *words: str, img_size: int = 64) -> Path:
    config = small_config(*words)
    state = build_backbone(config.student, img_size=img_size, drop_path_rate=0, attention="sdpa").state_dict()
    if file.suffix == ".safetensors":
        save_file(state, file)
    else:
        torch.save({"model": state}, file)
    return file


@pytest.mark.parametrize("name", ["backbone.safetensors", "backbone.pth"])
def test_weights_that_fit_are_no_fault_though_their_position_table_is_resampled(tmp_path: Path, name: str) -> None:
    file = write_backbone(tmp_path / name, img_size=80)
    assert faults(f"student.pretrained_weights={file}") == []
    assert faults(f"student.pretrained_weights={file}", "runtime.precision=bf16") == []


def test_an_export_folder_fills_the_head_too(tmp_path: Path) -> None:
    write_backbone(tmp_path / "backbone.safetensors")
    save_file({"last_layer.weight_v": torch.zeros(3, 3)}, tmp_path / "dino_head.safetensors")
    (fault,) = faults(f"student.pretrained_weights={tmp_path}")
    assert "dino_head" in fault
    assert "last_layer.weight_v: [3, 3] in the file, [512, 64] in the model" in fault
    assert faults(f"student.pretrained_weights={tmp_path}", "init_from.dino_head=none") == []


def test_another_patch_size_is_named_with_both_shapes(tmp_path: Path) -> None:
    file = write_backbone(tmp_path / "backbone.pth", "student.patch_size=16")
    (fault,) = faults(f"student.pretrained_weights={file}")
    assert "patch_embed.proj.weight: [96, 3, 16, 16] in the file, [96, 3, 8, 8] in the model" in fault


def test_files_that_are_not_there_or_cut_short_are_all_named(tmp_path: Path) -> None:
    whole = write_backbone(tmp_path / "backbone.safetensors")
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(whole.read_bytes()[:1000])
    found = faults(f"student.pretrained_weights={tmp_path / 'none.pth'}", f"init_from.dino_head={cut}")
    assert len(found) == 2
    assert "no such file" in found[0]
    assert "cannot be read as weights" in found[1]


def test_a_hub_id_that_is_in_the_cache_is_judged_like_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = tmp_path / "models--owner--name" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (tmp_path / "models--owner--name" / "refs").mkdir()
    (tmp_path / "models--owner--name" / "refs" / "main").write_text("a" * 40)
    write_backbone(snapshot / "model.safetensors", "student.patch_size=16")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (fault,) = faults("student.pretrained_weights=owner/name")
    assert "patch_embed.proj.weight: [96, 3, 16, 16] in the file, [96, 3, 8, 8] in the model" in fault
    (fault,) = faults("student.pretrained_weights=owner/other")
    assert "no model of this name in the Hugging Face cache" in fault
