"""A backbone written as timm has it, against the real timm."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from dinov2.errors import WeightsError
from dinov2.eval.backbones import open_backbone
from dinov2.formats import open_vit
from dinov2.formats.timm_folder import write_timm
from dinov2.formats.timm_names import timm_architecture, to_timm
from dinov2.models.vision_transformer import DinoVisionTransformer, vit_base, vit_giant2, vit_large, vit_small
from dinov2.models.weights import read_weights
from tests.formats.sources import WITH_REGISTERS, small_source
from tests.torchvision_libraries import with_them

NETWORKS: dict[str, dict[str, Any]] = {
    "plain": {},
    "registers": WITH_REGISTERS,
    "gated": {**WITH_REGISTERS, "num_register_tokens": 3, "ffn_layer": "swiglufused"},
    "bare": {"qkv_bias": False, "init_values": None, "img_size": (70, 42), "in_chans": 1},
    "fewer biases": {"proj_bias": False, "ffn_bias": False, "patch_size": 10},
}
SIZES = {"small": vit_small, "base": vit_base, "large": vit_large, "giant": vit_giant2}


@torch.no_grad()
def written_folders(folder: str) -> dict[str, Any]:
    said: dict[str, Any] = {}
    for name, differences in NETWORKS.items():
        source = small_source(**differences)
        done = write_timm(source, Path(folder) / name, licence="mit")
        said[name] = {"checks": done.checks, "config": json.loads((done.folder / "config.json").read_text())}
        pictures = torch.randn(1, source.backbone.patch_embed.in_chans, *source.backbone.patch_embed.img_size)
        if source.backbone.patch_embed.in_chans == 3:
            ours = source.backbone.forward_features(pictures)
            backbone = open_backbone(f"timm:local-dir:{done.folder}")
            assert_close(backbone(pictures).patches, ours["x_norm_patchtokens"], atol=2e-5, rtol=0)
            assert_close(backbone(pictures).cls, ours["x_norm_clstoken"], atol=2e-5, rtol=0)
            said[name]["family"] = backbone.traits.family
            said[name]["mean"] = backbone.traits.mean
    half = write_timm(small_source(**WITH_REGISTERS), Path(folder) / "half", dtype="float16")
    said["half"] = {"checks": half.checks}
    broken = small_source()
    torch.nn.init.constant_(broken.backbone.norm.bias, float("nan"))
    try:
        write_timm(broken, Path(folder) / "broken")
    except WeightsError as error:
        said["refused"] = str(error)
    said["shapes"] = shapes_that_differ()
    return said


def shapes_that_differ() -> dict[str, Any]:
    """Of the named sizes: names and shapes that timm's network has and what is written has not, or the reverse."""
    import timm

    found = {}
    for size in SIZES:
        for registers in (0, 4):
            vit = named_size(size, registers=registers)
            architecture, arguments = timm_architecture(vit, source="a named size")
            with torch.device("meta"):
                theirs = timm.create_model(architecture, num_classes=0, img_size=518, **arguments).state_dict()
            written, _ = to_timm(vit.state_dict())
            ours = {(name, tuple(tensor.shape)) for name, tensor in written.items()}
            found[architecture] = sorted(ours ^ {(name, tuple(tensor.shape)) for name, tensor in theirs.items()})
    return found


def named_size(size: str, *, registers: int) -> DinoVisionTransformer:
    with torch.device("meta"):
        return SIZES[size](
            img_size=518,
            patch_size=14,
            num_register_tokens=registers,
            init_values=1.0,
            ffn_layer="swiglufused" if size == "giant" else "mlp",
        )


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("timm")


@pytest.fixture(scope="module")
def said(folders: Path) -> dict[str, Any]:
    result: dict[str, Any] = with_them(written_folders, folders)
    return result


