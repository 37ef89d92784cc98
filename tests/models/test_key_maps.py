import re
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from transformers import Dinov2Config, Dinov2Model, Dinov2WithRegistersConfig, Dinov2WithRegistersModel

from dinov2.layers import DINOHead
from dinov2.models import DinoVisionTransformer, read_weights
from dinov2.models.key_maps import from_transformers, public_names, split_parts, to_transformers

KINDS = ("plain", "registers", "swiglu")
SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 70, "patch_size": 14}


def theirs(kind: str) -> torch.nn.Module:
    """Hugging Face's model with random weights, none of them at a neutral value."""
    torch.manual_seed(0)
    if kind == "registers":
        model = Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**SIZE, num_register_tokens=3))
    else:
        model = Dinov2Model(Dinov2Config(**SIZE, use_swiglu_ffn=kind == "swiglu"))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def ours(kind: str, state: dict[str, Tensor]) -> DinoVisionTransformer:
    vit = DinoVisionTransformer(
        img_size=70,
        patch_size=14,
        embed_dim=32,
        depth=2,
        num_heads=2,
        init_values=1.0,
        ffn_layer="swiglu" if kind == "swiglu" else "mlp",
        num_register_tokens=3 if kind == "registers" else 0,
        interpolate_offset=0.0,
        interpolate_antialias=kind == "registers",
    )
    vit.load_state_dict(state, strict=True)
    return vit.eval()


def on_disk(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """In-memory names of new transformers to those in files, written out independently of the map under test."""
    disk = {}
    full = {"q": "attention.query", "k": "attention.key", "v": "attention.value", "o": "output.dense"}
    for name, tensor in state.items():
        old = re.sub(r"attention\.([qkvo])_proj", lambda match: f"attention.{full[match.group(1)]}", name)
        disk[old.replace("mlp.down_proj", "mlp.weights_out")] = tensor
    for name in [name for name in disk if "gate_proj" in name]:
        gate, up = disk.pop(name), disk.pop(name.replace("gate_proj", "up_proj"))
        disk[name.replace("gate_proj", "weights_in")] = torch.cat([gate, up])
    return disk


@pytest.mark.parametrize("side", [70, 42, 98])
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_hugging_face_s_model_and_ours_give_the_same_tokens(kind: str, side: int) -> None:
    reference = theirs(kind)
    pictures = torch.randn(2, 3, side, side)
    vit = ours(kind, from_transformers(reference.state_dict()))
    features = vit.forward_features(pictures)
    tokens = vit.norm(features["x_prenorm"])
    assert_close(tokens, reference(pictures).last_hidden_state, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_both_spellings_of_hugging_face_give_the_same_state(kind: str) -> None:
    state = theirs(kind).state_dict()
    by_memory, by_disk = from_transformers(state), from_transformers(on_disk(state))
    assert by_memory.keys() == by_disk.keys()
    assert all(torch.equal(by_memory[name], by_disk[name]) for name in by_memory)


@pytest.mark.parametrize("kind", KINDS)
def test_to_hugging_face_and_back_is_the_identity_and_writes_its_names(kind: str) -> None:
    state = theirs(kind).state_dict()
    public = from_transformers(state)
    written = to_transformers(public)
    assert written.keys() == on_disk(state).keys()
    again = from_transformers(written)
    assert again.keys() == public.keys()
    assert all(torch.equal(again[name], public[name]) for name in public)


def test_what_hugging_face_saves_is_what_we_read(tmp_path: Path) -> None:
    reference = theirs("swiglu")
    reference.save_pretrained(tmp_path)
    backbone = read_weights(tmp_path).part("backbone")
    expected = from_transformers(reference.state_dict())
    assert backbone.keys() == expected.keys()
    assert all(torch.equal(backbone[name], expected[name]) for name in expected)


def test_chunked_names_become_flat_and_flat_ones_stay() -> None:
    names = ["blocks.0.1.norm1.weight", "blocks.2.11.mlp.fc1.bias", "blocks.3.norm1.weight", "norm.weight"]
    flat = public_names({name: torch.zeros(1) for name in names})
    assert list(flat) == ["blocks.1.norm1.weight", "blocks.11.mlp.fc1.bias", "blocks.3.norm1.weight", "norm.weight"]


def test_both_spellings_of_weight_norm_are_read() -> None:
    head = DINOHead(4, 6, hidden_dim=8, bottleneck_dim=3)
    renamed = {
        name.replace("weight_g", "parametrizations.weight.original0").replace(
            "weight_v", "parametrizations.weight.original1"
        ): tensor
        for name, tensor in head.state_dict().items()
    }
    assert public_names(renamed).keys() == head.state_dict().keys()


def state(*names: str) -> dict[str, Tensor]:
    return {name: torch.full((1,), float(i)) for i, name in enumerate(names)}


@pytest.mark.parametrize("wrapper", ["teacher", "model", "student", "state_dict"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_wrappers_and_prefixes_are_taken_off(wrapper: str, prefix: str) -> None:
    names = (f"{prefix}backbone.norm.weight", f"{prefix}dino_head.last_layer.weight_g")
    parts, centers, left_out = split_parts({wrapper: state(*names), "iteration": 7})
    assert {part: list(entries) for part, entries in parts.items()} == {
        "backbone": ["norm.weight"],
        "dino_head": ["last_layer.weight_g"],
    }
    assert centers == {}
    assert left_out == ()


def test_of_a_whole_training_state_one_network_and_the_centres_are_taken_and_the_rest_named() -> None:
    names = ("student.backbone.norm.weight", "teacher.backbone.norm.weight", "dino_loss.center", "koleo.weight")
    whole = {"model": state(*names)}
    parts, centers, left_out = split_parts(whole)
    assert float(parts["backbone"]["norm.weight"]) == 1.0
    assert list(centers) == ["dino_center"]
    assert left_out == ("koleo.weight", "student.backbone.norm.weight")
    assert float(split_parts(whole, which="student").parts["backbone"]["norm.weight"]) == 0.0


def test_a_file_of_one_head_is_a_head_and_a_file_without_prefixes_a_backbone() -> None:
    assert list(split_parts(state("mlp.0.weight", "last_layer.weight_v"))[0]) == ["dino_head"]
    assert list(split_parts(state("cls_token", "norm.weight"))[0]) == ["backbone"]


def test_a_hugging_face_layer_with_a_hole_keeps_the_names_that_are_left() -> None:
    broken = theirs("plain").state_dict()
    del broken["encoder.layer.0.attention.k_proj.weight"]
    assert "blocks.0.attention.attention.query.weight" in from_transformers(broken)
