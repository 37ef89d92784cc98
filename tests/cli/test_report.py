from pathlib import Path

import pytest

from dinov2.cli import main
from tests.report.runs import small_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return small_run(tmp_path / "run")


def test_the_command_says_what_it_wrote(run, capsys):
    assert main(["report", str(run), "--output", str(run.parent / "p.html"), "--every", "5"]) == 0
    said = capsys.readouterr().out
    assert "1 run, 4 looks, 1 to look at" in said
    assert "stays as it is" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--every", "0"], "give 2 seconds or more"), (["--films", "-1"], "give 0 or more")],
)
def test_options_that_make_no_sense_are_refused(run, capsys, words, message):
    assert main(["report", str(run), "--output", "p.html", *words]) == 2
    assert message in capsys.readouterr().err


def test_a_folder_without_a_run_is_one_message_with_exit_code_2(tmp_path, capsys):
    assert main(["report", str(tmp_path), "--output", str(tmp_path / "p.html")]) == 2
    assert "no run in it" in capsys.readouterr().err


def test_an_output_that_is_a_folder_is_refused(run, capsys):
    assert main(["report", str(run), "--output", str(run)]) == 2
    assert "give the page a name" in capsys.readouterr().err
