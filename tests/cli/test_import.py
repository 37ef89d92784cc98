"""The command `dinov2 import`."""

from pathlib import Path

import pytest
import torch

from dinov2.cli import main
from dinov2.formats import load_backbone
from tests.formats.test_importing import copied, network, raddino_folder


def test_it_tells_what_became_of_every_tensor_and_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raddino_folder(tmp_path / "rad")
    words = ["--weights", str(tmp_path / "rad"), "--output-dir", str(tmp_path / "ours")]
    assert main(["import", *words, "--registers", "4", "--size", "98"]) == 0
    said = capsys.readouterr().out
    rows = [line.split() for line in said.splitlines()]
    assert ["part", "used", "resized", "missing", "left", "over"] in rows
    assert ["backbone", "34", "1", "1", "0"] in rows
    assert ["dino_head", "8", "0", "0", "0"] in rows
    assert "resized: pos_embed: 5 x 5 patches resampled to 7 x 7" in said
    assert "missing: register_tokens" in said
    assert f"student.pretrained_weights={tmp_path / 'ours'}" in said
    assert load_backbone(tmp_path / "ours").num_register_tokens == 4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--weights", "none.pth"], "no such file or folder"),
        (["--weights", "w.pth", "--which", "student"], "says of no tensor that it is the student's"),
        (["--weights", "w.pth", "--revision", "v2"], "is a path, and no id of a hub"),
        (["--weights", "w.pth", "--arch", "vit_large"], "and not vit_large"),
    ],
)
def test_a_user_s_mistake_is_one_message_and_code_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(copied(network()), tmp_path / "w.pth")
    assert main(["import", *words, "--output-dir", "ours"]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "ours").exists()
