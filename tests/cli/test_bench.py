import json
from pathlib import Path

import pytest

from dinov2.cli import main
from dinov2.cli.bench import SUBJECTS


def test_the_help_names_every_subject_and_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["bench", "--help"])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert all(f"\n  {name} " in said for name in SUBJECTS)
    assert "dinov2 bench step --preset raddino" in said


def test_a_table_is_printed_and_its_numbers_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "step.status").write_text("1 5 120\n")
    assert main(["bench", "table", str(tmp_path), "--json", str(tmp_path / "new" / "table.json")]) == 0
    assert "exit code 1 after 5 s" in capsys.readouterr().out
    assert json.loads((tmp_path / "new" / "table.json").read_text())["parts"] == ["step"]


def test_a_wrong_size_is_one_message_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "step", "--batch-size", "1"]) == 2
    assert "--batch-size 1: expected 2 or more" in capsys.readouterr().err
