"""One class from a name to features: what comes out has the shapes, formats and gradients that are promised."""

import subprocess
import sys
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from PIL import Image
from torch.testing import assert_close
from transformers import BitImageProcessorPil, Dinov2Model

import dinov2
from dinov2.encoder import Encoder
from dinov2.errors import ConfigError, LaunchError, PictureError, WeightsError
from tests.encoder.made import noise, small_encoder, write_export, write_transformers


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return small_encoder(tmp_path_factory.mktemp("weights"))


def test_it_knows_what_its_weights_are(tmp_path: Path) -> None:
    encoder = dinov2.Encoder.from_pretrained(write_export(tmp_path / "export"), dtype="bfloat16")
    assert (encoder.size, encoder.patch_size, encoder.embed_dim) == (70, 14, 64)
    assert (encoder.device, encoder.dtype) == (torch.device("cpu"), torch.bfloat16)
    assert (encoder.mean, encoder.std) == ((0.5307,) * 3, (0.2583,) * 3)
    assert encoder.card is not None
    assert encoder.card.arch == "vit_custom"
    assert not any(module.training for module in encoder.modules())
    assert "size=70, embed_dim=64, patch_size=14" in repr(encoder)


def test_features_are_the_normed_tokens_of_the_last_block(encoder: Encoder) -> None:
    pictures = [noise(90, 81), noise(71, 200, 3)]
    cls, patches = encoder.extract_features(pictures)
    expected = encoder.vit.forward_features(encoder.preprocess(pictures))
    assert cls.shape == (2, 64)
    assert patches.shape == (2, 64, 5, 5)
    assert_close(cls, expected["x_norm_clstoken"].detach(), atol=1e-5, rtol=1e-5)
    patch = expected["x_norm_patchtokens"][1, 2 * 5 + 3].detach()
    assert_close(patches[1, :, 2, 3], patch, atol=1e-5, rtol=1e-5)
    assert torch.equal(encoder.extract_cls_token(pictures), cls)
    assert torch.equal(encoder.extract_patch_tokens(pictures), patches)
    assert all(torch.equal(one, other) for one, other in zip(encoder(pictures), (cls, patches), strict=True))


def test_a_transformers_folder_gives_the_features_of_transformers(tmp_path: Path) -> None:
    folder = write_transformers(tmp_path / "folder")
    encoder = Encoder.from_pretrained(folder)
    model = Dinov2Model.from_pretrained(folder).eval()
    for rows, columns in ((70, 70), (42, 98)):
        pixels = torch.randn(2, 3, rows, columns)
        cls, patches = encoder.encode(pixels)
        expected = model(pixel_values=pixels).last_hidden_state
        assert_close(cls, expected[:, 0], atol=1e-5, rtol=1e-5)
        assert_close(patches, expected[:, 1:], atol=1e-5, rtol=1e-5)


def test_a_processor_that_crops_more_than_the_long_side_is_followed(tmp_path: Path) -> None:
    folder = write_transformers(tmp_path / "folder", image_size=56)
    cropping = BitImageProcessorPil(size={"shortest_edge": 64}, crop_size={"height": 56, "width": 56})
    cropping.save_pretrained(folder)
    encoder, picture = Encoder.from_pretrained(folder), Image.fromarray(noise(90, 81))
    assert torch.equal(encoder.preprocess(picture), cropping(picture, return_tensors="pt")["pixel_values"])
    twice = BitImageProcessorPil(size={"shortest_edge": 128}, crop_size={"height": 112, "width": 112})
    expected = twice(picture, return_tensors="pt")["pixel_values"]
    assert torch.equal(encoder.preprocess(picture, size=112), expected)


def test_a_hub_id_is_found_in_the_cache_at_the_revision_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    repository = tmp_path / "models--owner--films"
    for revision, commit, layers in (("main", "a" * 40, 2), ("older", "b" * 40, 1)):
        (repository / "refs").mkdir(parents=True, exist_ok=True)
        (repository / "refs" / revision).write_text(commit)
        write_transformers(repository / "snapshots" / commit, num_hidden_layers=layers)
    assert Encoder.from_pretrained("owner/films").vit.n_blocks == 2
    assert Encoder.from_pretrained("owner/films", revision="older").vit.n_blocks == 1


def test_sides_may_be_any_multiple_of_the_patch(encoder: Encoder) -> None:
    cls, patches = encoder.encode(torch.randn(2, 3, 28, 98))
    assert cls.shape == (2, 64)
    assert encoder.reshape_patch_tokens(patches, grid=(2, 7)).shape == (2, 64, 2, 7)
    assert encoder.extract_patch_tokens(noise(90, 81)).shape == (1, 64, 5, 5)
    with pytest.raises(PictureError, match=r"14 patch tokens are no square; give grid=\(rows, columns\)"):
        encoder.reshape_patch_tokens(patches)
    with pytest.raises(PictureError, match=r"14 patch tokens are a grid of 3 x 7; give grid="):
        encoder.reshape_patch_tokens(patches, grid=(3, 7))


