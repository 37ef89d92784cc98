from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.testing import assert_close

from dinov2.config.schema import Config
from dinov2.errors import CheckpointError, WeightsError
from dinov2.formats.native import write_dinov2
from dinov2.formats.source import Source
from dinov2.formats.sources import open_source
from dinov2.layers import DINOHead
from dinov2.models.key_maps import to_transformers
from dinov2.ssl import Networks
from tests.formats.saved_runs import save_checkpoint, small_vit, tiny_config, unlike_networks


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return tiny_config(tmp_path, "student.num_register_tokens=2")


@pytest.fixture
def networks(config: Config) -> Networks:
    return unlike_networks(config)


def assert_same_tensors(one: nn.Module, other: nn.Module) -> None:
    theirs = other.state_dict()
    assert one.state_dict().keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in one.state_dict().items())


@pytest.mark.parametrize("which", ["teacher", "student"])
def test_a_run_gives_either_network_of_its_newest_checkpoint(
    which: str, networks: Networks, config: Config, tmp_path: Path
) -> None:
    save_checkpoint(tmp_path / "run", unlike_networks(config, seed=9), config=config, step=2)
    newest = save_checkpoint(tmp_path / "run", networks, config=config, step=10)
    source = open_source(tmp_path / "run", which=which, heads=True)
    parts = networks.parts(which)
    assert_same_tensors(source.backbone, parts["backbone"])
    assert set(source.heads) == set(source.card.heads) == {"dino_head", "ibot_head"}
    for name, head in source.heads.items():
        assert_same_tensors(head, parts[name])
    assert (source.network, source.origin, source.card.step) == (which, str(newest), 10)
    assert source.card.provenance["pictures_seen"] == 40
    assert not source.backbone.training


def test_the_student_has_no_drop_path_when_it_leaves(networks: Networks, config: Config, tmp_path: Path) -> None:
    checkpoint = save_checkpoint(tmp_path / "run", networks, config=config)
    assert config.student.drop_path_rate > 0
    student = open_source(checkpoint, which="student").backbone.train()
    pictures = torch.randn(4, 3, 32, 32)
    assert_close(student(pictures), networks.student["backbone"].eval()(pictures))


def test_centres_come_with_the_heads_as_one_value_per_prototype(
    networks: Networks, config: Config, tmp_path: Path
) -> None:
    checkpoint = save_checkpoint(tmp_path / "run", networks, config=config)
    source = open_source(checkpoint, heads=True)
    assert torch.equal(source.centers["dino_center"], networks.dino_loss.center.flatten())
    assert torch.equal(source.centers["ibot_center"], networks.ibot_patch_loss.center.flatten())
    bare = open_source(checkpoint)
    assert (dict(bare.heads), dict(bare.centers), bare.card.heads) == ({}, {}, {})


def test_a_run_that_kept_exports_alone_gives_its_newest_export(
    networks: Networks, config: Config, tmp_path: Path
) -> None:
    whole = open_source(save_checkpoint(tmp_path / "other", networks, config=config), heads=True)
    write_dinov2(whole, tmp_path / "run" / "exports" / "4", with_heads=True)
    source = open_source(tmp_path / "run", heads=True)
    assert_same_tensors(source.backbone, whole.backbone)
    assert set(source.heads) == {"dino_head", "ibot_head"}


def test_an_export_comes_back_with_its_heads_centres_and_card(
    networks: Networks, config: Config, tmp_path: Path
) -> None:
    first = open_source(save_checkpoint(tmp_path / "run", networks, config=config), heads=True)
    write_dinov2(first, tmp_path / "export", with_heads=True)
    again = open_source(tmp_path / "export", heads=True)
    for name, head in again.heads.items():
        assert_same_tensors(head, first.heads[name])
    assert {name: center.tolist() for name, center in again.centers.items()} == {
        name: center.tolist() for name, center in first.centers.items()
    }
    assert again.card.heads == first.card.heads
    assert again.card.provenance["config"]["optim"] == first.card.provenance["config"]["optim"]


