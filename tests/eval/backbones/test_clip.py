import json
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import normalize
from torch.testing import assert_close
from transformers import CLIPTokenizerFast

from dinov2.errors import WeightsError
from dinov2.eval.backbones import open_backbone, open_image_text
from dinov2.eval.backbones.clip_files import ClipConfig, towers_of
from tests.eval.backbones.small_models import clip_model, in_open_clip_names, write_open_clip, write_vocabulary

TEXTS = ["no lung lesion", "Pleural  EFFUSION", "x", "a text that is far too long for a context of twelve places"]


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "cache"


@torch.no_grad()
def theirs(model: Any, folder: Path, *, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Embeddings as transformers' own CLIP computes them, with its own tokenizer and padding."""
    tokenizer = CLIPTokenizerFast.from_pretrained(folder)
    ids = tokenizer(TEXTS, padding=True, truncation=True, max_length=12, return_tensors="pt")
    said = model(pixel_values=pictures, interpolate_pos_encoding=True, **ids)
    return said.image_embeds, said.text_embeds


@torch.no_grad()
@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
@pytest.mark.parametrize("suffix", [".bin", ".safetensors"])
def test_our_towers_of_an_open_clip_checkpoint_give_the_embeddings_of_transformers_clip(
    tmp_path: Path, activation: str, suffix: str
) -> None:
    model = clip_model(activation=activation)
    folder = write_open_clip(tmp_path / "clip", model=model, quick_gelu=activation == "quick_gelu")
    if suffix == ".safetensors":
        (folder / "open_clip_pytorch_model.bin").unlink()
        save_file(in_open_clip_names(model), folder / "open_clip_pytorch_model.safetensors")
    pictures = torch.randn(3, 3, 32, 32)
    images, texts = theirs(model, folder, pictures=pictures)
    pair = open_image_text(str(folder))
    assert_close(pair.encode_images(pictures), images, atol=1e-5, rtol=0)
    assert_close(pair.encode_texts(TEXTS), texts, atol=1e-5, rtol=0)
    assert_close(pair.encode_texts(TEXTS).norm(dim=1), torch.ones(4))
    assert pair.logit_scale == pytest.approx(float(model.logit_scale.exp()))
    assert pair.traits.embed_dim == 48
    assert (pair.traits.mean, pair.traits.std) == ((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
    assert pair.traits.input_size == 32


@torch.no_grad()
def test_the_other_activation_gives_other_embeddings_so_the_flag_is_honoured(tmp_path: Path) -> None:
    model = clip_model(activation="quick_gelu")
    quick, plain = (
        open_image_text(str(write_open_clip(tmp_path / str(flag), model=model, quick_gelu=flag)))
        for flag in (True, False)
    )
    pictures = torch.randn(2, 3, 32, 32)
    assert (quick.encode_images(pictures) - plain.encode_images(pictures)).abs().max() > 1e-4
    assert (quick.encode_texts(TEXTS) - plain.encode_texts(TEXTS)).abs().max() > 1e-4
    assert quick.traits.fingerprint != plain.traits.fingerprint


@torch.no_grad()
def test_a_transformers_clip_folder_opens_as_a_pair_with_the_same_embeddings(tmp_path: Path) -> None:
    model = clip_model()
    model.save_pretrained(tmp_path / "clip")
    write_vocabulary(tmp_path / "clip")
    pictures = torch.randn(2, 3, 32, 40)
    images, texts = theirs(model, tmp_path / "clip", pictures=pictures)
    pair = open_image_text(str(tmp_path / "clip"))
    assert_close(pair.encode_images(pictures), images, atol=1e-5, rtol=0)
    assert_close(pair.encode_texts(TEXTS), texts, atol=1e-5, rtol=0)
    assert pair.traits.embed_dim == 48
    assert pair.logit_scale == pytest.approx(float(model.logit_scale.exp()))


@torch.no_grad()
def test_a_text_has_the_same_embedding_alone_and_among_longer_ones(tmp_path: Path) -> None:
    pair = open_image_text(str(write_open_clip(tmp_path / "clip", model=clip_model(), quick_gelu=True)))
    assert_close(pair.encode_texts(["no"])[0], pair.encode_texts(["no", *TEXTS])[0], atol=1e-6, rtol=0)
    many = [f"lung {i}" for i in range(300)]  # more than are put through at once
    assert_close(pair.encode_texts(many)[299:], pair.encode_texts(many[299:]), atol=1e-6, rtol=0)


@torch.no_grad()
def test_the_picture_tower_alone_gives_the_layers_of_transformers_through_the_post_norm(tmp_path: Path) -> None:
    model = clip_model()
    folder = write_open_clip(tmp_path / "clip", model=model, quick_gelu=True)
    backbone = open_backbone(str(folder))
    pictures = torch.randn(2, 3, 32, 32)
    hidden = model.vision_model(pictures, output_hidden_states=True).hidden_states
    for tokens, one in zip(backbone.layers(pictures, 3), hidden[1:], strict=True):
        normed = model.vision_model.post_layernorm(one)
        assert_close(tokens.cls, normed[:, 0], atol=1e-5, rtol=1e-5)
        assert_close(tokens.patches, normed[:, 1:], atol=1e-5, rtol=1e-5)
        assert tokens.grid == (4, 4)
    assert backbone.traits.embed_dim == 128
    assert backbone(torch.randn(1, 3, 16, 40)).grid == (2, 5)
    pair = open_image_text(str(folder))
    projected = normalize(backbone(pictures).cls @ backbone.tower.proj, dim=-1)
    assert_close(pair.encode_images(pictures), projected, atol=1e-6, rtol=0)
    names = [name for part in backbone.parts() for name, _ in part]
    assert sorted(names) == sorted(name for name, _ in backbone.named_parameters())


@torch.no_grad()
def test_training_checkpoints_and_newer_names_of_open_clip_open_alike(tmp_path: Path) -> None:
    model = clip_model()
    folder = write_open_clip(tmp_path / "clip", model=model, quick_gelu=True)
    state = in_open_clip_names(model)
    trained = {"epoch": 3, "state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}
    torch.save(trained, folder / "epoch_3.pt")
    newer = {
        name if name.startswith("visual.") or name == "logit_scale" else f"text.{name}": tensor
        for name, tensor in state.items()
    }
    torch.save(newer, folder / "newer.pt")
    known = open_backbone(str(folder)).traits.fingerprint
    expected = open_image_text(str(folder)).encode_texts(TEXTS)
    for name in ("epoch_3.pt", "newer.pt"):
        for prefix in ("", "openclip-file:"):
            assert open_backbone(f"{prefix}{folder / name}").traits.fingerprint == known
            assert_close(open_image_text(f"{prefix}{folder / name}").encode_texts(TEXTS), expected)


@pytest.mark.parametrize(("width", "heads"), [(768, 12), (1024, 16), (1280, 16), (1408, 16), (1664, 16)])
def test_heads_of_the_larger_picture_towers_are_those_of_open_clip(width: int, heads: int) -> None:
    wider = {128: width, 384: 3 * width}
    state = {
        name: torch.zeros([wider.get(side, side) for side in tensor.shape]) if name.startswith("visual.") else tensor
        for name, tensor in in_open_clip_names(clip_model()).items()
        if not name.startswith(("visual.transformer.resblocks.1", "visual.transformer.resblocks.2"))
    }
    config = ClipConfig(quick_gelu=False, vision_heads=None, text_heads=None, mean=(0.0,) * 3, std=(1.0,) * 3)
    assert towers_of(state, config=config, source="w").visual.shape.heads == heads


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"timm_model_name": "convnext_base"}, "timm_model_name is 'convnext_base': only plain ViT towers"),
        ({"attentional_pool": True}, "attentional_pool is True"),
        ({"pool_type": "avg"}, "pool_type is 'avg'"),
    ],
)
def test_a_tower_that_computes_something_else_is_refused_with_the_setting(
    tmp_path: Path, config: dict, message: str
) -> None:
    folder = write_open_clip(tmp_path / "clip", model=clip_model(), quick_gelu=True, config=config)
    with pytest.raises(WeightsError, match=message):
        open_image_text(str(folder))


