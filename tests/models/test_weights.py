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
from dinov2.models.key_maps import to_transformers
from dinov2.models.weights import compare_part


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


def test_another_number_format_is_said() -> None:
    report = load_part(tiny(seed=2), {name: tensor.half() for name, tensor in copied(tiny()).items()}, source="w")
    assert report.notes == ("values: float16 in the file, float32 in the model",)


def test_registers_that_the_file_lacks_are_added_and_reported() -> None:
    target = tiny(seed=2, num_register_tokens=4)
    before = target.register_tokens.detach().clone()
    report = load_part(target, copied(tiny(seed=1)), source="w")
    assert report.missing == ("register_tokens",)
    assert torch.equal(target.register_tokens, before)
    assert "register_tokens: 4 added to a model without, as initialised" in report.summary()


def test_a_file_with_some_of_the_registers_fills_those() -> None:
    source, target = tiny(seed=1, num_register_tokens=2), tiny(seed=2, num_register_tokens=5)
    torch.nn.init.normal_(source.register_tokens)
    before = target.register_tokens.detach().clone()
    report = load_part(target, copied(source), source="w")
    assert torch.equal(target.register_tokens[:, :2], source.register_tokens)
    assert torch.equal(target.register_tokens[:, 2:], before[:, 2:])
    assert report.resized == ("register_tokens: 2 of the file, 3 more as initialised",)


@pytest.mark.parametrize("kept", [0, 2])
def test_registers_are_never_taken_away_silently(kept: int) -> None:
    message = faults_of(tiny(num_register_tokens=kept), copied(tiny(num_register_tokens=4)))
    assert "give the model as many registers as the file has" in message


def test_a_mask_token_that_the_file_lacks_is_left_as_it_is_and_said() -> None:
    state = copied(tiny(seed=1))
    del state["mask_token"]
    report = load_part(tiny(seed=2), state, source="w")
    assert "mask_token: the file has none, left as initialised; only training uses it" in report.notes


def test_a_file_without_biases_of_queries_keys_and_values_gives_the_same_function() -> None:
    source, target = tiny(seed=1, qkv_bias=False).eval(), tiny(seed=2).eval()
    for block in target.blocks:
        torch.nn.init.ones_(block.attn.qkv.bias)
    report = load_part(target, copied(source), source="w")
    assert report.notes == ("2 biases of queries, keys and values: zeros, as the file has none",)
    pictures = torch.randn(1, 3, 56, 56)
    assert_close(target(pictures), source(pictures), atol=1e-6, rtol=1e-6)


def test_a_table_that_is_not_square_is_resized_where_its_grid_is_said() -> None:
    source, target = tiny(seed=1, img_size=(42, 84)), tiny(seed=2, img_size=56)
    assert "pos_embed: [1, 19, 16] in the file, [1, 17, 16] in the model" in faults_of(target, copied(source))
    report = load_part(target, copied(source), source="w", grid=(3, 6))
    assert report.resized == ("pos_embed: 3 x 6 patches resampled to 4 x 4",)
    with torch.no_grad():
        pictures = torch.randn(1, 3, 56, 56)
        assert_close(target.eval()(pictures), source.eval()(pictures), atol=1e-6, rtol=1e-6)


def test_shapes_alone_tell_what_loading_would_say() -> None:
    state = copied(tiny(seed=1, img_size=84, in_chans=1).half())
    with torch.device("meta"):
        target = DinoVisionTransformer(
            img_size=56, patch_size=14, embed_dim=16, depth=2, num_heads=2, num_register_tokens=4
        )
    said = compare_part(target, {name: tensor.to("meta") for name, tensor in state.items()}, source="w")
    assert said == load_part(tiny(seed=2, num_register_tokens=4), state, source="w")
    with pytest.raises(WeightsError, match="cls_token: "):
        compare_part(target, copied(tiny(embed_dim=24)), source="w")


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
    other = tmp_path / "weights.txt"
    other.write_text("weights")
    assert "weights end in .safetensors, .pth" in refusal(other)
    pickled = tmp_path / "run.pth"
    torch.save({"model": print}, pickled)
    message = refusal(pickled)
    assert "print would have to be called, and nothing of a file is ever run" in message
    assert "Only files of tensors are opened" in message
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
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")
    assert "it is a pointer of Git LFS, and the weights were not fetched (git lfs pull)" in refusal(path)
    old = write(tmp_path / "w.pth", copied(tiny()))
    old.write_bytes(old.read_bytes()[:-100])
    assert "Is the file whole? Copy it again." in refusal(old)


