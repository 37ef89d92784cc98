"""Weights from anywhere into a folder of ours."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.testing import assert_close

from dinov2.backbone_card import read_card
from dinov2.errors import WeightsError
from dinov2.formats import open_vit
from dinov2.formats.importing import Changes, import_weights
from dinov2.formats.transformers_form import processor_config
from dinov2.layers import DINOHead
from dinov2.models import DinoVisionTransformer, read_weights
from dinov2.models.key_maps import to_transformers

CXR_MEAN, CXR_STD = [0.5307] * 3, [0.2583] * 3


def network(**arguments: object) -> DinoVisionTransformer:
    torch.manual_seed(1)
    small = {"img_size": 70, "patch_size": 14, "embed_dim": 64, "depth": 2, "num_heads": 1, "init_values": 1.0}
    vit = DinoVisionTransformer(**(small | arguments))
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.normal_(std=0.1)
    return vit.eval()


def copied(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def raddino_folder(folder: Path) -> tuple[DinoVisionTransformer, DINOHead]:
    """The files of the public folder, small."""
    vit, head = network(interpolate_offset=0.0), DINOHead(64, 32, hidden_dim=16, bottleneck_dim=8)
    folder.mkdir()
    save_file(to_transformers(copied(vit)), folder / "model.safetensors")
    save_file(copied(vit), folder / "backbone_compatible.safetensors")
    save_file(copied(head), folder / "dino_head.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "dinov2", "num_attention_heads": 1}))
    processor = {"image_mean": CXR_MEAN, "image_std": CXR_STD, "crop_size": {"height": 70, "width": 70}}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return vit, head


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_rad_dino_s_folder_becomes_one_of_ours_with_its_head_and_its_origin(tmp_path: Path) -> None:
    vit, head = raddino_folder(tmp_path / "rad")
    imported = import_weights(tmp_path / "rad", folder=tmp_path / "ours")
    assert same(load_file(tmp_path / "ours" / "backbone.safetensors"), copied(vit))
    assert same(load_file(tmp_path / "ours" / "dino_head.safetensors"), copied(head))
    opened = open_vit(tmp_path / "ours")
    assert opened.mean == tuple(CXR_MEAN)
    assert opened.std == tuple(CXR_STD)
    pictures = torch.randn(1, 3, 42, 56)
    assert_close(opened.vit(pictures), vit(pictures), atol=1e-6, rtol=1e-6)
    said = read_card(tmp_path / "ours").provenance["imported"]
    assert said["source"] == str(tmp_path / "rad")
    sums = {
        name: hashlib.sha256((tmp_path / "rad" / name).read_bytes()).hexdigest()
        for name in ("backbone_compatible.safetensors", "dino_head.safetensors")
    }
    assert said["sha256"] == sums
    assert "features of the source itself differ by at most 0" in imported.checks
    assert f"{len(copied(vit)) + len(copied(head))} tensors are those of the source bit for bit" in imported.checks


def test_every_adaptation_is_said_and_grey_pictures_keep_their_features(tmp_path: Path) -> None:
    vit, _ = raddino_folder(tmp_path / "rad")
    changes = Changes(in_chans=1, registers=2, size_px=98)
    imported = import_weights(tmp_path / "rad", folder=tmp_path / "ours", changes=changes)
    report = imported.reports["backbone"]
    assert report.resized == (
        "pos_embed: 5 x 5 patches resampled to 7 x 7",
        "patch_embed.proj.weight: 3 channels summed to 1",
    )
    assert report.missing == ("register_tokens",)
    card = read_card(tmp_path / "ours")
    assert (card.in_chans, card.mean, card.std, card.resolution_px) == (1, (0.5307,), (0.2583,), 98)
    assert len(card.provenance["imported"]["changes"]) == 3
    changes = Changes(in_chans=1, size_px=98)
    import_weights(tmp_path / "rad", folder=tmp_path / "grey", changes=changes)
    grey = torch.randn(1, 1, 98, 98)
    assert_close(open_vit(tmp_path / "grey").vit(grey), vit(grey.expand(-1, 3, -1, -1)), atol=1e-5, rtol=1e-5)


def test_importing_twice_writes_the_same_bytes(tmp_path: Path) -> None:
    raddino_folder(tmp_path / "rad")
    for name in ("first", "second"):
        import_weights(tmp_path / "rad", folder=tmp_path / name, changes=Changes(registers=4))
    first, second = ((tmp_path / name / "backbone.safetensors").read_bytes() for name in ("first", "second"))
    assert first == second


def test_an_import_of_an_import_keeps_the_card_and_can_change_it_again(tmp_path: Path) -> None:
    torch.save(copied(network(img_size=(42, 70))), tmp_path / "oblong.pth")
    with pytest.raises(WeightsError, match="position table are not square; give an export, whose card says all"):
        import_weights(tmp_path / "oblong.pth", folder=tmp_path / "none")
    torch.save(copied(network()), tmp_path / "w.pth")
    import_weights(tmp_path / "w.pth", folder=tmp_path / "first")
    card = read_card(tmp_path / "first")
    card.architecture["img_size"] = [42, 70]  # a table of 3 x 5 patches, as only a card can say
    card.write(tmp_path / "first")
    save_file(copied(network(img_size=(42, 70))), tmp_path / "first" / "backbone.safetensors")
    imported = import_weights(tmp_path / "first", folder=tmp_path / "second", changes=Changes(size_px=70))
    assert imported.reports["backbone"].resized == ("pos_embed: 3 x 5 patches resampled to 5 x 5",)


def test_centres_and_the_student_come_along(tmp_path: Path) -> None:
    vit, head = network(), DINOHead(64, 32, hidden_dim=16, bottleneck_dim=8)
    dump = {"dino_loss.center": torch.randn(1, 32), "ibot_patch_loss.center": torch.randn(1, 1, 32)}
    for side, factor in (("student", 1.0), ("teacher", 2.0)):
        for part, module in (("backbone", vit), ("dino_head", head)):
            dump |= {f"{side}.{part}.{name}": tensor * factor for name, tensor in copied(module).items()}
    torch.save({"model": dump, "iteration": 3}, tmp_path / "checkpoint.pth")
    import_weights(tmp_path / "checkpoint.pth", folder=tmp_path / "student", which="student")
    back = read_weights(tmp_path / "student")
    assert same(back.part("backbone"), copied(vit))
    assert torch.equal(back.centers["ibot_center"], dump["ibot_patch_loss.center"].flatten())
    assert read_card(tmp_path / "student").provenance["network"] == "student"


def test_what_is_unexplained_is_an_error_that_names_the_option(tmp_path: Path) -> None:
    state = copied(network())
    del state["norm.bias"]
    torch.save(state | {"extra": torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(WeightsError) as caught:
        import_weights(tmp_path / "w.pth", folder=tmp_path / "ours")
    assert "missing from the file: norm.bias (if that is meant, name them in --allow-missing)" in str(caught.value)
    assert "not in the model: extra (if that is meant, name them in --allow-unexpected)" in str(caught.value)
    assert not (tmp_path / "ours").exists()
    words = {"allow_missing": ("norm.*",), "allow_unexpected": ("extra",)}
    imported = import_weights(tmp_path / "w.pth", folder=tmp_path / "ours", **words)
    assert (imported.reports["backbone"].missing, imported.reports["backbone"].unexpected) == (
        ("norm.bias",),
        ("extra",),
    )


def test_a_start_without_a_position_table_is_made_where_it_is_allowed(tmp_path: Path) -> None:
    state = copied(network(num_register_tokens=4, qkv_bias=False))
    del state["pos_embed"]
    folder = tmp_path / "dinov3"
    folder.mkdir()
    save_file(state, folder / "model.safetensors")
    recipe = {
        "architecture": "vit_small_patch16_dinov3",
        "pretrained_cfg": {"input_size": [3, 56, 56], "mean": [0.5] * 3},
    }
    (folder / "config.json").write_text(json.dumps(recipe))
    with pytest.raises(WeightsError, match=r"rotary positions and no table of them.*--allow-missing pos_embed"):
        open_vit(folder)
    with pytest.raises(WeightsError, match="pos_embed: the file has no table of positions"):
        import_weights(folder, folder=tmp_path / "ours")
    imported = import_weights(folder, folder=tmp_path / "ours", allow_missing=("pos_embed",))
    assert any("which is a start and not the same function" in note for note in imported.reports["backbone"].notes)
    opened = open_vit(tmp_path / "ours")
    assert opened.mean == (0.5, 0.5, 0.5)
    assert opened.vit.patch_embed.patches_resolution == (4, 4)


def refusal(source: Path, target: Path, **words: object) -> str:
    with pytest.raises(WeightsError) as caught:
        import_weights(source, folder=target, **words)
    return str(caught.value)


def test_what_cannot_be_asked_for_is_refused(tmp_path: Path) -> None:
    torch.save(copied(network(num_register_tokens=4)), tmp_path / "w.pth")
    source, target = tmp_path / "w.pth", tmp_path / "ours"
    assert "is vit_custom (64 wide, 2 blocks), and not vit_base" in refusal(source, target, arch="vit_base")
    assert "has 4 registers, and 2 are asked for" in refusal(source, target, changes=Changes(registers=2))
    assert "not a multiple of the patch" in refusal(source, target, changes=Changes(size_px=100))
    assert "at least 1 channel" in refusal(source, target, changes=Changes(in_chans=0))
    assert "2 are asked for" not in refusal(source, tmp_path, changes=Changes(registers=2))  # the folder is not empty
    assert not target.exists()


def test_a_head_of_another_network_is_refused(tmp_path: Path) -> None:
    save_file(copied(network()), tmp_path / "backbone.safetensors")
    save_file(copied(DINOHead(32, 16, hidden_dim=8, bottleneck_dim=4)), tmp_path / "dino_head.safetensors")
    assert "takes tokens of width 32, its backbone gives 64" in refusal(tmp_path, tmp_path / "ours")


def test_a_run_of_this_package_is_sent_to_export(tmp_path: Path) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    assert "dinov2 export --checkpoint" in refusal(tmp_path / "run", tmp_path / "ours")


def test_a_square_cut_from_a_larger_picture_stays_one_on_every_way(tmp_path: Path) -> None:
    raddino_folder(tmp_path / "public")
    said = {"image_mean": CXR_MEAN, "image_std": CXR_STD, "crop_size": {"height": 70, "width": 70}}
    said |= {"do_resize": True, "size": {"shortest_edge": 80}, "do_center_crop": True}
    (tmp_path / "public" / "preprocessor_config.json").write_text(json.dumps(said))
    import_weights(tmp_path / "public", folder=tmp_path / "ours")
    assert (open_vit(tmp_path / "public").short_side, open_vit(tmp_path / "ours").short_side) == (80, 80)
    assert processor_config(read_card(tmp_path / "ours"))["size"] == {"shortest_edge": 80}
    import_weights(tmp_path / "public", folder=tmp_path / "larger", changes=Changes(size_px=98))
    assert open_vit(tmp_path / "larger").short_side is None
