import shutil
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from dinov2.encoder import Encoder
from dinov2.errors import WeightsError
from dinov2.formats import Source, open_vit
from dinov2.formats.source import Dtype
from dinov2.formats.transformers_check import read_back
from dinov2.formats.transformers_folder import write_transformers
from dinov2.formats.transformers_form import fit, transformers_config
from dinov2.layers import DINOHead
from dinov2.models.key_maps import from_transformers
from dinov2.models.processor import read_json
from dinov2.models.registry import ARCHITECTURES
from dinov2.models.vision_transformer import vit_base
from dinov2.models.weights import read_weights
from tests.formats.transformers_sources import FORMS, HEAD, SIDE, SMALL, film, names_in, small_source, tokens

transformers = pytest.importorskip("transformers")
CLOSE = 1e-5


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Source, Path]:
    source, folder = small_source(), tmp_path_factory.mktemp("plain") / "small"
    write_transformers(source, folder)
    return source, folder


def largest(theirs: torch.Tensor, ours: torch.Tensor) -> float:
    assert theirs.shape == ours.shape
    return float((theirs - ours).abs().max())


@pytest.mark.parametrize("form", FORMS)
def test_the_models_and_processors_of_transformers_give_our_features(form: str, tmp_path: Path) -> None:
    source = small_source(**FORMS[form])
    write_transformers(source, tmp_path / "out")
    model = transformers.AutoModel.from_pretrained(tmp_path / "out")
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "out")
    pixels = processor(film(), return_tensors="pt")["pixel_values"]
    assert pixels.shape == (1, 3, SIDE, SIDE)
    with torch.no_grad():
        output = model(pixel_values=pixels)
    ours = tokens(source.backbone, pixels)
    assert largest(output.last_hidden_state, ours) <= CLOSE
    assert largest(output.pooler_output, ours[:, 0]) <= CLOSE
    assert type(model).__name__ == ("Dinov2WithRegistersModel" if "registers" in form else "Dinov2Model")


def test_the_pipeline_and_the_encoder_give_the_same_features(plain: tuple[Source, Path]) -> None:
    _, folder = plain
    extract = transformers.pipeline("image-feature-extraction", model=str(folder))
    theirs = torch.tensor(extract(film()))  # [1, 1 + N, D]
    cls, patches = Encoder.from_pretrained(folder).extract_features(film())
    assert largest(theirs[:, 0], cls) <= CLOSE
    assert largest(theirs[:, 1:], patches.flatten(2).transpose(1, 2)) <= CLOSE