def test_files_older_than_zip_archives_are_read(tmp_path: Path) -> None:
    torch.save(copied(tiny(seed=1)), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert same(read_weights(tmp_path / "old.pth").part("backbone"), copied(tiny(seed=1)))


def transformers_folder(folder: Path) -> dict[str, Tensor]:
    """Hugging Face's folder of a small network, and its weights under public names."""
    vit = tiny(seed=1, init_values=1.0)
    folder.mkdir(exist_ok=True)
    write(folder / "model.safetensors", to_transformers(copied(vit)))
    (folder / "config.json").write_text(json.dumps({"model_type": "dinov2", "num_attention_heads": 2}))
    return copied(vit)


@pytest.mark.parametrize("compatible", [True, False])
def test_rad_dino_s_folder_gives_the_backbone_and_the_head_beside_it(tmp_path: Path, compatible: bool) -> None:
    backbone, head = transformers_folder(tmp_path), DINOHead(16, 24, hidden_dim=8, bottleneck_dim=4)
    write(tmp_path / "dino_head.safetensors", copied(head))
    if compatible:
        write(tmp_path / "backbone_compatible.safetensors", backbone)
    weights = read_weights(tmp_path)
    assert same(weights.part("backbone"), backbone)
    assert same(weights.part("dino_head"), copied(head))


def test_a_model_in_several_files_is_put_together_and_a_missing_one_is_named(tmp_path: Path) -> None:
    backbone = transformers_folder(tmp_path)
    state = to_transformers(backbone)
    names = sorted(state)
    (tmp_path / "model.safetensors").unlink()
    files = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(names)}
    for file in set(files.values()):
        write(tmp_path / file, {name: state[name] for name in names if files[name] == file})
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    assert same(read_weights(tmp_path).part("backbone"), backbone)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    assert "names model-00002-of-00002.safetensors, not in the folder" in refusal(tmp_path)


def test_the_only_file_of_a_folder_is_taken_and_of_several_none(tmp_path: Path) -> None:
    write(tmp_path / "teacher_checkpoint.pth", copied(tiny(seed=1)))
    assert same(read_weights(tmp_path).part("backbone"), copied(tiny(seed=1)))
    write(tmp_path / "other.pth", copied(tiny(seed=2)))
    assert "holds several files of weights; name one: other.pth, teacher_checkpoint.pth" in refusal(tmp_path)


def test_centres_lie_in_a_file_of_their_own_or_beside_the_networks(tmp_path: Path) -> None:
    centers = {"dino_loss.center": torch.randn(1, 6), "ibot_patch_loss.center": torch.randn(1, 1, 6)}
    write(tmp_path / "backbone.safetensors", copied(tiny()))
    write(tmp_path / "centers.safetensors", centers)
    dump = {f"teacher.backbone.{name}": tensor for name, tensor in copied(tiny()).items()} | centers
    whole = write(tmp_path / "dump.pth", {"model": dump})
    for place in (tmp_path, whole):
        found = read_weights(place).centers
        assert torch.equal(found["dino_center"], centers["dino_loss.center"].flatten())
        assert torch.equal(found["ibot_center"], centers["ibot_patch_loss.center"].flatten())


def test_the_student_is_read_where_it_is_asked_for_and_refused_where_none_is_named(tmp_path: Path) -> None:
    teacher, student = copied(tiny(seed=1)), copied(tiny(seed=2))
    dump = {f"teacher.backbone.{name}": tensor for name, tensor in teacher.items()}
    dump |= {f"student.backbone.{name}": tensor for name, tensor in student.items()}
    for holder in ({"model": dump}, {"teacher": teacher, "student": student}):
        path = write(tmp_path / "dump.pth", holder)
        assert same(read_weights(path).part("backbone"), teacher)
        assert same(read_weights(path, which="student").part("backbone"), student)
    with pytest.raises(WeightsError, match="says of no tensor that it is the student's"):
        read_weights(write(tmp_path / "w.pth", teacher), which="student")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_headers_have_the_names_and_shapes_of_the_values(tmp_path: Path, suffix: str) -> None:
    state = copied(tiny().half())
    headers = read_weights(write(tmp_path / f"w{suffix}", state), values=False).part("backbone")
    assert {name: (tensor.shape, tensor.dtype, "meta") for name, tensor in state.items()} == {
        name: (tensor.shape, tensor.dtype, tensor.device.type) for name, tensor in headers.items()
    }


def test_a_hub_id_is_read_from_the_cache_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commits = {"main": "a" * 40, "v2": "b" * 40}
    model = tmp_path / "models--owner--name"
    (model / "refs").mkdir(parents=True)
    for i, (ref, commit) in enumerate(commits.items()):
        (model / "refs" / ref).write_text(commit)
        write_at = model / "snapshots" / commit
        write_at.mkdir(parents=True)
        write(write_at / "model.safetensors", to_transformers(copied(tiny(seed=i, init_values=1.0))))
        (write_at / "config.json").write_text(json.dumps({"model_type": "dinov2"}))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert same(read_weights("owner/name").part("backbone"), copied(tiny(seed=0, init_values=1.0)))
    assert same(read_weights(Path("owner/name"), revision="v2").part("backbone"), copied(tiny(seed=1, init_values=1.0)))
    with pytest.raises(WeightsError, match="no model of this name in the Hugging Face cache nor to be had from the"):
        read_weights("owner/other")
    with pytest.raises(WeightsError, match=r"owner/name\.pth: no such file or folder"):
        read_weights("owner/name.pth")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    assert "it is empty" in refusal(tmp_path)


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
