import pytest
import torch
from torch import nn
from torch.testing import assert_close

from dinov2.models import DinoVisionTransformer, vit_base, vit_giant2, vit_large, vit_small
from dinov2.models.vision_transformer import drop_path_rates


def tiny(**arguments: object) -> DinoVisionTransformer:
    torch.manual_seed(0)
    vit = DinoVisionTransformer(
        **({"img_size": 56, "patch_size": 14, "embed_dim": 16, "depth": 3, "num_heads": 2} | arguments)
    )
    with torch.no_grad():  # large enough that every part of the network shows in its output
        for parameter in vit.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return vit


def count(vit: nn.Module) -> int:
    return sum(parameter.numel() for parameter in vit.parameters())


@pytest.mark.parametrize(
    ("build", "img_size", "expected"),
    [
        (vit_small, 518, 22_056_576),
        (vit_base, 518, 86_580_480),
        (vit_base, 224, 85_725_696),
        (vit_large, 518, 304_368_640),
    ],
)
def test_the_named_sizes_have_the_public_number_of_parameters(build, img_size: int, expected: int) -> None:
    with torch.device("meta"):
        assert count(build(patch_size=14, img_size=img_size, init_values=1.0)) == expected


def test_the_giant_is_40_blocks_of_1536_with_a_gate_of_4096_where_swiglu_is_asked_for() -> None:
    with torch.device("meta"):
        vit = vit_giant2(patch_size=14, img_size=518, init_values=1.0, ffn_layer="swiglufused")
    assert (vit.embed_dim, vit.n_blocks, vit.num_heads) == (1536, 40, 24)
    assert vit.blocks[0].mlp.w3.weight.shape == (1536, 4096)


def test_the_state_dict_has_the_public_names_whatever_block_chunks_says() -> None:
    names = list(tiny(num_register_tokens=2, init_values=1e-5, block_chunks=3).state_dict())
    assert names[:4] == ["cls_token", "pos_embed", "register_tokens", "mask_token"]
    assert set(names) == set(tiny(num_register_tokens=2, init_values=1e-5).state_dict())
    assert "blocks.2.ls2.gamma" in names


def test_masked_patches_become_the_mask_token_before_positions_are_added() -> None:
    vit = tiny().eval()
    pictures = torch.randn(2, 3, 56, 56)
    masks = torch.zeros(2, 16, dtype=torch.bool)
    masks[0, 3] = True
    tokens, plain = vit.prepare_tokens_with_masks(pictures, masks), vit.prepare_tokens_with_masks(pictures)
    assert_close(tokens[0, 4], vit.mask_token[0] + vit.pos_embed[0, 4])
    untouched = torch.ones(2, 17, dtype=torch.bool)
    untouched[0, 4] = False
    assert torch.equal(tokens[untouched], plain[untouched])


def test_hidden_patches_do_not_change_the_output() -> None:
    vit = tiny().eval()
    masks = torch.zeros(1, 16, dtype=torch.bool)
    masks[0, 0] = True
    pictures = torch.randn(1, 3, 56, 56)
    others = pictures.clone()
    others[..., :14, :14] = 7.0
    first, second = (vit.forward_features(p, masks)["x_norm_clstoken"] for p in (pictures, others))
    assert torch.equal(first, second)


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_a_list_of_sizes_gives_what_each_size_gives_alone(mode: str) -> None:
    vit = tiny(num_register_tokens=2, init_values=0.5)
    vit.train(mode == "train")
    large, small = torch.randn(2, 3, 56, 56), torch.randn(5, 3, 28, 28)
    masks = torch.rand(2, 16) < 0.4
    together = vit.forward_features([large, small], [masks, None])
    for ours, alone in zip(together, (vit.forward_features(large, masks), vit.forward_features(small)), strict=True):
        for key in ("x_norm_clstoken", "x_norm_regtokens", "x_norm_patchtokens", "x_prenorm"):
            assert torch.equal(ours[key], alone[key])
    assert together[0]["masks"] is masks


def test_a_list_gives_the_gradients_that_separate_passes_give() -> None:
    vit = tiny(init_values=0.5)
    large, small = torch.randn(2, 3, 56, 56), torch.randn(3, 3, 28, 28)

    def gradients(features: list) -> list[torch.Tensor]:
        vit.zero_grad()
        sum(f["x_norm_clstoken"].pow(2).sum() + f["x_norm_patchtokens"][:, 0].sum() for f in features).backward()
        return [parameter.grad.clone() for parameter in vit.parameters() if parameter.grad is not None]

    together = gradients(vit.forward_features([large, small]))
    apart = gradients([vit.forward_features(large), vit.forward_features(small)])
    assert_close(together, apart, atol=1e-4, rtol=1e-4)


def test_training_with_drop_path_differs_between_draws_and_evaluation_does_not() -> None:
    vit = tiny(drop_path_rate=0.5, drop_path_uniform=True)
    pictures = torch.randn(4, 3, 28, 28)
    assert not torch.equal(vit.train()(pictures), vit(pictures))
    assert torch.equal(vit.eval()(pictures), vit(pictures))


