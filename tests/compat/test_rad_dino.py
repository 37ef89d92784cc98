"""The `rad_dino` package's own class beside ours, on one folder and the same pictures."""

import inspect
from pathlib import Path

import huggingface_hub.constants
import pytest
import rad_dino
import rad_dino.utils
import torch
from PIL import Image
from torch.testing import assert_close

from dinov2.compat.rad_dino import Inputs, RadDino, safetensors_to_state_dict
from dinov2.errors import PictureError, WeightsError
from tests.encoder.made import noise, write_export, write_transformers

SIDE = 518
PICTURES = [
    Image.fromarray(noise(SIDE, SIDE)),
    Image.fromarray(noise(640, 530)),  # to be resized and cropped
    Image.fromarray(noise(520, 700, 3)),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_transformers(tmp_path_factory.mktemp("folder"), image_size=SIDE)


@pytest.fixture(scope="module")
def theirs(folder: Path) -> rad_dino.RadDino:
    class Here(rad_dino.RadDino):
        _REPO = str(folder)

    return Here()


@pytest.fixture(scope="module")
def ours(folder: Path) -> RadDino:
    return RadDino(folder)


def same(one: torch.Tensor, other: torch.Tensor) -> None:
    assert one.shape == other.shape
    assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_the_features_of_pictures_are_those_of_the_package(theirs: rad_dino.RadDino, ours: RadDino) -> None:
    for pictures in (PICTURES[0], PICTURES):
        for one, other in zip(ours.extract_features(pictures), theirs.extract_features(pictures), strict=True):
            same(one, other)


def test_every_method_gives_what_the_packages_gives(theirs: rad_dino.RadDino, ours: RadDino) -> None:
    picture = PICTURES[1]
    inputs, expected = ours.preprocess(picture), theirs.preprocess(picture)
    assert torch.equal(inputs["pixel_values"], expected["pixel_values"])
    flat, expected_flat = ours.encode(inputs), theirs.encode(expected)
    for one, other in zip(flat, expected_flat, strict=True):
        same(one, other)
        assert one.requires_grad == other.requires_grad
    same(ours.reshape_patch_tokens(flat[1]), theirs.reshape_patch_tokens(expected_flat[1]))
    same(ours.extract_cls_token(picture), theirs.extract_cls_token(picture))
    same(ours.extract_patch_tokens(picture), theirs.extract_patch_tokens(picture))
    for one, other in zip(ours(picture), theirs(picture), strict=True):
        same(one, other)
    assert ours.device == theirs.device


def test_inputs_of_either_go_into_the_other(theirs: rad_dino.RadDino, ours: RadDino) -> None:
    same(ours.encode(theirs.preprocess(PICTURES[0]))[0], theirs.encode(ours.preprocess(PICTURES[0]))[0])


def test_no_public_name_of_the_class_is_missing() -> None:
    names = {name for name in vars(rad_dino.RadDino) if not name.startswith("_")}
    assert names == {
        "device",
        "encode",
        "extract_cls_token",
        "extract_features",
        "extract_patch_tokens",
        "forward",
        "preprocess",
        "reshape_patch_tokens",
    }
    for name in names - {"device", "forward"}:
        ours, theirs = (inspect.signature(getattr(kind, name)) for kind in (RadDino, rad_dino.RadDino))
        assert list(ours.parameters) == list(theirs.parameters)


def test_inputs_are_read_by_key_by_attribute_and_moved() -> None:
    inputs = Inputs(pixel_values=torch.zeros(1, 3, 14, 14))
    assert inputs.pixel_values is inputs["pixel_values"]
    assert inputs.to("cpu", torch.bfloat16) is inputs
    assert inputs.pixel_values.dtype == torch.bfloat16
    with pytest.raises(AttributeError, match="Inputs hold pixel_values, and no 'labels'"):
        _ = inputs.labels


def test_without_a_name_it_is_the_published_one_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match="microsoft/rad-dino"):
        RadDino()
    repository = tmp_path / "models--microsoft--rad-dino"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("a" * 40)
    write_transformers(repository / "snapshots" / ("a" * 40))
    assert RadDino().encoder.embed_dim == 64


def test_it_takes_what_the_package_lacks(tmp_path: Path) -> None:
    model = RadDino(write_export(tmp_path / "export", num_register_tokens=3), dtype="bfloat16", device="cpu", size=84)
    cls, patches = model.extract_features(noise(100, 90))
    assert (cls.dtype, tuple(patches.shape)) == (torch.bfloat16, (1, 64, 6, 6))
    assert not model.training


def test_inputs_without_pixels_are_refused(ours: RadDino) -> None:
    with pytest.raises(PictureError, match="inputs of labels; expected 'pixel_values'"):
        ours.encode({"labels": torch.zeros(1)})


def test_a_safetensors_file_is_a_state_dict(folder: Path, tmp_path: Path) -> None:
    file = folder / "model.safetensors"
    ours, theirs = safetensors_to_state_dict(str(file)), rad_dino.utils.safetensors_to_state_dict(str(file))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    (tmp_path / "cut.safetensors").write_bytes(file.read_bytes()[:1000])
    for name in ("cut.safetensors", "absent.safetensors"):
        with pytest.raises(WeightsError, match=rf"{name}: cannot be read as safetensors"):
            safetensors_to_state_dict(tmp_path / name)