def test_the_class_of_the_rad_dino_package_reads_the_folder(
    plain: tuple[Source, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    rad_dino = pytest.importorskip("rad_dino")
    source, folder = plain
    monkeypatch.setattr(rad_dino.RadDino, "_REPO", str(folder))
    theirs = rad_dino.RadDino()
    pixels = theirs.preprocess(film())["pixel_values"]
    cls, patches = theirs.extract_features(film())
    ours = tokens(source.backbone, pixels)
    assert largest(cls, ours[:, 0]) <= CLOSE
    assert largest(patches.flatten(2).transpose(1, 2), ours[:, 1:]) <= CLOSE


def test_a_base_model_at_518_pixels_gives_our_features_in_every_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rad_dino = pytest.importorskip("rad_dino")
    source = small_source(arch="vit_base")
    written = write_transformers(source, tmp_path / "base")
    assert any(check.startswith("at 518 px: largest difference") for check in written.checks)
    assert any("at 196 px" in check and "offset of 0.1" in check for check in written.checks)
    monkeypatch.setattr(rad_dino.RadDino, "_REPO", str(tmp_path / "base"))
    theirs = rad_dino.RadDino()
    inputs = theirs.preprocess(film(rows=600, columns=700))
    with torch.no_grad():
        cls, patches = theirs.encode(inputs)
    with torch.device("meta"):
        public = vit_base(patch_size=14, img_size=518, init_values=1.0, block_chunks=0)
    public.load_state_dict(read_weights(tmp_path / "base").part("backbone"), strict=True, assign=True)
    ours = tokens(public.eval(), inputs["pixel_values"])
    assert (cls.shape, patches.shape) == ((1, 768), (1, 1369, 768))
    assert largest(torch.cat([cls.unsqueeze(1), patches], dim=1), ours) <= CLOSE


@pytest.mark.parametrize("form", FORMS)
def test_the_tensors_come_back_bit_for_bit(form: str, tmp_path: Path) -> None:
    source = small_source(**FORMS[form])
    write_transformers(source, tmp_path / "out")
    wanted = source.backbone.state_dict()
    back = open_vit(tmp_path / "out").vit.state_dict()
    for name, tensor in wanted.items():
        got = back[name].sum(dim=1, keepdim=True) if back[name].shape != tensor.shape else back[name]
        assert torch.equal(got, tensor), name
    added = {name: back[name] for name in back.keys() - wanted.keys()}
    assert all(torch.equal(tensor, torch.full_like(tensor, name.endswith("gamma"))) for name, tensor in added.items())


def test_without_our_card_and_through_transformers_own_writing_they_are_the_same_bits(
    plain: tuple[Source, Path], tmp_path: Path
) -> None:
    source, folder = plain
    again = tmp_path / "again"
    transformers.AutoModel.from_pretrained(folder).save_pretrained(again)
    bare = tmp_path / "bare"
    shutil.copytree(folder, bare)
    (bare / "backbone_card.json").unlink()
    for place in (again, bare):
        back = open_vit(place).vit.state_dict()
        wanted = source.backbone.state_dict()
        assert back.keys() == wanted.keys()
        assert all(torch.equal(back[name], wanted[name]) for name in wanted), place


@pytest.mark.parametrize(("dtype", "moved"), [("float16", 1e-2), ("bfloat16", 1e-1)])
def test_half_precision_is_written_and_what_it_costs_is_said(dtype: Dtype, moved: float, tmp_path: Path) -> None:
    source = small_source()
    written = write_transformers(source, tmp_path / "out", dtype=dtype)
    model = transformers.AutoModel.from_pretrained(tmp_path / "out", dtype="auto")
    assert model.dtype == getattr(torch, dtype)
    assert {tensor.dtype for tensor in load_file(tmp_path / "out" / "model.safetensors").values()} == {model.dtype}
    said = next(check for check in written.checks if f"rounded to {dtype}" in check)
    assert 1e-5 < float(said.split("difference ")[1].split()[0]) < moved
    pixels = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        theirs = model.float()(pixel_values=pixels).last_hidden_state
    assert f"{largest(theirs, tokens(source.backbone, pixels)):.1e}" in said


def test_at_other_sizes_the_difference_of_the_position_tables_is_measured_and_written_down(
    plain: tuple[Source, Path], tmp_path: Path
) -> None:
    source, folder = plain
    readme = (folder / "README.md").read_text()
    said = next(line for line in readme.splitlines() if line.startswith("- at 28 px"))
    pixels = torch.randn(1, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        theirs = transformers.AutoModel.from_pretrained(folder)(pixel_values=pixels).last_hidden_state
    difference = largest(theirs, tokens(source.backbone, pixels))
    assert difference > 1e-3
    assert f"largest difference {difference:.1e}, because" in said

    alike = small_source(num_register_tokens=2, interpolate_offset=0.0, interpolate_antialias=True)
    checks = write_transformers(alike, tmp_path / "alike").checks
    assert not any("because" in check for check in checks)
    wide = torch.randn(1, 3, 28, 98)
    with torch.no_grad():
        theirs = transformers.AutoModel.from_pretrained(tmp_path / "alike")(pixel_values=wide).last_hidden_state
    assert largest(theirs, tokens(alike.backbone, wide)) <= CLOSE


def test_with_the_heads_the_folder_is_laid_out_as_the_released_rad_dino(tmp_path: Path) -> None:
    source = small_source(heads=("dino_head", "ibot_head"))
    folder = tmp_path / "out"
    written = write_transformers(source, folder, with_heads=True)
    assert names_in(folder) == [
        "README.md",
        "backbone_card.json",
        "backbone_compatible.safetensors",
        "config.json",
        "dino_head.safetensors",
        "ibot_head.safetensors",
        "model.safetensors",
        "preprocessor_config.json",
    ]
    assert [file.name for file in written.files] == names_in(folder)
    for name, head in source.heads.items():
        back = DINOHead(**HEAD)
        back.load_state_dict(load_file(folder / f"{name}.safetensors"), strict=True)
        assert all(torch.equal(back.state_dict()[key], value) for key, value in head.state_dict().items())
    source.backbone.load_state_dict(load_file(folder / "backbone_compatible.safetensors"), strict=True)
    read = read_weights(folder)
    assert set(read.parts) == {"backbone", "dino_head", "ibot_head"}
    assert open_vit(folder).vit.embed_dim == 64


@pytest.mark.parametrize(
    ("name", "registers"), [("vit_small", 4), ("vit_large", 0), ("vit_giant2", 0), ("vit_giant2", 4)]
)
def test_the_public_sizes_have_the_tensors_that_transformers_builds(name: str, registers: int) -> None:
    layer = "swiglufused" if name == "vit_giant2" else "mlp"
    with torch.device("meta"):
        ours = ARCHITECTURES[name](
            img_size=518, patch_size=14, init_values=1.0, ffn_layer=layer, num_register_tokens=registers
        )
        said = transformers_config(ours, dtype="float32")
        theirs = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(**said))
    shapes = {key: value.shape for key, value in from_transformers(theirs.state_dict()).items()}
    assert shapes == {key: value.shape for key, value in ours.state_dict().items()}


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_one_channel_is_spread_over_three_that_sum_to_it_exactly(dtype: Dtype) -> None:
    source = small_source(in_chans=1)
    weight = source.backbone.patch_embed.proj.weight.detach().to(getattr(torch, dtype))
    spread = fit(source, dtype=dtype).backbone.patch_embed.proj.weight.to(weight.dtype)
    assert spread.shape == (64, 3, 14, 14)
    assert torch.equal(spread.float().sum(dim=1, keepdim=True), weight.float())
    torch.testing.assert_close(spread.float(), (weight.float() / 3).expand(-1, 3, -1, -1), atol=1e-3, rtol=0)


def test_the_configuration_has_the_types_that_transformers_insists_on(plain: tuple[Source, Path]) -> None:
    _, folder = plain
    said = read_json(folder / "config.json")
    assert (said["mlp_ratio"], type(said["mlp_ratio"]), type(said["layerscale_value"])) == (4, int, float)
    assert said["use_mask_token"] is True
    processor = read_json(folder / "preprocessor_config.json")
    assert (processor["size"], processor["resample"]) == ({"shortest_edge": SIDE}, 3)
    assert processor["image_mean"] == [0.53] * 3


def spoil_tensor(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    state["encoder.layer.1.norm2.weight"][5] += 1e-6
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def lose_tensor(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    del state["encoder.layer.1.mlp.fc1.bias"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def cut_file(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def another_mean(folder: Path) -> None:
    path = folder / "preprocessor_config.json"
    path.write_text(path.read_text().replace("0.53", "0.54"))


def another_crop(folder: Path) -> None:
    path = folder / "preprocessor_config.json"
    path.write_text(path.read_text().replace('"do_center_crop": true', '"do_center_crop": false'))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_tensor, r"what transformers reads back differs in blocks\.1\.norm2\.weight"),
        (lose_tensor, r"does not use the names as they were written.*fc1\.bias"),
        (cut_file, "transformers cannot read what was written"),
        (another_mean, "image processor gives"),
        (another_crop, "image processor gives"),
    ],
)
def test_a_file_that_was_spoiled_after_it_was_written_is_noticed(
    spoil: Any, message: str, plain: tuple[Source, Path], tmp_path: Path
) -> None:
    source, folder = plain
    spoiled = tmp_path / "spoiled"
    shutil.copytree(folder, spoiled)
    fitted = fit(source, dtype="float32")
    read_back(spoiled, source=source, fitted=fitted, dtype="float32")
    spoil(spoiled)
    with pytest.raises(WeightsError, match=message):
        read_back(spoiled, source=source, fitted=fitted, dtype="float32")


def test_features_that_differ_are_refused_and_leave_nothing_behind(tmp_path: Path) -> None:
    source = small_source()
    wrong = replace(source.card, architecture=SMALL | {"num_heads": 2})
    with pytest.raises(WeightsError, match="features differ from ours by"):
        write_transformers(replace(source, card=wrong), tmp_path / "out")
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mlp_ratio": 2.5}, "hidden size 160 of its feed-forward is not a whole multiple of its width 64"),
        ({"ffn_layer": "swiglu", "mlp_ratio": 2.2}, "hidden size 96 of its feed-forward is not two thirds"),
        ({"ffn_layer": "identity"}, "no feed-forward"),
        ({"in_chans": 4}, "takes 4 channels"),
        ({"img_size": (70, 84)}, "pictures are 70 x 84 pixels"),
    ],
)
def test_what_transformers_cannot_express_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=message):
        write_transformers(small_source(**changes), tmp_path / "out")
    assert names_in(tmp_path) == []