def test_a_checkpoint_with_a_hole_or_something_more_is_refused(tmp_path: Path) -> None:
    folder = write_open_clip(tmp_path / "clip", model=clip_model(), quick_gelu=True)
    state = in_open_clip_names(clip_model())
    torch.save(state | {"visual.transformer.resblocks.0.ls_1.gamma": torch.ones(128)}, folder / "more.pt")
    with pytest.raises(WeightsError, match=r"not those of plain ViT towers .*visual\.blocks\.0\.ls_1\.gamma"):
        open_backbone(str(folder / "more.pt"))
    del state["visual.ln_post.bias"]
    torch.save(state, folder / "hole.pt")
    with pytest.raises(WeightsError, match=r"Missing key.*visual\.norm\.bias"):
        open_backbone(str(folder / "hole.pt"))


def test_without_a_vocabulary_the_message_says_where_one_is_to_be_had(tmp_path: Path) -> None:
    folder = write_open_clip(tmp_path / "clip", model=clip_model(), quick_gelu=True)
    (folder / "merges.txt").unlink()
    with pytest.raises(WeightsError, match=r"no vocabulary for its text tower: .* hf download openai/clip-vit-large"):
        open_image_text(str(folder))
    open_backbone(str(folder))  # pictures need none


@torch.no_grad()
def test_a_vocabulary_in_the_hub_cache_serves_a_checkpoint_without_one(tmp_path: Path, empty_cache: Path) -> None:
    folder = write_open_clip(tmp_path / "clip", model=clip_model(), quick_gelu=True)
    expected = open_image_text(str(folder)).encode_texts(TEXTS)
    (folder / "merges.txt").unlink()
    cached = empty_cache / "models--openai--clip-vit-base-patch32"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("abc")
    (cached / "snapshots" / "abc").mkdir(parents=True)
    write_vocabulary(cached / "snapshots" / "abc")
    assert_close(open_image_text(str(folder)).encode_texts(TEXTS), expected)


def test_a_vocabulary_larger_than_the_text_tower_is_refused(tmp_path: Path) -> None:
    folder = write_open_clip(tmp_path / "clip", model=clip_model(), quick_gelu=True)
    words = json.loads((folder / "vocab.json").read_text())
    words |= {"lung</w>": len(words), "rib</w>": len(words) + 1}
    (folder / "vocab.json").write_text(json.dumps(words))
    with pytest.raises(WeightsError, match="its vocabulary has 518 tokens, the text tower 516"):
        open_image_text(str(folder))


def test_a_checkpoint_without_its_configuration_opens_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_open_clip(tmp_path / "clip", model=clip_model(), quick_gelu=False)
    (folder / "open_clip_config.json").unlink()
    assert open_backbone(str(folder)).traits.mean == pytest.approx((0.48145466, 0.4578275, 0.40821073))
    assert "plain GELU and OpenAI's mean and deviation are assumed" in caplog.text
