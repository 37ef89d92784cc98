import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from transformers import CLIPVisionModel

from dinov2.errors import WeightsError
from dinov2.eval.backbones import open_backbone
from dinov2.eval.backbones.transformers_models import open_transformers_folder
from tests.eval.backbones.small_models import build

# family -> (CLS and registers before the patches, sides that it takes)
FAMILIES = {
    "vit": (1, ((32, 32), (24, 40))),
    "vit_mae": (1, ((32, 32), (24, 40))),
    "vit_msn": (1, ((32, 32), (24, 40))),
    "clip": (1, ((32, 32), (24, 40))),
    "dinov3_vit": (4, ((32, 32), (24, 40))),
    "dinov2": (1, ((32, 32), (24, 40))),
    "dinov2_with_registers": (4, ((32, 32), (24, 40))),
}


def hidden_of(kind: str, model: nn.Module, pictures: Tensor) -> list[Tensor]:
    """What the model itself says after each block, by its own outputs; each through its final norm."""
    words = {} if kind.startswith("dino") else {"interpolate_pos_encoding": True}
    if kind == "vit_mae":
        model.config.mask_ratio = 0.0
        words["noise"] = torch.linspace(0, 1, pictures.shape[-2] * pictures.shape[-1] // 64).repeat(len(pictures), 1)
    inner = {"vit": "vit", "vit_mae": "vit", "clip": "vision_model"}.get(kind)
    network = getattr(model, inner) if inner else model
    said = network(pixel_values=pictures, output_hidden_states=True, **words)
    norm = next(getattr(network, name) for name in ("layernorm", "norm", "post_layernorm") if hasattr(network, name))
    # Some releases put the normed output in the last place of the hidden states; CLIP's last output is never normed.
    last = norm(said.last_hidden_state) if kind == "clip" else said.last_hidden_state
    return [*(norm(hidden) for hidden in said.hidden_states[1:-1]), last]


@torch.no_grad()
@pytest.mark.parametrize("kind", FAMILIES)
def test_layers_are_the_models_own_hidden_states_at_its_size_and_at_another_shape(tmp_path: Path, kind: str) -> None:
    first_patch, shapes = FAMILIES[kind]
    model = build(kind)
    model.save_pretrained(tmp_path)
    backbone = open_transformers_folder(tmp_path, name=kind)
    assert not backbone.training
    for rows, columns in shapes:
        pictures = torch.randn(2, 3, rows, columns)
        layers = backbone.layers(pictures, 2)
        for tokens, hidden in zip(layers, hidden_of(kind, model, pictures)[-2:], strict=True):
            assert_close(tokens.cls, hidden[:, 0], atol=1e-5, rtol=1e-5)
            assert_close(tokens.patches, hidden[:, first_patch:], atol=1e-5, rtol=1e-5)
            assert tokens.grid == (rows // 8, columns // 8)
            assert tokens.patches is not None
            assert tokens.patches.shape[1] == rows * columns // 64
        assert_close(backbone(pictures).cls, layers[-1].cls)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["vit", "vit_msn", "dinov3_vit", "vit_mae"])
def test_the_last_layer_is_the_models_own_last_hidden_state(tmp_path: Path, kind: str) -> None:
    model = build(kind)
    model.save_pretrained(tmp_path)
    pictures = torch.randn(2, 3, 32, 32)
    network = getattr(model, "vit", model)
    words = {}
    if kind == "vit_mae":
        model.config.mask_ratio = 0.0
        words["noise"] = torch.arange(16.0).repeat(2, 1)
    said = network(pixel_values=pictures, **words).last_hidden_state
    assert_close(open_backbone(str(tmp_path))(pictures).cls, said[:, 0], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_masked_autoencoder_sees_every_patch_in_its_place_and_the_same_every_time(tmp_path: Path) -> None:
    build("vit_mae").save_pretrained(tmp_path)
    backbone = open_backbone(str(tmp_path))
    pictures = torch.randn(2, 3, 32, 32)
    first, second = backbone(pictures), backbone(pictures)
    assert torch.equal(first.patches, second.patches)
    for name, parameter in (entry for part in backbone.parts()[1:-1] for entry in part):
        if "norm" not in name:  # without attention a token tells of its own patch alone
            parameter.zero_()
    before = backbone(pictures).patches
    changed = pictures.clone()
    changed[:, :, 8:16, 24:32] += 1.0  # row 1, column 3 of the grid
    moved = (backbone(changed).patches - before).abs().amax(dim=(0, 2)) > 1e-6
    assert moved.nonzero().flatten().tolist() == [1 * 4 + 3]


@torch.no_grad()
def test_sam_gives_patches_before_its_neck_and_their_mean_at_its_one_size(tmp_path: Path) -> None:
    model = build("sam")
    model.save_pretrained(tmp_path)
    backbone = open_backbone(str(tmp_path))
    pictures = torch.randn(2, 3, 32, 32)
    tokens = backbone.layers(pictures, 3)
    hidden_states = model.vision_encoder(pictures, output_hidden_states=True).hidden_states  # each [B, h, w, D]
    for one, hidden in zip(tokens[:2], hidden_states[1:3], strict=True):
        assert_close(one.patches, hidden.flatten(1, 2), atol=1e-5, rtol=1e-5)
        assert_close(one.cls, hidden.mean(dim=(1, 2)), atol=1e-5, rtol=1e-5)
        assert one.grid == (4, 4)
    through_neck = model.vision_encoder.neck(tokens[2].patches.unflatten(1, (4, 4)))
    assert_close(through_neck, model.vision_encoder(pictures).last_hidden_state, atol=1e-5, rtol=1e-5)
    assert not any("neck" in name for name, _ in backbone.named_parameters())
    assert backbone.traits.fixed_size
    with pytest.raises(ValueError, match="takes pictures of 32 x 32 pixels only, not 24 x 24"):
        backbone(torch.randn(1, 3, 24, 24))


def test_a_picture_tower_saved_alone_opens_like_the_whole_clip(tmp_path: Path) -> None:
    build("clip").save_pretrained(tmp_path / "both")
    CLIPVisionModel.from_pretrained(tmp_path / "both").save_pretrained(tmp_path / "alone")
    pictures = torch.randn(1, 3, 32, 32)
    both, alone = (open_backbone(str(tmp_path / name)) for name in ("both", "alone"))
    assert both.traits.fingerprint == alone.traits.fingerprint
    assert_close(both(pictures).cls, alone(pictures).cls)


@pytest.mark.parametrize("kind", [*FAMILIES, "sam"])
def test_parts_of_every_family_hold_every_parameter_once(tmp_path: Path, kind: str) -> None:
    build(kind).save_pretrained(tmp_path)
    backbone = open_transformers_folder(tmp_path, name=kind)
    parts = backbone.parts()
    names = [name for part in parts for name, _ in part]
    assert len(parts) == 5
    assert len(backbone.state_dict()) == len(backbone.network.state_dict())  # nothing is held twice
    assert sorted(names) == sorted(name for name, _ in backbone.named_parameters())
    sizes = [sum(parameter.numel() for _, parameter in part) for part in parts[1:4]]
    assert min(sizes) > 0
    assert bool(parts[4]) is (kind != "sam")
    assert any("patch" in name for name, _ in parts[0])


def test_mean_deviation_and_size_are_those_of_the_folders_preprocessor(tmp_path: Path) -> None:
    build("vit").save_pretrained(tmp_path)
    assert open_backbone(str(tmp_path)).traits.mean == (0.5, 0.5, 0.5)  # of ViT, where the folder says nothing
    said = {"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 2, 3], "size": {"height": 48, "width": 48}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    traits = open_backbone(str(tmp_path)).traits
    assert (traits.mean, traits.std, traits.input_size) == ((0.1, 0.2, 0.3), (1.0, 2.0, 3.0), 48)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"do_normalize": False, "size": 33}))
    traits = open_backbone(str(tmp_path)).traits
    assert (traits.mean, traits.std, traits.input_size) == ((0.0,) * 3, (1.0,) * 3, 32)


