from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from dinov2.checkpoint.export import export_teacher, make_card
from dinov2.checkpoint.store import CheckpointStore
from dinov2.config.load import load_config
from dinov2.config.schema import Config
from dinov2.errors import WeightsError
from dinov2.eval.backbones import DinoBackbone, open_backbone
from dinov2.eval.backbones.ours import dino_traits
from dinov2.models.vision_transformer import DinoVisionTransformer
from dinov2.ssl import Networks, build_networks
from tests.integration.runs import TINY


@pytest.fixture
def config(tmp_path: Path) -> Config:
    file = tmp_path / "tiny.yaml"
    file.write_text(TINY)
    return load_config(file, overrides=["student.num_register_tokens=2"]).config


def networks_of(config: Config, *, seed: int) -> Networks:
    torch.manual_seed(seed)
    return build_networks(
        student=config.student, dino=config.dino, ibot=config.ibot, img_size=32, attention="sdpa", reductions=None
    )


def export(config: Config, folder: Path, *, seed: int) -> DinoVisionTransformer:
    teacher = dict(networks_of(config, seed=seed).teacher.items())
    export_teacher(teacher, card=make_card(config, teacher, step=int(folder.name), provenance={}), folder=folder)
    vit = teacher["backbone"].eval()
    assert isinstance(vit, DinoVisionTransformer)
    return vit


def tiny(**arguments: object) -> DinoVisionTransformer:
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 2}
    return DinoVisionTransformer(**(sizes | arguments)).eval()


def backbone_of(vit: DinoVisionTransformer) -> DinoBackbone:
    return DinoBackbone(vit, traits=dino_traits(vit, name="tiny"))


def test_layers_are_the_last_blocks_last_block_last_each_through_the_final_norm() -> None:
    vit = tiny(num_register_tokens=2)
    pictures = torch.randn(2, 3, 16, 40)
    layers = backbone_of(vit).layers(pictures, 2)
    for tokens, block in zip(layers, (1, 2), strict=True):
        ((patches, cls),) = vit.get_intermediate_layers(pictures, [block], return_class_token=True)
        assert_close(tokens.cls, cls)
        assert_close(tokens.patches, patches)
        assert tokens.grid == (2, 5)
        assert tokens.patches is not None
        assert tokens.patches.shape == (2, 10, 32)
    features = vit.forward_features(pictures)
    assert_close(layers[-1].cls, features["x_norm_clstoken"])
    assert_close(backbone_of(vit)(pictures).patches, features["x_norm_patchtokens"])


def test_a_grey_network_sees_of_a_grey_picture_what_its_one_channel_says() -> None:
    vit = tiny(in_chans=1)
    grey = torch.randn(2, 1, 32, 32)
    assert_close(backbone_of(vit)(grey.expand(-1, 3, -1, -1)).cls, vit(grey), atol=1e-5, rtol=1e-5)


def test_parts_hold_every_parameter_once_from_the_input_to_the_output() -> None:
    backbone = backbone_of(tiny(num_register_tokens=2))
    parts = backbone.parts()
    assert len(parts) == 1 + 3 + 1
    names = [name for part in parts for name, _ in part]
    assert sorted(names) == sorted(name for name, _ in backbone.named_parameters())
    assert {name.split(".")[1] for name, _ in parts[0]} == {
        "cls_token",
        "pos_embed",
        "mask_token",
        "register_tokens",
        "patch_embed",
    }
    assert all(name.startswith("vit.blocks.1.") for name, _ in parts[2])
    assert [name for name, _ in parts[-1]] == ["vit.norm.weight", "vit.norm.bias"]


@pytest.mark.parametrize("n", [0, 4])
def test_blocks_that_do_not_exist_are_refused(n: int) -> None:
    with pytest.raises(ValueError, match=f"{n} blocks were asked for; this backbone gives 1 to 3"):
        backbone_of(tiny()).layers(torch.randn(1, 3, 32, 32), n)


def test_a_side_that_is_no_multiple_of_the_patch_is_refused() -> None:
    with pytest.raises(ValueError, match="30 x 32 pixels; each side must be a multiple of 8"):
        backbone_of(tiny()).layers(torch.randn(1, 3, 30, 32), 1)


def test_random_backbones_are_the_same_every_time_and_leave_the_random_state_alone() -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first = open_backbone("random:vit_small/16@64")
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(8)
    second = open_backbone("random:vit_small/16@64")
    assert first.traits == second.traits
    assert (first.traits.input_size, first.traits.patch_size, first.traits.embed_dim) == (64, 16, 384)
    pictures = torch.randn(1, 3, 32, 32)
    assert torch.equal(first(pictures).cls, second(pictures).cls)
    assert not first.training


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("random:vit_smal", "did you mean random:vit_small"),
        ("random:vit_small/16@100", "100 pixels is no multiple of the patch of 16"),
        ("random:", "for example random:vit_small/16@224"),
    ],
)
def test_a_wrong_random_name_says_what_is_possible(name: str, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        open_backbone(name)


def test_an_export_opens_with_its_cards_mean_deviation_and_size(config: Config, tmp_path: Path) -> None:
    vit = export(config, tmp_path / "run" / "exports" / "12", seed=1)
    backbone = open_backbone(str(tmp_path / "run" / "exports" / "12"))
    pictures = torch.randn(2, 3, 48, 32)
    assert_close(backbone(pictures).cls, vit(pictures), atol=1e-6, rtol=0)
    assert backbone.traits.mean == (0.53, 0.53, 0.53)
    assert backbone.traits.std == (0.26, 0.26, 0.26)
    assert backbone.traits.input_size == 32
    assert backbone.traits.depth == 2
    by_file = open_backbone(str(tmp_path / "run" / "exports" / "12" / "backbone.safetensors"))
    assert by_file.traits.mean == (0.53, 0.53, 0.53)


def test_a_run_folder_opens_its_newest_export_and_says_which(config: Config, tmp_path: Path) -> None:
    export(config, tmp_path / "run" / "exports" / "9", seed=1)
    newest = export(config, tmp_path / "run" / "exports" / "12", seed=2)
    backbone = open_backbone(str(tmp_path / "run"))
    pictures = torch.randn(1, 3, 32, 32)
    assert_close(backbone(pictures).cls, newest(pictures), atol=1e-6, rtol=0)
    assert backbone.traits.name == str(tmp_path / "run" / "exports" / "12")


def test_a_run_without_exports_opens_the_teacher_of_its_newest_checkpoint(config: Config, tmp_path: Path) -> None:
    networks = networks_of(config, seed=3)
    store = CheckpointStore(tmp_path / "run" / "checkpoints")
    tensors = {f"networks.{name}": tensor for name, tensor in networks.state_dict().items()}
    store.save(4, tensors=tensors, facts={"step": 4, "position": 16, "config": asdict(config)})
    store.close()
    pictures = torch.randn(1, 3, 32, 32)
    teacher = networks.teacher["backbone"].eval()
    for name in ("run", "run/checkpoints/4"):
        backbone = open_backbone(str(tmp_path / name))
        assert_close(backbone(pictures).cls, teacher(pictures), atol=1e-6, rtol=0)
        assert backbone.traits.name == str(tmp_path / "run" / "checkpoints" / "4")
        assert all(parameter.requires_grad for parameter in backbone.parameters())


def test_a_run_that_has_kept_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    with pytest.raises(WeightsError, match="holds no export and no whole checkpoint"):
        open_backbone(str(tmp_path / "run"))
