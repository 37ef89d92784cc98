"""A backbone written as ONNX, against our own network in onnxruntime."""

import itertools
import json
import sys
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from dinov2.backbone_card import read_card
from dinov2.errors import WeightsError
from dinov2.formats.onnx_check import check_backbone
from dinov2.formats.onnx_file import write_onnx
from dinov2.formats.onnx_graph import OnnxBackbone
from dinov2.formats.source import Source, Written
from tests.formats.sources import WITH_REGISTERS, small_source

Kept = tuple[Source, Written]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    source = small_source()
    folder = tmp_path_factory.mktemp("onnx") / "export"
    return source, write_onnx(source, folder, licence="mit", with_heads=True)


def run(path: Path, **given: Tensor) -> list[Tensor]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return [torch.from_numpy(found) for found in session.run(None, {name: x.numpy() for name, x in given.items()})]


@torch.no_grad()
@pytest.mark.parametrize("shape", [(1, 3, 70, 70), (3, 3, 42, 112), (2, 3, 154, 28)])
def test_any_number_of_pictures_of_any_size_gives_our_features(written: Kept, shape: tuple[int, ...]) -> None:
    source, said = written
    pictures = torch.randn(shape)
    cls, patches = run(said.folder / "backbone.onnx", pixel_values=pictures)
    ours = source.backbone.forward_features(pictures)
    assert_close(cls, ours["x_norm_clstoken"], atol=1e-4, rtol=0)
    assert_close(patches, ours["x_norm_patchtokens"], atol=1e-4, rtol=0)


@torch.no_grad()
def test_the_head_beside_it_gives_our_logits(written: Kept) -> None:
    source, said = written
    tokens = torch.randn(5, 64)
    (logits,) = run(said.folder / "dino_head.onnx", tokens=tokens)
    assert_close(logits, source.heads["dino_head"](tokens), atol=1e-5, rtol=0)


def test_the_file_alone_says_how_to_use_it(written: Kept) -> None:
    _, said = written
    assert [file.name for file in said.files] == ["backbone.onnx", "backbone_card.json", "dino_head.onnx"]
    model = onnx.load(said.folder / "backbone.onnx")
    known = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(known["mean"]) == [0.5307] * 3
    assert json.loads(known["std"]) == [0.2583] * 3
    assert (known["size"], known["patch_size"], known["licence"]) == ("70", "[14, 14]", "mit")
    card = read_card(said.folder)
    assert json.loads(known["backbone_card"])["architecture"] == card.architecture
    assert card.provenance["licence"] == "mit"
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [18]
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {
        "pixel_values": ["batch", 3, "14*patch_rows", "14*patch_columns"],
        "cls_token": ["batch", 64],
        "patch_tokens": ["batch", "patches", 64],
    }
    assert "backbone.onnx: onnxruntime gives our features to" in said.checks[0]
    assert "at 56 x 98, 154 x 84, 70 x 70 pixels (float32)" in said.checks[0]


def test_float16_with_registers_and_gates_halves_the_file_and_says_what_it_costs(tmp_path: Path, written: Kept) -> None:
    source = small_source(**WITH_REGISTERS, ffn_layer="swiglufused")
    said = write_onnx(source, tmp_path / "half", dtype="float16")
    assert [file.name for file in said.files] == ["backbone.onnx", "backbone_card.json"]
    model = onnx.load(said.folder / "backbone.onnx")
    matrices = [entry for entry in model.graph.initializer if len(entry.dims) == 2 and min(entry.dims) > 16]
    assert {entry.data_type for entry in matrices} == {onnx.TensorProto.FLOAT16}
    cls, _ = run(said.folder / "backbone.onnx", pixel_values=torch.randn(1, 3, 56, 70))
    assert cls.dtype == torch.float32
    assert "(float16)" in said.checks[0]


@torch.no_grad()
@pytest.mark.parametrize(("offset", "antialias"), list(itertools.product((0.1, 0.0), (False, True))))
@pytest.mark.parametrize("grid", [(5, 5), (5, 3), (2, 2), (4, 11), (9, 6)])
def test_the_graphs_position_table_is_the_networks_in_every_mode(
    grid: tuple[int, int], offset: float, antialias: bool
) -> None:
    vit = small_source(interpolate_offset=offset, interpolate_antialias=antialias, img_size=(70, 42)).backbone
    pictures = torch.randn(1, 3, grid[0] * 14, grid[1] * 14)
    cls, patches = OnnxBackbone(vit, dtype=torch.float32)(pictures)
    ours = vit.forward_features(pictures)
    assert_close(patches, ours["x_norm_patchtokens"], atol=5e-5, rtol=0)
    assert_close(cls, ours["x_norm_clstoken"], atol=5e-5, rtol=0)


def test_what_cannot_be_checked_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"--dtype bfloat16: onnxruntime has no .* Use float16 or float32"):
        write_onnx(small_source(), tmp_path / "export", dtype="bfloat16")
    assert not any(tmp_path.iterdir())


def test_weights_beyond_float16_are_refused_and_leave_nothing(tmp_path: Path) -> None:
    source = small_source()
    torch.nn.init.constant_(source.backbone.patch_embed.proj.bias, 1e5)
    with pytest.raises(
        WeightsError, match=r"backbone: patch_embed\.proj\.bias holds values beyond torch\.float16's range"
    ):
        write_onnx(source, tmp_path / "export", dtype="float16")
    assert not any(tmp_path.iterdir())


def test_a_file_that_computes_something_else_or_is_damaged_does_not_pass(written: Kept, tmp_path: Path) -> None:
    file = written[1].folder / "backbone.onnx"
    with pytest.raises(WeightsError, match=r"onnxruntime's numbers differ from ours by .*nothing was written\.$"):
        check_backbone(file, small_source(interpolate_antialias=True).backbone, dtype="float32")
    (tmp_path / "backbone.onnx").write_bytes(file.read_bytes()[:10_000])
    with pytest.raises(WeightsError, match="The export is not usable; nothing was written"):
        check_backbone(tmp_path / "backbone.onnx", small_source().backbone, dtype="float32")


@pytest.mark.parametrize("library", ["onnx", "onnxscript", "onnxruntime"])
def test_an_absent_library_is_named_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(WeightsError, match=rf"--format onnx: needs the library {library}.*pip install -U {library}"):
        write_onnx(small_source(), tmp_path / "export")
    assert not any(tmp_path.iterdir())