def test_the_newer_file_of_a_processor_is_read_too(tmp_path: Path) -> None:
    build("clip").save_pretrained(tmp_path)
    said = {"image_processor": {"image_mean": [0.1] * 3, "image_std": [0.2] * 3, "crop_size": {"height": 48}}}
    (tmp_path / "processor_config.json").write_text(json.dumps(said))
    traits = open_backbone(str(tmp_path)).traits
    assert (traits.mean, traits.std, traits.input_size) == ((0.1,) * 3, (0.2,) * 3, 48)


def test_weights_that_the_folder_lacks_are_an_error_and_not_drawn_at_random(tmp_path: Path) -> None:
    model = build("vit_msn")
    state = {name: tensor for name, tensor in model.state_dict().items() if "layernorm.weight" not in name}
    model.save_pretrained(tmp_path, state_dict=state)
    with pytest.raises(WeightsError, match=r"weights of ViTMSNModel are not in it, first .*layernorm\.weight"):
        open_backbone(str(tmp_path))


def test_a_family_that_is_not_known_is_refused_with_those_that_are(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(
        WeightsError, match=r"model_type is 'bert' in its config\.json; there are vit, vit_mae, vit_msn"
    ):
        open_backbone(str(tmp_path))


def test_a_folder_without_its_weights_is_refused_in_one_message(tmp_path: Path) -> None:
    build("vit_msn").save_pretrained(tmp_path / "whole")
    (tmp_path / "half").mkdir()
    shutil.copy(tmp_path / "whole" / "config.json", tmp_path / "half")
    with pytest.raises(WeightsError, match=r"half: cannot be opened .* Download it again"):
        open_backbone(str(tmp_path / "half"))
