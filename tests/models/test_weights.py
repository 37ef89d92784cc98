import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.testing import assert_close

from dinov2.errors import WeightsError
from dinov2.layers import DINOHead
from dinov2.models import DinoVisionTransformer, load_part, read_weights


def tiny(*, seed: int = 0, **arguments: object) -> DinoVisionTransformer:
    torch.manual_seed(seed)
    return DinoVisionTransformer(
        **({"img_size": 56, "patch_size": 14, "embed_dim": 16, "depth": 2, "num_heads": 2} | arguments)
    )


def copied(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def write(path: Path, state: dict[str, Tensor]) -> Path:
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_written_and_read_are_the_same_weights(tmp_path: Path, suffix: str) -> None:
    source, target = tiny(seed=1), tiny(seed=2)
    weights = read_weights(write(tmp_path / f"w{suffix}", copied(source)))
    report = load_part(target, weights.part("backbone"), source="w")
    assert same(copied(source), copied(target))
    assert set(report.used) == set(copied(source))
    assert report.resized == report.missing == report.unexpected == ()


def test_a_public_teacher_dump_gives_backbone_and_head(tmp_path: Path) -> None:
    vit, head = tiny(), DINOHead(16, 24, hidden_dim=8, bottleneck_dim=4)
    dump = {f"backbone.{k}": v for k, v in copied(vit).items()} | {f"dino_head.{k}": v for k, v in copied(head).items()}
    weights = read_weights(write(tmp_path / "teacher_checkpoint.pth", {"teacher": dump}))
    assert same(weights.part("backbone"), copied(vit))
    assert same(weights.part("dino_head"), copied(head))
    with pytest.raises(WeightsError, match="holds no ibot_head, only backbone, dino_head"):
        weights.part("ibot_head")


def test_a_file_of_one_head_serves_as_either_head(tmp_path: Path) -> None:
    head = DINOHead(16, 24, hidden_dim=8, bottleneck_dim=4)
    weights = read_weights(write(tmp_path / "dino_head.safetensors", copied(head)))
    assert same(weights.part("ibot_head"), weights.part("dino_head"))


def test_a_folder_of_exports_is_read_part_by_part(tmp_path: Path) -> None:
    vit, head = tiny(), DINOHead(16, 24, hidden_dim=8, bottleneck_dim=4)
    write(tmp_path / "backbone.safetensors", copied(vit))
    write(tmp_path / "ibot_head.safetensors", copied(head))
    weights = read_weights(tmp_path)
    assert set(weights.parts) == {"backbone", "ibot_head"}
    assert same(weights.part("ibot_head"), copied(head))


@pytest.mark.parametrize(
    "mode", [{"interpolate_offset": 0.1}, {"interpolate_offset": 0.0, "interpolate_antialias": True}]
)
def test_a_resized_model_gives_at_its_size_what_the_source_gives_there(mode: dict) -> None:
    source, target = tiny(seed=1, **mode).eval(), tiny(seed=2, img_size=(84, 42), **mode).eval()
    report = load_part(target, copied(source), source="w")
    pictures = torch.randn(2, 3, 84, 42)
    assert_close(target(pictures), source(pictures), atol=1e-6, rtol=1e-6)
    assert report.resized == ("pos_embed: 4 x 4 patches resampled to 6 x 3",)
    assert "resized pos_embed: 4 x 4 patches resampled to 6 x 3" in report.summary()


@pytest.mark.parametrize(
    ("given", "wanted", "how"), [(3, 1, "3 channels summed to 1"), (1, 3, "1 channel spread over 3")]
)
def test_a_grey_picture_gives_the_same_tokens_after_a_change_of_channels(given: int, wanted: int, how: str) -> None:
    source, target = tiny(seed=1, in_chans=given).eval(), tiny(seed=2, in_chans=wanted).eval()
    report = load_part(target, copied(source), source="w")
    grey = torch.randn(2, 1, 56, 56)
    of_source, of_target = (model(grey.expand(-1, c, -1, -1)) for model, c in ((source, given), (target, wanted)))
    assert_close(of_target, of_source, atol=1e-5, rtol=1e-5)
    assert report.resized == (f"patch_embed.proj.weight: {how}",)


def test_half_precision_weights_are_loaded_in_the_precision_of_the_model() -> None:
    target = tiny(seed=2)
    load_part(target, {name: tensor.half() for name, tensor in copied(tiny(seed=1)).items()}, source="w")
    assert target.pos_embed.dtype == torch.float32
    assert torch.equal(target.pos_embed, tiny(seed=1).pos_embed.half().float())


def test_registers_that_the_file_lacks_may_be_allowed_and_are_reported() -> None:
    target = tiny(seed=2, num_register_tokens=4)
    before = target.register_tokens.detach().clone()
    report = load_part(target, copied(tiny(seed=1)), source="w", allow_missing=("register_*",))
    assert report.missing == ("register_tokens",)
    assert torch.equal(target.register_tokens, before)
    assert "not in the file, left as initialised: register_tokens" in report.summary()


def test_names_that_the_model_lacks_may_be_allowed_and_are_reported() -> None:
    state = copied(tiny(seed=1)) | {"fc.weight": torch.zeros(2), "fc.bias": torch.zeros(2)}
    report = load_part(tiny(seed=2), state, source="w", allow_unexpected=("fc.*",))
    assert report.unexpected == ("fc.bias", "fc.weight")
    assert "in the file, not used: fc.bias, fc.weight" in report.summary()


def faults_of(target: DinoVisionTransformer, state: dict[str, Tensor]) -> str:
    before = copied(target)
    with pytest.raises(WeightsError) as caught:
        load_part(target, state, source="w.pth")
    assert same(before, copied(target)), "something was loaded although it was refused"
    return str(caught.value)


def test_weights_of_another_width_print_both_sides_and_load_nothing() -> None:
    message = faults_of(tiny(), copied(tiny(embed_dim=24)))
    assert message.startswith("w.pth does not fit this model; nothing was loaded:")
    assert "cls_token: [1, 1, 24] in the file, [1, 1, 16] in the model" in message
    assert "pos_embed: [1, 17, 24] in the file, [1, 17, 16] in the model" in message


def test_weights_of_another_depth_name_the_key_that_would_allow_them() -> None:
    assert "not in the model: blocks.2.attn.proj.bias" in faults_of(tiny(), copied(tiny(depth=3)))
    message = faults_of(tiny(depth=3), copied(tiny()))
    assert "missing from the file: blocks.2.attn.proj.bias" in message
    assert "and 4 more (if that is meant, name them in init_from.allow_missing)" in message


def test_another_patch_size_is_not_resized() -> None:
    message = faults_of(tiny(), copied(tiny(img_size=64, patch_size=16)))
    assert "patch_embed.proj.weight: [16, 3, 16, 16] in the file, [16, 3, 14, 14] in the model" in message


def refusal(path: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        read_weights(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_files_that_hold_no_weights_are_refused_each_with_its_reason(tmp_path: Path) -> None:
    assert "no such file or folder" in refusal(tmp_path / "absent.pth")
    other = tmp_path / "weights.onnx"
    other.touch()
    assert "weights end in .safetensors, .pth" in refusal(other)
    pickled = tmp_path / "run.pth"
    torch.save({"model": print}, pickled)
    assert "Only files of tensors are opened" in refusal(pickled)
    text = tmp_path / "page.pth"
    text.write_text("<html>not found</html>")
    assert "cannot be read as weights" in refusal(text)
    listed = tmp_path / "list.pth"
    torch.save([torch.zeros(1)], listed)
    assert "holds a list, not a mapping" in refusal(listed)
    numbers = tmp_path / "numbers.pth"
    torch.save({"epoch": 3}, numbers)
    assert "holds no tensors" in refusal(numbers)


def test_a_truncated_safetensors_and_an_empty_one_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "w.safetensors", copied(tiny()))
    path.write_bytes(path.read_bytes()[:-100])
    assert "Is the file whole? Copy it again." in refusal(path)
    path.write_bytes(b"")
    assert "cannot be read as weights" in refusal(path)


def test_folders_that_hold_no_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    assert "no backbone.safetensors, model.safetensors or pytorch_model.bin in it, only notes.txt" in refusal(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(WeightsError, match="model_type is 'bert'; expected dinov2 or dinov2_with_registers"):
        read_weights(tmp_path)
    config.write_text("{")
    with pytest.raises(WeightsError, match="not a Hugging Face config"):
        read_weights(tmp_path)
