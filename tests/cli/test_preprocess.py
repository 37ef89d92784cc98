import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from dinov2.cli import console, main
from tests.preprocess.films import KEY, rows_of, write_few_films


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_few_films(tmp_path / "films")


def command(*words: object) -> int:
    return main(["preprocess", *map(str, words)])


def words_for(folder: Path, output: Path) -> list[object]:
    return ["--input", folder, "--output", output, "--workers", 0, "resample.short_side=96"]


def test_the_command_shows_counts_where_things_lie_and_what_to_do_next(folder, tmp_path, capsys):
    assert command(*words_for(folder, tmp_path / "out")) == 0
    said = capsys.readouterr().out
    assert "not_an_image" in said
    assert f"train.dataset_path={tmp_path / 'out/manifest.parquet'}" in said
    assert f"dinov2 preview preprocess {tmp_path / 'out'} --output page.html" in said
    assert "1 files were left out" in said
    for name in ("crosswalk.csv", "id_key"):
        assert f"{tmp_path / 'out.private' / name}" in said
    assert command(*words_for(folder, tmp_path / "out")) == 0
    assert "5 of 5 files were done before" in capsys.readouterr().out


def test_too_many_faults_end_with_two_after_everything_is_written(folder, tmp_path, capsys):
    (folder / "more").write_bytes(b"junk")
    assert command(*words_for(folder, tmp_path / "out")) == 2
    assert "could not be used" in capsys.readouterr().err
    assert len(rows_of(tmp_path / "out")) == 4


def test_a_share_ends_with_the_command_that_merges(folder, tmp_path, capsys):
    for number in (1, 2):
        assert command(*words_for(folder, tmp_path / "out"), "--share", f"{number}/2") == 0
    pictures = tmp_path / "out"
    merge = ["manifest", "merge", *sorted(map(str, pictures.glob("shares/*/manifest.parquet")))]
    said = capsys.readouterr().out
    assert f"dinov2 manifest merge {pictures}/shares/*/manifest.parquet --output {pictures}/manifest.parquet" in said
    assert main([*merge, "--output", str(pictures / "manifest.parquet")]) == 0
    assert len(rows_of(pictures)) == 4
    assert all((pictures / row["image"]).is_file() for row in rows_of(pictures))


def test_sigterm_ends_it_like_ctrl_c(tmp_path):
    import signal
    import time

    folder = write_few_films(tmp_path / "films")
    words = [*words_for(folder, tmp_path / "out")[:-1], "resample.short_side=4000"]
    running = subprocess.Popen(
        [sys.executable, "-m", "dinov2", "preprocess", *map(str, words)], stderr=subprocess.PIPE, text=True
    )
    patience = time.monotonic() + 60
    while not (tmp_path / "out/images").exists() and time.monotonic() < patience:
        time.sleep(0.02)
    running.send_signal(signal.SIGTERM)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 130, errors
    assert "The same command continues" in errors


def test_where_there_is_no_terminal_progress_is_a_line(folder, tmp_path, capsys):
    command(*words_for(folder, tmp_path / "out"))
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("films")]
    assert line.startswith("films 5 of 5 (100%), ")
    assert line.endswith("; pictures 4, not_an_image 1")
    assert "/s, 00:00:0" in line


def test_lines_come_now_and_then_and_tell_the_time_left(monkeypatch, capsys):
    import time

    monkeypatch.setattr(console, "SECONDS_PER_LINE", 0.05)
    with console.progress_bar() as bar:
        line = bar.add_task("films", total=100, completed=50, status="")
        bar.update(line, advance=10, status="pictures 10")
        time.sleep(0.3)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) >= 3
    assert all("films 60 of 100 (60%)" in line and " left; pictures 10" in line for line in lines)


@pytest.mark.parametrize("text", ["3", "0/4", "5/4", "a/b", "1/0", "-1/3"])
def test_a_share_that_is_none_is_refused(folder, tmp_path, text, capsys):
    with pytest.raises(SystemExit) as ended:
        command(*words_for(folder, tmp_path / "out"), f"--share={text}")
    assert ended.value.code == 2
    assert "expected K/N" in capsys.readouterr().err


def test_help_has_examples_that_parse(capsys):
    from dinov2.cli.preprocess import EXAMPLES, add_parser

    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    examples = [line.split("#")[0].split()[1:] for line in EXAMPLES.splitlines() if line.startswith("  dinov2 ")]
    assert len(examples) >= 4
    for words in examples:
        assert parser.parse_args(words).output
    with pytest.raises(SystemExit):
        command("--help")
    assert "PICTURES.private/" in capsys.readouterr().out


def test_two_runs_with_one_key_file_name_patients_alike(folder, tmp_path):
    (tmp_path / "key").write_text(KEY)
    for name in ("a", "b"):
        assert command(*words_for(folder, tmp_path / name), "--key-file", tmp_path / "key") == 0
    assert rows_of(tmp_path / "a") == rows_of(tmp_path / "b")
