"""What `open_vit` opens, and how it refuses."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.testing import assert_close
from transformers import Dinov2Config, Dinov2Model

from dinov2.backbone_card import read_card
from dinov2.errors import WeightsError
from dinov2.formats import load_backbone, open_vit
from dinov2.formats.importing import import_weights
from dinov2.models.architecture import REGISTERS_MODE
from tests.formats.test_importing import copied, network, raddino_folder


def test_rad_dino_s_folder_gives_hugging_face_s_features_though_a_head_lies_beside(tmp_path: Path) -> None:
    vit, _ = raddino_folder(tmp_path / "rad")
    opened = open_vit(tmp_path / "rad")
    pictures = torch.randn(1, 3, 56, 42)
    assert_close(opened.vit(pictures), vit(pictures), atol=1e-6, rtol=1e-6)
    assert opened.mean == (0.5307, 0.5307, 0.5307)
    assert opened.place == tmp_path / "rad"


@torch.no_grad()
def test_a_model_that_transformers_saved_in_several_files_gives_its_features(tmp_path: Path) -> None:
    torch.manual_seed(0)
    size = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 70, "patch_size": 14}
    theirs = Dinov2Model(Dinov2Config(**size)).eval()
    theirs.save_pretrained(tmp_path, max_shard_size="100KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    pictures = torch.randn(1, 3, 98, 98)
    assert_close(open_vit(tmp_path).vit(pictures), theirs(pictures).pooler_output, atol=1e-5, rtol=1e-5)


def test_a_folder_of_timm_is_opened_with_its_own_mean_size_and_mode(tmp_path: Path) -> None:
    vit = network(**REGISTERS_MODE)
    save_file(copied(vit), tmp_path / "model.safetensors")
    recipe = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "input_size": [3, 70, 70]}
    said = {"architecture": "vit_small_patch14_dinov2", "pretrained_cfg": recipe}
    (tmp_path / "config.json").write_text(json.dumps(said))
    opened = open_vit(tmp_path)
    assert (opened.mean, opened.std, opened.input_size) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 70)
    pictures = torch.randn(1, 3, 42, 42)
    assert_close(opened.vit(pictures), vit(pictures), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("embed_dim", 32, "cls_token: [1, 1, 64] in the file, [1, 1, 32] in the model"),
        ("depth", 3, "missing from the file: blocks.2.attn.proj.bias"),
        ("img_size", 84, "pos_embed: 5 x 5 patches resampled to 6 x 6"),
        ("num_register_tokens", 4, "register_tokens"),
    ],
)
def test_a_card_that_disagrees_with_its_weights_is_refused_with_both_sides(
    tmp_path: Path, key: str, value: int, said: str
) -> None:
    torch.save(copied(network()), tmp_path / "w.pth")
    import_weights(tmp_path / "w.pth", folder=tmp_path / "ours")
    card = read_card(tmp_path / "ours")
    card.architecture[key] = value
    card.write(tmp_path / "ours")
    with pytest.raises(WeightsError, match="its card and its weights disagree") as caught:
        open_vit(tmp_path / "ours")
    assert said in str(caught.value)


def test_an_export_in_half_precision_is_opened_in_float32(tmp_path: Path) -> None:
    torch.save(copied(network()), tmp_path / "w.pth")
    import_weights(tmp_path / "w.pth", folder=tmp_path / "ours")
    half = {name: tensor.half() for name, tensor in copied(network()).items()}
    save_file(half, tmp_path / "ours" / "backbone.safetensors")
    assert load_backbone(tmp_path / "ours").pos_embed.dtype == torch.float32


def test_what_is_no_backbone_is_refused(tmp_path: Path) -> None:
    for name, said in (
        ("absent.pth", "no such file or folder"),
        ("page.txt", "not a file of weights"),
        ("empty", "it is empty"),
    ):
        path = tmp_path / name
        if name == "empty":
            path.mkdir()
        elif name == "page.txt":
            path.write_text("weights")
        with pytest.raises(WeightsError, match=said):
            open_vit(path)
