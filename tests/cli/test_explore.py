"""`dinov2 explore` from features that `dinov2 embed` wrote to a page, in a process of its own."""

import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from dinov2.cli import main
from dinov2.explore.exploration import explore
from dinov2.explore.features import read_features
from dinov2.explore.maps import place_films
from dinov2.explore.page import served_page
from tests.encoder.made import write_export
from tests.explore.made import write_features, write_films


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_films(tmp_path_factory.mktemp("films"), num=12)


def started(*words: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "dinov2", "explore", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )


def test_features_of_embed_become_a_page_and_its_next_line_opens_it(
    films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, export = tmp_path / "features.parquet", write_export(tmp_path / "export")
    words = ["embed", "--backbone", export, "--manifest", films, "--output", file, "--workers", 0, "--device", "cpu"]
    assert main([str(word) for word in words]) == 0
    said = capsys.readouterr().out.replace("\n", "")
    assert f"next: dinov2 explore --features {file} --manifest {films}" in said
    shown = explore(file, manifest=str(films), method="pca")
    assert shown.films.remarks == ()
    page = served_page(shown)
    assert "film-11" in page
    assert "/".join(export.parts[-3:]) in page  # enough to know it by, and no more of this machine
    assert str(export) not in page


def test_it_says_where_it_is_and_ends_with_ctrl_c(films: Path, tmp_path: Path) -> None:
    file = write_features(tmp_path / "f.parquet", num=12)
    place_films(read_features(file), method="pca")
    with started("--features", str(file), "--manifest", str(films), "--method", "pca", "--port", "0") as process:
        assert process.stdout is not None
        said = ""
        while "open: " not in said:
            line = process.stdout.readline()
            assert line, process.communicate()[1]
            said += line
        assert "12 films, width 16. Map: principal components, as made before in" in said
        address = re.findall(r"open: (http://127\.0\.0\.1:\d+/) ", said)[0]
        with urllib.request.urlopen(f"{address}film/3/small") as answer:
            assert answer.headers["Content-Type"] == "image/jpeg"
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate()
    assert process.returncode == 0
    assert rest.strip() == "ended."
    assert "Traceback" not in errors


def test_a_folder_is_written_and_the_next_step_told(
    films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    features = write_features(tmp_path / "f.parquet", num=12)
    words = ["explore", "--features", features, "--manifest", films, "--method", "pca", "--output-dir", tmp_path / "m"]
    assert main([str(word) for word in words]) == 0
    said = capsys.readouterr().out
    assert "the page and 12 pictures" in said
    assert f"next: open {tmp_path / 'm' / 'index.html'} in a browser" in said
    assert main([str(word) for word in words]) == 2
    assert "not empty" in capsys.readouterr().err


def test_a_folder_without_manifest_has_no_films_in_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["explore", "--features", str(write_features(tmp_path / "f.parquet", num=2)), "--output-dir"]
    assert main([*words, str(tmp_path / "new" / "map")]) == 0
    said = capsys.readouterr().out.replace("\n", "")
    assert "10 films or more make a map of neighbourhoods" in said
    assert "the page, without pictures" in said
    assert "pass it on" not in said
    assert main([*words, str(tmp_path / "f.parquet" / "map")]) == 2
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--features", "absent.parquet"], "absent.parquet: no such file of features"),
        (["--features", "{features}", "--manifest", "absent.parquet"], "absent.parquet: no such manifest"),
        (["--features", "{features}", "--color-by", "sex"], "--color-by sex: no column sex"),
        (["--features", "{features}", "--vector", "patches"], "no column of features named patches. It has cls"),
        (["--features", "{features}", "--output-dir", "x", "--port", "9000"], "leave out --host, --port and --token"),
        (["--features", "{features}", "--method", "pca", "--port", "700000"], "--port 700000: give 1 to 65535"),
    ],
)
def test_mistakes_are_one_message_and_exit_code_2(
    words: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    features = write_features(tmp_path / "f.parquet", num=12)
    assert main(["explore", *(word.format(features=features) for word in words)]) == 2
    assert says in capsys.readouterr().err