def test_timm_loads_each_folder_strictly_and_gives_our_features(said: dict[str, Any]) -> None:
    for name in NETWORKS:
        own, other = said[name]["checks"]
        assert own.startswith("model.safetensors: timm loads it strictly and gives our features to ")
        assert float(own.split("features to ")[1].split()[0]) <= 1e-5
        resampled_alike = name in ("registers", "gated")
        assert ("timm resamples positions in its own way" not in other) == resampled_alike
        if resampled_alike:
            assert float(other.rpartition("to ")[2]) <= 2e-5
    assert said["registers"]["family"] == "vit_base_patch14_reg4_dinov2"
    assert said["plain"]["mean"] == [0.5307] * 3
    assert float(said["half"]["checks"][0].split("features to ")[1].split()[0]) < 2e-2


def test_the_config_names_the_architecture_and_what_differs_from_it(said: dict[str, Any]) -> None:
    small = {"embed_dim": 64, "depth": 2, "num_heads": 4}
    config = said["plain"]["config"]
    assert (config["architecture"], config["model_args"]) == ("vit_base_patch14_dinov2", small)
    assert (config["num_classes"], config["pretrained_cfg"]["input_size"]) == (0, [3, 70, 70])
    assert config["pretrained_cfg"]["license"] == "mit"
    gated = said["gated"]["config"]
    assert gated["architecture"] == "vit_giant_patch14_reg4_dinov2"
    assert gated["model_args"]["reg_tokens"] == 3
    bare = said["bare"]["config"]["model_args"]
    assert bare == small | {"in_chans": 1, "init_values": 0.0, "qkv_bias": False}
    assert said["fewer biases"]["config"]["model_args"] == small | {"patch_size": 10, "proj_bias": False}


def test_the_named_sizes_are_timms_without_any_argument(said: dict[str, Any]) -> None:
    assert sorted(said["shapes"]) == sorted(
        f"vit_{size}_patch14{reg}_dinov2" for size in SIZES for reg in ("", "_reg4")
    )
    assert not any(said["shapes"].values())
    for size in SIZES:
        assert timm_architecture(named_size(size, registers=4), source="a named size")[1] == {}


def test_a_network_that_timm_computes_otherwise_is_refused_and_leaves_nothing(
    said: dict[str, Any], folders: Path
) -> None:
    assert "timm's features differ from ours by nan" in said["refused"]
    assert not any("broken" in entry.name for entry in folders.iterdir())


@pytest.mark.parametrize("name", [*NETWORKS, "half"])
def test_back_from_timms_names_every_tensor_is_the_same(said: dict[str, Any], folders: Path, name: str) -> None:
    before = small_source(**NETWORKS.get(name, WITH_REGISTERS)).backbone.state_dict()
    after = read_weights(folders / name).part("backbone")
    assert after.keys() == before.keys()
    for key, tensor in before.items():
        assert torch.equal(after[key].float(), tensor.half().float() if name == "half" else tensor), key


@torch.no_grad()
def test_a_folder_of_timms_opens_as_our_network(said: dict[str, Any], folders: Path) -> None:
    source, opened = small_source(**WITH_REGISTERS), open_vit(folders / "registers")
    pictures = torch.randn(1, 3, 70, 70)
    assert_close(opened.vit(pictures), source.backbone(pictures), atol=1e-5, rtol=0)
    assert opened.mean == (0.5307,) * 3


def test_what_timm_has_not_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WeightsError, match=r"timm has no projection heads\. Use --format dinov2"):
        write_timm(small_source(), tmp_path / "export", with_heads=True)
    with pytest.raises(WeightsError, match="ffn_layer=identity, a block that timm has not"):
        write_timm(small_source(ffn_layer="identity"), tmp_path / "export")
    with pytest.raises(WeightsError, match="proj_bias and ffn_bias differ; timm has one setting for both"):
        write_timm(small_source(ffn_bias=False), tmp_path / "export")
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(WeightsError, match=r"--format timm: needs the library timm.*pip install -U timm"):
        write_timm(small_source(), tmp_path / "export")
    assert not any(tmp_path.iterdir())