def test_values_beyond_float16_and_heads_that_are_not_there_are_refused(tmp_path: Path) -> None:
    source = small_source()
    with pytest.raises(WeightsError, match="holds no projection heads"):
        write_transformers(source, tmp_path / "out", with_heads=True)
    with torch.no_grad():
        source.backbone.blocks[1].mlp.fc2.weight[3, 3] = 1e5
    with pytest.raises(WeightsError, match=r"blocks\.1\.mlp\.fc2\.weight: not all values .*--dtype bfloat16"):
        write_transformers(source, tmp_path / "out", dtype="float16")
    assert names_in(tmp_path) == []


def test_a_folder_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(WeightsError, match="exists and is not empty"):
        write_transformers(small_source(), tmp_path)
    assert names_in(tmp_path) == ["mine.txt"]


def test_where_transformers_is_absent_one_sentence_says_how_to_get_it(tmp_path: Path) -> None:
    program = """
        import sys
        sys.modules["transformers"] = None
        from pathlib import Path
        from dinov2.errors import WeightsError
        from dinov2.formats.transformers_folder import write_transformers
        from tests.formats.transformers_sources import small_source
        try:
            write_transformers(small_source(), Path(sys.argv[1]))
        except WeightsError as error:
            print(error)
    """
    words = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path / "out")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert "pip install -U transformers" in done.stdout
    assert len(done.stdout.splitlines()) == 1
    assert names_in(tmp_path) == []