def test_another_size_is_chosen_at_opening(tmp_path: Path) -> None:
    encoder = Encoder.from_pretrained(write_export(tmp_path / "export"), size=98)
    assert encoder.extract_patch_tokens(noise(90, 81)).shape == (1, 64, 7, 7)
    with pytest.raises(ConfigError, match=r"size=100: a side must be a multiple of the patch of 14 pixels"):
        Encoder.from_pretrained(tmp_path / "export", size=100)


def test_gradients_flow_through_encode_and_features_can_train_a_head(encoder: Encoder) -> None:
    pixels = torch.randn(1, 3, 70, 70, requires_grad=True)
    cls, patches = encoder.encode(pixels)
    (cls.sum() + patches.square().sum()).backward()
    assert pixels.grad is not None
    assert pixels.grad.abs().sum() > 0
    assert all(p.grad is not None for name, p in encoder.named_parameters() if name != "vit.mask_token")
    encoder.zero_grad()
    head = torch.nn.Linear(64, 1)
    features = encoder.extract_cls_token(noise(90, 81))
    assert not features.requires_grad
    head(features).sum().backward()
    assert head.weight.grad is not None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_features_have_the_format_of_the_weights(encoder: Encoder, tmp_path: Path, dtype: torch.dtype) -> None:
    half = Encoder.from_pretrained(write_export(tmp_path / "export"), dtype=dtype)
    pictures = [noise(90, 81), noise(80, 70)]
    cls, patches = half.extract_features(pictures)
    assert (cls.dtype, patches.dtype) == (dtype, dtype)
    assert_close(cls.float(), encoder.extract_cls_token(pictures), atol=0.1, rtol=0.1)


@pytest.mark.parametrize("kernel", ["auto", "sdpa", "explicit"])
def test_every_kernel_gives_the_same_features(encoder: Encoder, tmp_path: Path, kernel: str) -> None:
    other = Encoder.from_pretrained(write_export(tmp_path / "export"), attention=kernel)
    assert_close(other(noise(90, 81)), encoder(noise(90, 81)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (torch.zeros(3, 70, 70), r"pixels of \[3, 70, 70\]; expected a tensor \[B, 3, rows, columns\]"),
        (torch.zeros(1, 1, 70, 70), r"pixels of \[1, 1, 70, 70\]; expected"),
        (noise(90, 81), r"pixels of ndarray; expected a tensor"),
        (torch.zeros(1, 3, 75, 70), r"multiple of the patch of 14; the nearest are 70 or 84 rows and 70 columns"),
        (torch.zeros(1, 3, 7, 80), r"pixels of 7 x 80: .* 14 or 28 rows and 70 or 84 columns"),
    ],
)
def test_pixels_of_another_shape_are_refused(encoder: Encoder, pixels: torch.Tensor, message: str) -> None:
    with pytest.raises(PictureError, match=message):
        encoder.encode(pixels)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"dtype": "float8"}, r"dtype='float8': give float32, bfloat16 or float16"),
        ({"dtype": torch.int8}, r"dtype=torch\.int8: give float32"),
        ({"attention": "flash"}, r"attention is 'flash'; expected one of auto, sdpa"),
        ({"attention": "varlen"}, r"attention=varlen has no kernel for the CPU"),
        ({"device": "nowhere"}, r"device='nowhere': torch knows no such device; give cpu or cuda"),
        ({"device": "cuda:99"}, r"device='cuda:99': torch finds .* GPUs? here; give cpu"),
    ],
)
def test_a_wrong_word_is_refused_before_weights_are_read(tmp_path: Path, words: dict, message: str) -> None:
    with pytest.raises((ConfigError, LaunchError), match=message):
        Encoder.from_pretrained(tmp_path / "there are no weights", **words)


def test_a_name_that_is_nothing_lists_what_is_possible(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"nothing: no such (file or folder|folder or file)"):
        Encoder.from_pretrained(tmp_path / "nothing")


def test_weights_are_held_once(encoder: Encoder) -> None:
    held = sum(p.numel() for p in encoder.state_dict().values())
    assert held == sum(p.numel() for p in encoder.vit.parameters())


def test_importing_the_package_needs_no_torch_and_the_encoder_no_decoder_of_films() -> None:
    script = """
import sys
import dinov2
assert "torch" not in sys.modules
dinov2.Encoder
assert "torch" in sys.modules
late = {"pydicom", "transformers", "SimpleITK", "gdcm", "matplotlib", "sklearn"}
assert not late & set(sys.modules), late & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], check=True)
