"""timm's DINOv2 and DINOv3: names, and the very features of the real library."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from dinov2.errors import WeightsError
from dinov2.models import DinoVisionTransformer, load_part, read_weights
from dinov2.models.architecture import OLD_MODE, PLAIN_MODE, REGISTERS_MODE, architecture_of
from dinov2.models.timm_names import NOT_IN_TIMM, from_timm, with_rest
from tests.torchvision_libraries import with_them

MODES = {"old": OLD_MODE, "registers": REGISTERS_MODE, "plain": PLAIN_MODE}
SMALL = {"embed_dim": 96, "depth": 2, "num_heads": 2}
DINOV2 = ("vit_small_patch14_dinov2", "vit_small_patch14_reg4_dinov2", "vit_giant_patch14_reg4_dinov2")
DINOV3 = ("vit_small_patch16_dinov3", "vit_small_patch16_dinov3_qkvb", "vit_small_plus_patch16_dinov3")


def drawn(network: torch.nn.Module) -> torch.nn.Module:
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.1)
    return network.eval()


def differences_from_timm() -> dict[str, float]:
    """In a process with timm: largest difference of all tokens, by network, mode of the table and side in pixels."""
    import timm

    torch.manual_seed(0)
    found = {}
    for name in DINOV2:
        theirs = drawn(timm.create_model(name, num_classes=0, img_size=70, dynamic_img_size=True, **SMALL))
        state = from_timm(theirs.state_dict())
        for mode, words in MODES.items():
            ours = DinoVisionTransformer(**architecture_of(state, source=name, num_heads=2) | words).eval()
            load_part(ours, state, source=name)
            for side in (70, 42):
                pictures = torch.randn(2, 3, side, side)
                with torch.no_grad():
                    tokens = ours.norm(ours.forward_features(pictures)["x_prenorm"])
                    found[f"{name} {mode} {side}"] = float((tokens - theirs.forward_features(pictures)).abs().max())
    return found


def against_timm() -> dict[str, Any]:
    """Both in one process, for the libraries take long to load."""
    return {"differences": differences_from_timm(), "starts": start_from_dinov3()}


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    said: dict[str, Any] = with_them(against_timm)
    return said


@pytest.fixture(scope="module")
def differences(found: dict[str, Any]) -> dict[str, float]:
    said: dict[str, float] = found["differences"]
    return said


@pytest.mark.parametrize("name", DINOV2)
def test_features_are_those_of_timm_at_the_table_s_size_in_every_mode(differences: dict[str, float], name: str) -> None:
    assert max(differences[f"{name} {mode} 70"] for mode in MODES) < 1e-5


@pytest.mark.parametrize("name", DINOV2)
def test_at_another_size_features_are_those_of_timm_in_the_antialiased_mode_alone(
    differences: dict[str, float], name: str
) -> None:
    assert differences[f"{name} registers 42"] < 1e-5
    assert min(differences[f"{name} old 42"], differences[f"{name} plain 42"]) > 1e-3


def start_from_dinov3() -> dict[str, list[str]]:
    """In a process with timm: what of each network has a place, and the biases of queries, keys and values."""
    import timm

    torch.manual_seed(0)
    found = {}
    for name in DINOV3:
        theirs = drawn(timm.create_model(name, num_classes=0, **SMALL))
        state = from_timm(theirs.state_dict())
        arguments = architecture_of(state, source=name, num_heads=2, grid=(4, 4)) | {"qkv_bias": True}
        ours = DinoVisionTransformer(**arguments)
        torch.nn.init.ones_(ours.blocks[0].attn.qkv.bias)
        with pytest.raises(WeightsError, match=r"pos_embed \(if that is meant.*those of DINOv3 are rotary"):
            load_part(ours, state, source=name)
        report = load_part(ours, state, source=name, allow_missing=("pos_embed",))
        queries, keys, values = ours.blocks[0].attn.qkv.bias.detach().chunk(3)
        assert not keys.any()
        if name.endswith("qkvb"):
            assert torch.equal(queries, theirs.blocks[0].attn.q_bias)
            assert torch.equal(values, theirs.blocks[0].attn.v_bias)
        else:
            assert not queries.any()
            assert not values.any()
        assert torch.equal(ours.blocks[1].ls2.gamma, theirs.blocks[1].gamma_2)
        pictures = torch.randn(2, 5, 96)  # tokens: the feed-forward alone is the same function
        assert torch.allclose(ours.blocks[0].mlp(pictures), theirs.blocks[0].mlp(pictures), atol=1e-5)
        found[name] = [*report.missing, *report.notes]
    return found


def test_of_dinov3_all_but_its_positions_has_a_place_and_the_report_says_so(found: dict[str, Any]) -> None:
    starts: dict[str, list[str]] = found["starts"]
    for name, (*said, why) in starts.items():
        assert "pos_embed" in said
        assert "mask_token" in said
        assert why.startswith("pos_embed: the file has no table of positions (those of DINOv3 are rotary)"), name
    assert any("2 biases of queries, keys and values: zeros" in line for line in starts[DINOV3[0]])
    assert not any("biases" in line for line in starts[DINOV3[1]])


def test_names_of_dinov3_itself_are_read_too() -> None:
    state = {
        "storage_tokens": torch.ones(1, 2, 4),
        "rope_embed.periods": torch.ones(3),
        "blocks.0.attn.qkv.weight": torch.ones(12, 4),
        "blocks.0.attn.qkv.bias": torch.ones(12),
        "blocks.0.attn.qkv.bias_mask": torch.tensor([1.0] * 4 + [0.0] * 4 + [1.0] * 4),
        "blocks.0.mlp.w1.weight": torch.zeros(6, 4),
        "blocks.0.mlp.w2.weight": torch.ones(6, 4),
        "blocks.0.mlp.w3.weight": torch.ones(4, 6),
    }
    public = from_timm(state)
    assert sorted(public) == sorted(
        [
            "register_tokens",
            *("blocks.0.attn.qkv.weight", "blocks.0.attn.qkv.bias"),
            *("blocks.0.mlp.w12.weight", "blocks.0.mlp.w3.weight"),
        ]
    )
    assert public["blocks.0.attn.qkv.bias"].tolist() == [1.0] * 4 + [0.0] * 4 + [1.0] * 4
    assert public["blocks.0.mlp.w12.weight"].sum(dim=1).tolist() == [0.0] * 6 + [4.0] * 6


def test_public_names_are_left_as_they_are() -> None:
    for words in ({}, {"num_register_tokens": 3}, {"ffn_layer": "swiglu"}):
        state = DinoVisionTransformer(img_size=(42, 70), patch_size=14, init_values=1.0, **SMALL, **words).state_dict()
        again = from_timm(dict(state))
        assert again.keys() == state.keys()
        assert all(again[name] is state[name] for name in state)


def test_registers_with_positions_of_their_own_take_them_along() -> None:
    table = torch.arange(1 + 2 + 9, dtype=torch.float32).reshape(1, -1, 1)
    public = from_timm({"reg_token": torch.full((1, 2, 1), 100.0), "pos_embed": table})
    assert public["register_tokens"].flatten().tolist() == [101.0, 102.0]
    assert public["pos_embed"].flatten().tolist() == [0.0, *range(3, 12)]
    with pytest.raises(WeightsError, match="8 rows beside 2 registers are the patches of no square grid"):
        from_timm({"reg_token": torch.zeros(1, 2, 1), "pos_embed": torch.zeros(1, 8, 1)})


def timm_folder(folder: Path) -> tuple[DinoVisionTransformer, dict[str, Tensor]]:
    """As an export under timm's names leaves it: the sum in timm's file, its terms in one beside."""
    network = DinoVisionTransformer(img_size=70, patch_size=14, num_register_tokens=4, init_values=1.0, **SMALL)
    drawn(network)
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    table = state.pop("pos_embed")
    rest = {"mask_token": state.pop("mask_token"), "cls_token": state["cls_token"], "cls_position": table[:, :1]}
    state["cls_token"] = state["cls_token"] + table[:, :1]
    state["pos_embed"], state["reg_token"] = table[:, 1:].contiguous(), state.pop("register_tokens")
    folder.mkdir()
    save_file(state, folder / "model.safetensors")
    save_file({name: tensor.contiguous() for name, tensor in rest.items()}, folder / NOT_IN_TIMM)
    (folder / "config.json").write_text('{"architecture": "vit_small_patch14_reg4_dinov2", "num_classes": 0}')
    return network, rest


def test_with_the_file_beside_the_way_back_from_timm_is_bit_equal(tmp_path: Path) -> None:
    network, _ = timm_folder(tmp_path / "timm")
    state = read_weights(tmp_path / "timm").part("backbone")
    assert state.keys() == network.state_dict().keys()
    for name, tensor in network.state_dict().items():
        assert torch.equal(state[name], tensor), name


def test_a_file_beside_that_belongs_to_other_weights_is_refused(tmp_path: Path) -> None:
    _, rest = timm_folder(tmp_path / "timm")
    rest["cls_token"] = rest["cls_token"] + 1
    save_file({name: tensor.contiguous() for name, tensor in rest.items()}, tmp_path / "timm" / NOT_IN_TIMM)
    with pytest.raises(WeightsError, match="belongs to other weights than lie beside it"):
        read_weights(tmp_path / "timm")
    assert "mask_token" in with_rest({}, {"mask_token": torch.zeros(1)}, source="")
