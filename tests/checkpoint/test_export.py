import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import dinov2
from dinov2.backbone_card import read_card
from dinov2.checkpoint.export import check_export, export_teacher, load_exported, make_card
from dinov2.config.load import load_config
from dinov2.config.schema import Config
from dinov2.errors import CheckpointError, WeightsError
from dinov2.models.vision_transformer import DinoVisionTransformer
from dinov2.ssl import Networks, build_networks
from tests.integration.runs import TINY


@pytest.fixture
def config(tmp_path: Path) -> Config:
    file = tmp_path / "tiny.yaml"
    file.write_text(TINY)
    return load_config(file, overrides=["ibot.separate_head=true", "student.num_register_tokens=2"]).config


@pytest.fixture
def networks(config: Config) -> Networks:
    torch.manual_seed(0)
    return build_networks(
        student=config.student, dino=config.dino, ibot=config.ibot, img_size=32, attention="sdpa", reductions=None
    )


def export(networks: Networks, config: Config, folder: Path) -> Path:
    teacher = dict(networks.teacher.items())
    return export_teacher(teacher, card=make_card(config, teacher, step=7, provenance={"pictures": 3}), folder=folder)


def test_exported_files_load_strictly_and_give_the_teachers_features(
    networks: Networks, config: Config, tmp_path: Path
) -> None:
    folder = export(networks, config, tmp_path / "export")
    assert sorted(p.name for p in folder.iterdir()) == [
        "backbone.safetensors",
        "backbone_card.json",
        "dino_head.safetensors",
        "ibot_head.safetensors",
    ]
    backbone, heads = load_exported(folder)
    pictures = torch.randn(2, 3, 40, 24)
    teacher = networks.teacher["backbone"].eval()
    ours = backbone.forward_features(pictures)["x_norm_clstoken"]
    torch.testing.assert_close(ours, teacher.forward_features(pictures)["x_norm_clstoken"], atol=1e-6, rtol=0)
    assert set(heads) == {"dino_head", "ibot_head"}
    assert not backbone.training


def test_the_public_constructor_loads_the_backbone_file_with_strict(
    networks: Networks, config: Config, tmp_path: Path
) -> None:
    folder = export(networks, config, tmp_path / "export")
    public = DinoVisionTransformer(
        img_size=32,
        patch_size=8,
        embed_dim=32,
        depth=2,
        num_heads=2,
        mlp_ratio=4,
        init_values=1.0,
        num_register_tokens=2,
        block_chunks=0,
    )
    report = public.load_state_dict(load_file(folder / "backbone.safetensors"), strict=True)
    assert (report.missing_keys, report.unexpected_keys) == ([], [])


def test_the_card_says_what_a_user_must_know(networks: Networks, config: Config, tmp_path: Path) -> None:
    card = read_card(export(networks, config, tmp_path / "export"))
    assert (card.step, card.resolution_px, card.in_chans) == (7, 32, 3)
    assert card.mean == (0.53, 0.53, 0.53)
    assert card.provenance["pictures"] == 3
    assert card.provenance["config"]["train"]["centering"] == "sinkhorn_knopp"


def test_load_backbone_is_at_the_packages_door(networks: Networks, config: Config, tmp_path: Path) -> None:
    assert dinov2.load_backbone(export(networks, config, tmp_path / "export")).embed_dim == 32


def test_files_that_compute_something_else_are_refused(networks: Networks, config: Config, tmp_path: Path) -> None:
    folder = export(networks, config, tmp_path / "export")
    tensors = load_file(folder / "backbone.safetensors")
    tensors["blocks.0.attn.proj.weight"] *= 1.5
    save_file(tensors, folder / "backbone.safetensors")
    with pytest.raises(CheckpointError, match="features of the files differ from the teacher's"):
        check_export(dict(networks.teacher.items()), folder)


def test_a_card_that_disagrees_with_the_weights_is_refused(networks: Networks, config: Config, tmp_path: Path) -> None:
    folder = export(networks, config, tmp_path / "export")
    card = json.loads((folder / "backbone_card.json").read_text())
    card["architecture"]["depth"] = 3
    (folder / "backbone_card.json").write_text(json.dumps(card))
    with pytest.raises(WeightsError, match="does not fit its card"):
        load_exported(folder)


def test_a_folder_without_a_card_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no backbone_card\.json here"):
        load_exported(tmp_path)


def test_a_card_of_another_format_is_refused(networks: Networks, config: Config, tmp_path: Path) -> None:
    folder = export(networks, config, tmp_path / "export")
    text = (folder / "backbone_card.json").read_text()
    (folder / "backbone_card.json").write_text(text.replace('"format": 1', '"format": 99'))
    with pytest.raises(WeightsError, match="format 99"):
        load_exported(folder)


def test_a_folder_that_cannot_be_written_is_refused(networks: Networks, config: Config, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="the export could not be written"):
        export(networks, config, tmp_path / "file" / "export")
