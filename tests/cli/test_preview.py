import argparse
from pathlib import Path

import cv2
import numpy as np
import pytest

from dinov2.cli import preview
from dinov2.errors import ConfigError, ManifestError


def command(*words: object) -> int:
    parser = argparse.ArgumentParser()
    preview.add_parser(parser.add_subparsers())
    arguments = parser.parse_args(["preview", "augmentation", *map(str, words)])
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
