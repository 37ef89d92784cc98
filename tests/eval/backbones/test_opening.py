import json
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from torch.testing import assert_close

from dinov2.errors import WeightsError
from dinov2.eval.backbones import Backbone, ImageText, open_backbone, open_image_text
from tests.eval.backbones.small_models import build, clip_model, write_open_clip


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "cache"


def snapshot(cache: Path, name: str) -> Path:
    """An empty folder that the hub's cache knows as `name`."""
    folder = cache / f"models--{name.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    (folder / "snapshots" / "abc").mkdir(parents=True)
    return folder / "snapshots" / "abc"


@pytest.mark.parametrize("prefix", ["", "hf-hub:"])
def test_a_hub_id_opens_what_lies_in_the_cache_without_a_network(cache: Path, prefix: str) -> None:
    model = build("vit_msn")
    model.save_pretrained(snapshot(cache, "owner/msn"))
    backbone = open_backbone(f"{prefix}owner/msn")
    pictures = torch.randn(1, 3, 32, 32)
    assert_close(backbone(pictures).cls, model(pictures).last_hidden_state[:, 0], atol=1e-5, rtol=1e-5)
    assert backbone.traits.name == f"{prefix}owner/msn"


def test_a_hub_id_of_an_open_clip_checkpoint_opens_as_a_pair_and_as_a_backbone(cache: Path) -> None:
    write_open_clip(snapshot(cache, "yyupenn/whyxrayclip"), model=clip_model(), quick_gelu=False)
    assert isinstance(open_image_text("yyupenn/whyxrayclip"), ImageText)
    assert isinstance(open_backbone("yyupenn/whyxrayclip"), Backbone)


def test_a_hub_id_that_is_not_to_be_had_is_one_clear_message() -> None:
    with pytest.raises(WeightsError, match=r"microsoft/rad-dino: no such folder, .* hf download microsoft/rad-dino$"):
        open_backbone("microsoft/rad-dino")


def test_half_a_snapshot_in_the_cache_is_not_taken_for_a_model(cache: Path) -> None:
    (snapshot(cache, "owner/half") / "config.json").write_text("{}")
    with pytest.raises(WeightsError, match=r"holds none of model\*\.safetensors"):
        open_backbone("owner/half")


@pytest.mark.parametrize("name", ["nothing_here", "dinov2_vitb14", "./no/such/folder", "clip:ViT-L-14"])
def test_a_wrong_name_lists_what_is_possible(name: str) -> None:
    with pytest.raises(WeightsError) as caught:
        open_backbone(name)
    for possible in (
        "RUN/checkpoints/STEP",
        "vit_mae",
        "dinov3_vit",
        "openclip-file:PATH",
        "timm:NAME",
        "random:vit_small",
    ):
        assert possible in str(caught.value)


def test_a_prefix_that_is_nearly_right_is_named() -> None:
    with pytest.raises(WeightsError, match=r"Did you mean torchvision:\.\.\.\?"):
        open_backbone("torchvison:resnet152")


def test_a_folder_of_no_backbone_lists_what_is_possible(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    with pytest.raises(WeightsError, match=r"a folder, but of no backbone\.\nA backbone is one of"):
        open_backbone(str(tmp_path / "pictures"))


def test_a_file_of_no_weights_lists_what_is_possible(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("image_id\n")
    with pytest.raises(WeightsError, match=r"not a file of weights\.\nA backbone is one of"):
        open_backbone(str(tmp_path / "manifest.csv"))


@pytest.mark.parametrize("name", ["random:vit_small", "timm:vit_base_patch16_224"])
def test_a_backbone_without_a_text_tower_is_refused_where_texts_are_needed(name: str) -> None:
    with pytest.raises(WeightsError, match=f"{name}: has no text tower"):
        open_image_text(name)


def test_a_hugging_face_folder_without_a_text_tower_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    with pytest.raises(WeightsError, match="model_type is 'vit'; only 'clip' has a text tower that is known here"):
        open_image_text(str(tmp_path))


def test_a_damaged_configuration_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(WeightsError, match=r"config\.json: cannot be read"):
        open_backbone(str(tmp_path))