def test_a_card_is_made_up_for_weights_that_have_none(tmp_path: Path) -> None:
    vit = small_vit(num_register_tokens=4)
    torch.save(vit.state_dict(), tmp_path / "weights.pth")
    source = open_source(tmp_path / "weights.pth")
    card = source.card
    assert (card.arch, card.resolution_px, card.in_chans, card.step) == ("vit_custom", 70, 3, 0)
    assert card.architecture["num_register_tokens"] == 4
    assert card.architecture["interpolate_antialias"]
    assert card.provenance["source"] == str(tmp_path / "weights.pth")
    assert "config" not in card.provenance
    write_dinov2(source, tmp_path / "export")
    assert_same_tensors(open_source(tmp_path / "export").backbone, vit)


def test_a_public_size_keeps_its_name(tmp_path: Path) -> None:
    torch.manual_seed(0)
    vit = small_vit(embed_dim=384, depth=12, num_heads=6)
    save_file(vit.state_dict(), tmp_path / "weights.safetensors")
    assert open_source(tmp_path / "weights.safetensors").card.arch == "vit_small"


def test_a_hub_id_is_opened_from_the_cache_with_the_head_that_lies_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vit, head = small_vit(), DINOHead(in_dim=64, out_dim=128, hidden_dim=32, bottleneck_dim=16, nlayers=3)
    repository = tmp_path / "hub" / "models--someone--films"
    folder = repository / "snapshots" / ("0" * 40)
    folder.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    save_file(to_transformers(vit.state_dict()), folder / "model.safetensors", metadata={"format": "pt"})
    save_file(head.state_dict(), folder / "dino_head.safetensors")
    (folder / "config.json").write_text('{"model_type": "dinov2", "num_attention_heads": 1, "image_size": 70}')
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    source = open_source("someone/films", heads=True, revision="main")
    assert_same_tensors(source.backbone, vit)
    assert_same_tensors(source.heads["dino_head"], head)
    assert source.card.heads["dino_head"]["nlayers"] == 3
    assert (source.card.provenance["source"], source.card.provenance["revision"]) == ("someone/films", "main")


@pytest.mark.parametrize("nlayers", [1, 2])
def test_a_head_is_rebuilt_from_its_sizes(nlayers: int, tmp_path: Path) -> None:
    head = DINOHead(in_dim=64, out_dim=96, hidden_dim=40, bottleneck_dim=24, nlayers=nlayers, use_bn=nlayers > 1)
    save_file(small_vit().state_dict(), tmp_path / "backbone.safetensors")
    save_file(head.state_dict(), tmp_path / "dino_head.safetensors")
    source = open_source(tmp_path, heads=True)
    assert_same_tensors(source.heads["dino_head"], head)
    tokens = torch.randn(3, 64)
    assert_close(source.heads["dino_head"](tokens), head.eval()(tokens))


def test_a_head_of_another_width_is_refused(tmp_path: Path) -> None:
    save_file(small_vit().state_dict(), tmp_path / "backbone.safetensors")
    save_file(
        DINOHead(in_dim=32, out_dim=96, hidden_dim=40, bottleneck_dim=24).state_dict(),
        tmp_path / "dino_head.safetensors",
    )
    with pytest.raises(WeightsError, match="takes tokens of width 32, its backbone gives 64"):
        open_source(tmp_path, heads=True)
    assert isinstance(open_source(tmp_path), Source)


def test_only_checkpoints_hold_a_student(tmp_path: Path) -> None:
    save_file(small_vit().state_dict(), tmp_path / "weights.safetensors")
    with pytest.raises(WeightsError, match="only checkpoints hold a student"):
        open_source(tmp_path / "weights.safetensors", which="student")


def test_a_damaged_newest_checkpoint_is_not_passed_over(networks: Networks, config: Config, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "run", networks, config=config, step=2)
    newest = save_checkpoint(tmp_path / "run", networks, config=config, step=4)
    next(newest.glob("*.distcp")).unlink()
    with pytest.raises(CheckpointError, match=r"The newest that is all there is .*/2"):
        open_source(tmp_path / "run")


def test_a_name_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="nothing: no such f"):
        open_source(tmp_path / "nothing")
