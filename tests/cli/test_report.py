import signal
import subprocess
import time
from pathlib import Path

import pytest

from dinov2.cli import main
from dinov2.train.run_folder import open_run_folder
from tests.integration.runs import command, environment
from tests.report.runs import small_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return small_run(tmp_path / "run")


def test_the_command_says_what_it_wrote(run, capsys):
    assert main(["report", str(run), "--output", str(run.parent / "p.html"), "--every", "5"]) == 0
    said = capsys.readouterr().out
    assert "1 run, 4 looks, 1 to look at" in said
    assert "stays as it is" in said


def test_without_a_place_the_page_lies_in_the_folder_that_was_named(run, capsys):
    before = {file for file in run.rglob("*") if file.is_file()}
    assert main(["report", str(run)]) == 0
    assert {file for file in run.rglob("*") if file.is_file()} - before == {run / "report.html"}
    assert capsys.readouterr().out.startswith(f"{run / 'report.html'}: 1 run")
    assert main(["report", str(run.parent)]) == 0
    assert capsys.readouterr().out.startswith(f"{run.parent / 'report.html'}: 1 run")  # which minds no page in a run


def test_of_several_runs_the_page_lies_in_the_working_folder(run, tmp_path, monkeypatch):
    other = small_run(tmp_path / "other")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert main(["report", str(run), str(other)]) == 0
    assert (tmp_path / "here" / "report.html").is_file()
    assert not list(tmp_path.glob("[or]*/report.html"))


def test_a_run_folder_that_cannot_be_written_to_is_told_with_the_way_out(run, capsys):
    (run / ".report.html.partial").mkdir()  # as root any folder can be written to
    assert main(["report", str(run)]) == 2
    assert "report.html: cannot be written" in (told := capsys.readouterr().err)
    assert "Give another place with --output" in told


def test_a_folder_without_a_run_gets_no_page(tmp_path):
    assert main(["report", str(tmp_path)]) == 2
    assert not list(tmp_path.iterdir())


def test_a_run_that_starts_anew_leaves_the_page_until_the_next_one(run):
    assert main(["report", str(run)]) == 0
    with open_run_folder(run, is_main=True) as folder:
        aside = folder.set_aside()
    assert aside is not None
    assert (aside / "config.yaml").is_file()
    assert (run / "report.html").is_file()


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


def test_what_is_written_has_the_name_of_a_page(run, capsys):
    config = (run / "config.yaml").read_bytes()
    assert main(["report", str(run), "--output", str(run / "config.yaml")]) == 2
    assert "a name that ends in .html" in capsys.readouterr().err
    assert (run / "config.yaml").read_bytes() == config


def test_a_page_that_is_followed_stays_as_it_was_last_when_interrupted(run):
    output = run.parent / "p.html"
    words = command("report", str(run), "--output", str(output), "--every", "60")
    with open_run_folder(run, is_main=True):
        process = subprocess.Popen(words, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stdout is not None
        said = [process.stdout.readline(), process.stdout.readline()]
        assert '<meta http-equiv="refresh" content="60">' in output.read_text()
        time.sleep(0.2)  # until it waits
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
    assert "Ctrl-C ends it sooner" in said[1]
    assert '<meta http-equiv="refresh"' not in output.read_text()
    assert not list(run.parent.glob(".*.partial"))
