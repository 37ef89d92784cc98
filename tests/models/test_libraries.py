import sys
from pathlib import Path

import pytest

from dinov2.errors import WeightsError
from dinov2.eval.backbones import open_backbone, open_image_text
from tests.eval.backbones.small_models import build

PACKAGES = {
    "timm:vit_base_patch16_224": ("timm", "timm"),
    "torchvision:resnet152": ("torchvision", "torchvision"),
    "torchxrayvision:densenet121-res224-all": ("torchxrayvision", "torchxrayvision"),
    "open_clip:ViT-L-14@laion2b_s32b_b82k": ("open_clip", "open_clip_torch"),
}


@pytest.mark.parametrize("name", PACKAGES)
def test_a_library_that_is_not_installed_is_one_sentence_with_the_command(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, package = PACKAGES[name]
    monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed, whether it is or not
    with pytest.raises(WeightsError) as caught:
        open_backbone(name)
    assert str(caught.value).startswith(f"{name}: needs the library {module}, which cannot be loaded here (")
    assert str(caught.value).endswith(f"; pip install -U {package}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", PACKAGES)
@pytest.mark.parametrize("error", ["RuntimeError", "OSError", "ImportError"])
def test_a_library_that_breaks_while_it_loads_is_one_sentence_too(
    name: str, error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, package = PACKAGES[name]
    (tmp_path / f"{module}.py").write_text(f"raise {error}('operator torchvision::nms does not exist\\nsecond line')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(WeightsError) as caught:
        open_backbone(name)
    assert "(operator torchvision::nms does not exist); pip install" in str(caught.value)
    assert str(caught.value).endswith(package)
    assert "\n" not in str(caught.value)


def test_a_broken_library_is_told_for_a_pair_of_towers_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "open_clip.py").write_text("raise RuntimeError('broken')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "open_clip", raising=False)
    with pytest.raises(
        WeightsError, match=r"needs the library open_clip, .*\(broken\); pip install -U open_clip_torch"
    ):
        open_image_text("open_clip:ViT-L-14@laion2b_s32b_b82k")


def test_a_hugging_face_folder_without_transformers_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build("vit_msn").save_pretrained(tmp_path / "msn")
    build("dinov2").save_pretrained(tmp_path / "dinov2")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(WeightsError, match=r"needs the library transformers, .*; pip install -U transformers$"):
        open_backbone(str(tmp_path / "msn"))
    assert open_backbone(str(tmp_path / "dinov2")).traits.depth == 3  # ours needs none


def test_an_open_clip_name_without_its_weights_asks_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "open_clip.py").write_text("def create_model_from_pretrained(*a, **k): raise AssertionError\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "open_clip", raising=False)
    with pytest.raises(WeightsError, match=r"which weights\? Say open_clip:ViT-L-14@PRETRAINED"):
        open_backbone("open_clip:ViT-L-14")
