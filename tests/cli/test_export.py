"""`dinov2 export` as its users type it."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import dinov2
from dinov2.backbone_card import read_card
from dinov2.cli import main
from dinov2.formats import native
from dinov2.ssl import Networks
from tests.formats.saved_runs import save_checkpoint, small_vit, tiny_config, unlike_networks
from tests.integration.runs import environment


@pytest.fixture
def networks(tmp_path: Path) -> Networks:
    config = tiny_config(tmp_path)
    networks = unlike_networks(config)
    save_checkpoint(tmp_path / "run", networks, config=config)
    return networks


def export(capsys: pytest.CaptureFixture[str], *words: object, code: int = 0) -> str:
    assert main(["export", *map(str, words)]) == code
    said = capsys.readouterr()
    return said.out + said.err


def test_a_run_leaves_with_its_heads_and_the_next_line_loads_it(
    networks: Networks, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = export(capsys, "--checkpoint", tmp_path / "run", "--output-dir", tmp_path / "exported")
    for name in ("backbone", "dino_head", "ibot_head", "centers"):
        assert re.search(rf"{tmp_path}/exported/{name}\.safetensors  [0-9.,]+ (bytes|kB)", said)
    assert "read back with strict names by dinov2: features differ by at most 0 at two sizes" in said
    line = re.search(r"next: (python -c .*)", said)
    assert line is not None
    program, *words = shlex.split(line.group(1))
    assert program == "python"
    loaded = subprocess.run(
        [sys.executable, *words], env=environment(), cwd=Path.cwd(), capture_output=True, text=True, check=True
    )
    assert "DinoVisionTransformer" in loaded.stdout


def test_the_backbone_alone_or_the_student_are_asked_for_by_name(
    networks: Networks, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--which", "student", "--include", "backbone", "--dtype", "bfloat16", "--licence", "mit")
    export(capsys, "--checkpoint", tmp_path / "run" / "checkpoints" / "4", "--output-dir", tmp_path / "student", *words)
    assert sorted(file.name for file in (tmp_path / "student").iterdir()) == [
        "backbone.safetensors",
        "backbone_card.json",
    ]
    tensors = load_file(tmp_path / "student" / "backbone.safetensors")
    student = networks.student["backbone"].state_dict()
    assert all(torch.equal(tensors[name], tensor.bfloat16()) for name, tensor in student.items())
    provenance = read_card(tmp_path / "student").provenance
    assert {name: provenance[name] for name in ("network", "dtype", "licence")} == {
        "network": "student",
        "dtype": "bfloat16",
        "licence": "mit",
    }


def test_several_formats_lie_side_by_side_and_hold_the_same_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vit = small_vit()
    torch.save(vit.state_dict(), tmp_path / "weights.pth")
    words = ("--format", "transformers", "dinov2", "--output-dir", tmp_path / "exported")
    said = export(capsys, "--checkpoint", tmp_path / "weights.pth", *words)
    assert said.index("\ndinov2:") > said.index("transformers:")
    pictures = torch.randn(1, 3, 70, 70)
    for name in ("transformers", "dinov2"):
        loaded = dinov2.load_backbone(tmp_path / "exported" / name)
        assert torch.equal(loaded(pictures), vit(pictures))
    assert not (tmp_path / "exported" / "dinov2" / "dino_head.safetensors").exists()


def test_an_interrupted_export_leaves_nothing(
    networks: Networks, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> float:
        raise KeyboardInterrupt

    monkeypatch.setattr(native, "check_export", interrupted)  # when everything was written
    before = sorted(tmp_path.iterdir())
    export(capsys, "--checkpoint", tmp_path / "run", "--output-dir", tmp_path / "exported", code=130)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--checkpoint", "nowhere"), "nowhere: no such f"),
        (("--checkpoint", "{folder}/weights.pth", "--include", "heads"), "holds no projection heads"),
        (("--checkpoint", "{folder}/weights.pth", "--which", "student"), "only checkpoints hold a student"),
        (("--checkpoint", "{folder}/weights.pth", "--output-dir", "{folder}"), "exists and is not empty"),
        (("--checkpoint", "{folder}/weights.pth", "--revision", "main"), "revision main: only a hub id has one"),
    ],
)
def test_what_cannot_be_exported_is_refused_in_a_message(
    words: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(small_vit().state_dict(), tmp_path / "weights.pth")
    given = [word.format(folder=tmp_path) for word in words]
    said = export(capsys, "--output-dir", tmp_path / "exported", *given, code=2)
    assert message in said
    assert not (tmp_path / "exported").exists()