def test_a_picture_may_be_wider_than_high_and_so_may_the_model() -> None:
    vit = tiny(img_size=(28, 70)).eval()
    assert vit.patch_embed.patches_resolution == (2, 5)
    native = vit.forward_features(torch.randn(1, 3, 28, 70))
    assert native["x_norm_patchtokens"].shape == (1, 10, 16)
    assert vit.forward_features(torch.randn(1, 3, 84, 42))["x_norm_patchtokens"].shape == (1, 18, 16)


def test_one_channel_pictures_are_read_where_the_model_has_one_channel() -> None:
    assert tiny(in_chans=1)(torch.randn(2, 1, 28, 28)).shape == (2, 16)


def test_the_last_intermediate_layer_is_the_normed_output() -> None:
    vit = tiny(num_register_tokens=2).eval()
    pictures = torch.randn(2, 3, 28, 42)
    features = vit.forward_features(pictures)
    ((patches, cls, registers),) = vit.get_intermediate_layers(
        pictures, 1, reshape=True, return_class_token=True, return_register_tokens=True
    )
    assert patches.shape == (2, 16, 2, 3)
    assert torch.equal(patches.flatten(2).transpose(1, 2), features["x_norm_patchtokens"])
    assert torch.equal(cls, features["x_norm_clstoken"])
    assert torch.equal(registers, features["x_norm_regtokens"])


def test_intermediate_layers_are_chosen_by_number_and_unnormed_on_request() -> None:
    vit = tiny().eval()
    pictures = torch.randn(1, 3, 28, 28)
    last_two = vit.get_intermediate_layers(pictures, 2)
    assert torch.equal(vit.get_intermediate_layers(pictures, [1])[0], last_two[0])
    (raw,) = vit.get_intermediate_layers(pictures, [2], norm=False)
    assert torch.equal(vit.norm(raw), last_two[1])
    with pytest.raises(ValueError, match="n=5, but this model has blocks 0 to 2"):
        vit.get_intermediate_layers(pictures, 5)


def test_called_plainly_the_model_gives_cls_and_in_training_form_all_tokens() -> None:
    vit = tiny().eval()
    pictures = torch.randn(2, 3, 28, 28)
    features = vit(pictures, is_training=True)
    assert torch.equal(vit(pictures), features["x_norm_clstoken"])


@pytest.mark.parametrize("registers", [0, 2])
def test_asked_for_some_tokens_of_several_sizes_the_model_gives_those(registers: int) -> None:
    vit = tiny(num_register_tokens=registers, drop_path_rate=0.3).eval()
    large, small = torch.randn(2, 3, 56, 56), torch.randn(3, 3, 28, 28)
    masks = torch.zeros(2, 16, dtype=torch.bool)
    masks[1, 3:7] = True
    on_large, on_small = vit.forward_features([large, small], [masks, None])
    patches, length = 1 + registers, 1 + registers + 16
    places = torch.tensor([0, length, length + patches + 5, 2 * length, 2 * length + 1 + registers + 4])
    found = vit([large, small], [masks, None], only=places)
    cls, inside = (on_large["x_norm_clstoken"], on_small["x_norm_clstoken"]), on_large["x_norm_patchtokens"]
    assert_close(found[:4], torch.stack([cls[0][0], cls[0][1], inside[1, 5], cls[1][0]]), rtol=1e-5, atol=1e-5)
    assert vit.num_tokens_of(large) == length
    assert_close(found[4], on_small["x_norm_clstoken"][1], rtol=1e-5, atol=1e-5)


def test_pictures_and_masks_of_different_kinds_are_refused() -> None:
    with pytest.raises(TypeError, match="both be tensors or both be lists"):
        tiny().forward_features([torch.randn(1, 3, 28, 28)], torch.zeros(1, 4, dtype=torch.bool))


def test_the_initial_weights_have_the_public_distributions() -> None:
    torch.manual_seed(0)
    vit = DinoVisionTransformer(img_size=224, patch_size=14, embed_dim=192, depth=2, num_heads=3, init_values=1e-5)
    state = {name: tensor.detach() for name, tensor in vit.state_dict().items()}
    assert float(state["pos_embed"].std()) == pytest.approx(0.02, rel=0.05)
    assert float(state["blocks.1.mlp.fc2.weight"].std()) == pytest.approx(0.02, rel=0.05)
    assert 0 < float(state["cls_token"].abs().max()) < 1e-5
    assert float(state["mask_token"].abs().max()) == 0
    assert float(state["blocks.0.attn.qkv.bias"].abs().max()) == 0
    assert torch.equal(state["blocks.0.ls1.gamma"], torch.full((192,), 1e-5))
    bound = (3 * 14 * 14) ** -0.5  # the convolution keeps torch's default
    assert float(state["patch_embed.proj.weight"].abs().max()) == pytest.approx(bound, rel=0.01)


def test_drop_path_rates_are_uniform_or_rise_from_zero() -> None:
    assert drop_path_rates(0.3, depth=3, uniform=True) == [0.3, 0.3, 0.3]
    assert drop_path_rates(0.3, depth=4, uniform=False) == pytest.approx([0.0, 0.1, 0.2, 0.3])
