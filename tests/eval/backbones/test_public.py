import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.testing import assert_close

from dinov2.errors import WeightsError
from dinov2.eval.backbones import DinoBackbone, open_backbone
from dinov2.eval.backbones.transformers_models import TransformersBackbone
from dinov2.models.architecture import architecture_of
from dinov2.models.vision_transformer import DinoVisionTransformer, vit_giant2
from tests.eval.backbones.small_models import build


def public(**arguments: object) -> DinoVisionTransformer:
    """As the public files are, but narrow: 64 to a head."""
    torch.manual_seed(0)
    sizes = {"img_size": 70, "patch_size": 14, "embed_dim": 128, "depth": 2, "num_heads": 2, "init_values": 1.0}
    return DinoVisionTransformer(**(sizes | arguments)).eval()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"num_register_tokens": 4, "interpolate_offset": 0.0, "interpolate_antialias": True},
        {"ffn_layer": "swiglufused"},
        {"qkv_bias": False, "init_values": None, "mlp_ratio": 3.0},
    ],
)
def test_a_public_file_computes_the_same_without_a_word_on_its_architecture(
    tmp_path: Path, suffix: str, arguments: dict
) -> None:
    vit = public(**arguments)
    path = tmp_path / f"dinov2{suffix}"
    if suffix == ".pth":
        torch.save({"teacher": {f"backbone.{name}": tensor for name, tensor in vit.state_dict().items()}}, path)
    else:
        save_file(vit.state_dict(), path)
    backbone = open_backbone(str(path))
    for pictures in (torch.randn(1, 3, 70, 70), torch.randn(1, 3, 42, 56)):  # its own size, and positions resampled
        assert_close(backbone(pictures).cls, vit(pictures), atol=1e-5, rtol=1e-5)
    assert backbone.traits.input_size == 70
    assert backbone.traits.mean == (0.485, 0.456, 0.406)


def test_chunked_names_open_like_flat_ones(tmp_path: Path) -> None:
    vit = public()
    chunked = {
        name.replace("blocks.1.", "blocks.1.1.").replace("blocks.0.", "blocks.0.0."): tensor
        for name, tensor in vit.state_dict().items()
    }
    torch.save(chunked, tmp_path / "w.pth")
    torch.save(vit.state_dict(), tmp_path / "flat.pth")
    first, second = (open_backbone(str(tmp_path / name)) for name in ("w.pth", "flat.pth"))
    assert first.traits.fingerprint == second.traits.fingerprint


def test_the_published_sizes_are_read_off_their_tensors() -> None:
    with torch.device("meta"):
        giant = vit_giant2(patch_size=14, img_size=518, num_register_tokens=4, ffn_layer="swiglufused", init_values=1.0)
    found = architecture_of(giant.state_dict(), source="w")
    assert (found["img_size"], found["num_heads"], found["depth"], found["num_register_tokens"]) == (518, 24, 40, 4)
    with torch.device("meta"):
        again = DinoVisionTransformer(**found)
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in giant.state_dict().items()}


def test_mean_and_size_of_a_preprocessor_beside_a_file_are_taken(tmp_path: Path) -> None:
    torch.save(public().state_dict(), tmp_path / "backbone_compatible.pth")
    said = {"image_mean": [0.53] * 3, "image_std": [0.26] * 3, "crop_size": {"height": 42, "width": 42}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    traits = open_backbone(str(tmp_path / "backbone_compatible.pth")).traits
    assert (traits.mean, traits.std, traits.input_size) == ((0.53,) * 3, (0.26,) * 3, 42)


def test_an_export_that_lost_its_card_opens_as_a_public_file(tmp_path: Path) -> None:
    vit = public()
    save_file(vit.state_dict(), tmp_path / "backbone.safetensors")
    pictures = torch.randn(1, 3, 70, 70)
    assert_close(open_backbone(str(tmp_path))(pictures).cls, vit(pictures), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["dinov2", "dinov2_with_registers"])
def test_hugging_face_folders_of_dinov2_compute_the_same_through_our_own_network(tmp_path: Path, kind: str) -> None:
    model = build(kind)
    model.save_pretrained(tmp_path)
    # RAD-DINO's folder has these beside its model.safetensors
    save_file({"last_layer.weight_v": torch.zeros(2, 2)}, tmp_path / "dino_head.safetensors")
    said = {
        "do_center_crop": True,
        "crop_size": {"height": 48, "width": 48},
        "image_mean": [0.5307] * 3,
        "image_std": [0.2583] * 3,
        "size": {"shortest_edge": 48},
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    backbone = open_backbone(str(tmp_path))
    assert isinstance(backbone, DinoBackbone)
    assert (backbone.traits.mean, backbone.traits.input_size) == ((0.5307,) * 3, 48)
    skipped = 1 + backbone.vit.num_register_tokens
    for sides in ((32, 32), (48, 48), (24, 40)):
        pictures = torch.randn(2, 3, *sides)
        with torch.no_grad():
            said_by_model = model(pictures).last_hidden_state
            tokens = backbone(pictures)
        assert_close(tokens.cls, said_by_model[:, 0], atol=1e-4, rtol=1e-4)
        assert_close(tokens.patches, said_by_model[:, skipped:], atol=1e-4, rtol=1e-4)
        assert tokens.grid == (sides[0] // 8, sides[1] // 8)


def test_a_dinov2_folder_that_our_network_would_compute_differently_goes_through_transformers(tmp_path: Path) -> None:
    model = build("dinov2")
    model.config.layer_norm_eps = 1e-2
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = 1e-2
    model.save_pretrained(tmp_path)
    backbone = open_backbone(str(tmp_path))
    assert isinstance(backbone, TransformersBackbone)
    pictures = torch.randn(1, 3, 32, 32)
    assert_close(backbone(pictures).cls, model(pictures).last_hidden_state[:, 0], atol=1e-5, rtol=1e-5)


def test_a_file_of_another_network_is_refused_with_what_it_lacks(tmp_path: Path) -> None:
    torch.save({"layer1.weight": torch.zeros(2)}, tmp_path / "resnet.pth")
    with pytest.raises(WeightsError, match="no vision transformer of DINOv2, it lacks cls_token"):
        open_backbone(str(tmp_path / "resnet.pth"))


def test_a_file_with_tensors_that_the_network_does_not_know_is_refused(tmp_path: Path) -> None:
    torch.save(public().state_dict() | {"decoder.weight": torch.zeros(2)}, tmp_path / "mae.pth")
    with pytest.raises(WeightsError, match=r"not in the model: decoder\.weight"):
        open_backbone(str(tmp_path / "mae.pth"))


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (open, (self.path, "w"))


def test_a_pickle_that_would_run_code_is_refused_and_runs_none(tmp_path: Path) -> None:
    torch.save({"cls_token": Trap(str(tmp_path / "sprung"))}, tmp_path / "trap.pth")
    with pytest.raises(WeightsError, match="cannot be read as weights"):
        open_backbone(str(tmp_path / "trap.pth"))
    assert not (tmp_path / "sprung").exists()
