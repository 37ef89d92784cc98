import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

import dinov2.formats.native as native
from dinov2.backbone_card import read_card
from dinov2.checkpoint.export import load_exported
from dinov2.errors import WeightsError
from dinov2.formats import Source, load_backbone
from dinov2.formats.native import write_dinov2
from dinov2.formats.sources import open_source
from dinov2.layers import DINOHead
from dinov2.models.vision_transformer import DinoVisionTransformer
from tests.formats.saved_runs import card_of, save_checkpoint, small_vit, tiny_config, unlike_networks


@pytest.fixture
def source(tmp_path: Path) -> Source:
    config = tiny_config(tmp_path)
    return open_source(save_checkpoint(tmp_path / "run", unlike_networks(config), config=config), heads=True)


def test_every_file_holds_the_bits_of_its_source(source: Source, tmp_path: Path) -> None:
    written = write_dinov2(source, tmp_path / "export", with_heads=True)
    assert [file.name for file in written.files] == [
        "backbone.safetensors",
        "backbone_card.json",
        "centers.safetensors",
        "dino_head.safetensors",
        "ibot_head.safetensors",
    ]
    for name, module in {"backbone": source.backbone, **source.heads}.items():
        file = load_file(tmp_path / "export" / f"{name}.safetensors")
        assert file.keys() == module.state_dict().keys()
        assert all(torch.equal(file[key], tensor) for key, tensor in module.state_dict().items())
    again = write_dinov2(open_source(tmp_path / "export", heads=True), tmp_path / "again", with_heads=True)
    for first, second in zip(written.files, again.files, strict=True):
        assert first.read_bytes() == second.read_bytes()


def test_the_public_constructors_load_the_files_with_strict(source: Source, tmp_path: Path) -> None:
    folder = write_dinov2(source, tmp_path / "export", with_heads=True).folder
    public = DinoVisionTransformer(
        img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, init_values=1.0, block_chunks=0
    )
    public.load_state_dict(load_file(folder / "backbone.safetensors"), strict=True)
    head = DINOHead(in_dim=32, out_dim=64, hidden_dim=32, bottleneck_dim=16, nlayers=3)
    head.load_state_dict(load_file(folder / "dino_head.safetensors"), strict=True)
    centers = load_file(folder / "centers.safetensors")
    assert {name: list(center.shape) for name, center in centers.items()} == {
        "dino_loss.center": [1, 64],
        "ibot_patch_loss.center": [1, 1, 64],
    }


def test_a_head_of_the_real_size_loads_with_strict(tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = {"in_dim": 768, "out_dim": 65536, "hidden_dim": 2048, "bottleneck_dim": 256, "nlayers": 3}
    vit = small_vit(embed_dim=768, num_heads=12, depth=1, img_size=28)
    card = card_of(vit, heads={"dino_head": sizes})
    source = Source(backbone=vit, card=card, heads={"dino_head": DINOHead(**sizes).eval()})
    folder = write_dinov2(source, tmp_path / "export", with_heads=True).folder
    head = DINOHead(in_dim=768, out_dim=65536, hidden_dim=2048, bottleneck_dim=256, nlayers=3)
    head.load_state_dict(load_file(folder / "dino_head.safetensors"), strict=True)
    assert torch.equal(head.last_layer.weight_v, source.heads["dino_head"].last_layer.weight_v)


def test_the_backbone_alone_has_a_card_without_heads(source: Source, tmp_path: Path) -> None:
    written = write_dinov2(source, tmp_path / "export")
    assert [file.name for file in written.files] == ["backbone.safetensors", "backbone_card.json"]
    assert read_card(tmp_path / "export").heads == {}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_smaller_number_format_is_written_rounded_and_said(dtype: Any, source: Source, tmp_path: Path) -> None:
    written = write_dinov2(source, tmp_path / "export", dtype=dtype, licence="mit", with_heads=True)
    tensors = load_file(tmp_path / "export" / "backbone.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {getattr(torch, dtype)}
    for name, tensor in source.backbone.state_dict().items():
        assert torch.equal(tensors[name], tensor.to(getattr(torch, dtype)))
    provenance = read_card(tmp_path / "export").provenance
    assert (provenance["dtype"], provenance["licence"], provenance["network"]) == (dtype, "mit", "teacher")
    assert any(f"rounding to {dtype} moves the CLS token" in check for check in written.checks)
    pictures = torch.randn(2, 3, 32, 32)
    assert_close(load_backbone(tmp_path / "export")(pictures), source.backbone(pictures), atol=0.05, rtol=0.05)
    assert set(load_exported(tmp_path / "export")[1]) == {"dino_head", "ibot_head"}


def test_a_value_that_a_format_cannot_hold_is_refused(source: Source, tmp_path: Path) -> None:
    backbone = copy.deepcopy(source.backbone)
    with torch.no_grad():
        backbone.blocks[1].mlp.fc1.weight[0, 0] = 1e5
    large = replace(source, backbone=backbone)
    with pytest.raises(WeightsError, match=r"blocks\.1\.mlp\.fc1\.weight holds values beyond float16's range"):
        write_dinov2(large, tmp_path / "export", dtype="float16")
    assert not (tmp_path / "export").exists()


def test_a_student_is_said_to_be_one(source: Source, tmp_path: Path) -> None:
    student = open_source(source.origin, which="student")
    folder = write_dinov2(student, tmp_path / "export").folder
    assert read_card(folder).provenance["network"] == "student"


def test_files_that_read_back_as_something_else_get_no_name(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "write_parts", spoiling(native.write_parts))
    with pytest.raises(WeightsError, match="was not written"):
        write_dinov2(source, tmp_path / "export")
    assert not (tmp_path / "export").exists()
    assert not (tmp_path / ".partial-export").exists()


def spoiling(write_parts: Callable[..., None]) -> Callable[..., None]:
    """Writes as it should, then changes one tensor on the disk."""

    def write(*arguments: Any, folder: Path, **words: Any) -> None:
        write_parts(*arguments, folder=folder, **words)
        tensors = load_file(folder / "backbone.safetensors")
        tensors["blocks.0.attn.proj.weight"] *= 1.5
        save_file(tensors, folder / "backbone.safetensors")

    return write
