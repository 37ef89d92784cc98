import argparse
from pathlib import Path

import cv2
import numpy as np
import pytest

from dinov2.cli import preview
from dinov2.errors import ConfigError, ManifestError
from tests.preprocess.films import convert, write_phantom


def command(*words: object, subject: str = "augmentation") -> int:
    parser = argparse.ArgumentParser()
    preview.add_parser(parser.add_subparsers())
    arguments = parser.parse_args(["preview", subject, *map(str, words)])
    return int(arguments.run(arguments))


@pytest.fixture
def films(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    (tmp_path / "films").mkdir()
    for number in range(3):
        cv2.imwrite(str(tmp_path / "films" / f"{number}.png"), rng.integers(0, 256, (60, 70), dtype=np.uint8))
    return tmp_path / "films"


def test_preview_writes_a_picture_and_tells_the_next_command(films, tmp_path, capsys):
    assert command("--dataset", films, "--output", tmp_path / "a.png", "--rows", 2, "crops.local_crops_number=2") == 0
    assert cv2.imread(str(tmp_path / "a.png")).shape[0] > 600
    said = capsys.readouterr().out.replace("\n", "")
    assert "2 of 3 films" in said
    assert f"next: dinov2 train --output-dir RUN train.dataset_path={films} crops.local_crops_number=2" in said


def test_the_seed_decides_what_is_drawn(films, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        command("--dataset", films, "--output", tmp_path / f"{name}.png", "--rows", 1, "--seed", seed)
    a, b, c = ((tmp_path / f"{name}.png").read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_faults_of_the_words_are_told(films, tmp_path):
    with pytest.raises(ConfigError, match="--rows 0: give 1 or more"):
        command("--dataset", films, "--output", tmp_path / "a.png", "--rows", 0)
    with pytest.raises(ConfigError, match="local_crops_numbr"):
        command("--dataset", films, "--output", tmp_path / "a.png", "crops.local_crops_numbr=2")
    with pytest.raises(ManifestError, match="no such file or folder"):
        command("--dataset", tmp_path / "nowhere", "--output", tmp_path / "a.png")


def test_help_ends_with_two_examples(capsys):
    with pytest.raises(SystemExit):
        command("--help")
    assert capsys.readouterr().out.rsplit("examples:")[1].count("dinov2 preview augmentation") == 2


def test_a_conversion_becomes_a_page_and_the_next_command_is_told(tmp_path, capsys):
    write_phantom(tmp_path / "in/a.dcm", number=0, seed=0)
    write_phantom(tmp_path / "in/b.dcm", number=1, seed=1, BodyPartExamined="KNEE")
    convert(tmp_path / "in", tmp_path / "out")
    pictures, output = tmp_path / "out", tmp_path / "new/page.html"
    assert command(pictures, "--output", output, "--per-sheet", 3, subject="preprocess") == 0
    said = capsys.readouterr().out.replace("\n", "")
    assert "1 pictures, 1 rejects" in said
    assert f"next: dinov2 preview augmentation --dataset {pictures}/manifest.parquet --output crops.png" in said
    assert output.read_text().startswith("<!doctype html>")
    nowhere = tmp_path / "nowhere"
    assert command(pictures, "--output", output, "--private", nowhere, subject="preprocess") == 0
    assert "give the conversion's private folder with --private" in capsys.readouterr().out.replace("\n", " ")


def test_faults_of_the_words_of_a_page_are_told(tmp_path):
    with pytest.raises(ConfigError, match="--per-sheet 0 --seed 0: give at least 1 film"):
        command(tmp_path, "--output", tmp_path / "a.html", "--per-sheet", 0, subject="preprocess")
    with pytest.raises(ManifestError, match="no such manifest"):
        command(tmp_path, "--output", tmp_path / "a.html", subject="preprocess")


def test_help_of_the_page_ends_with_two_examples(capsys):
    with pytest.raises(SystemExit):
        command("--help", subject="preprocess")
    assert capsys.readouterr().out.rsplit("examples:")[1].count("dinov2 preview preprocess") == 2
