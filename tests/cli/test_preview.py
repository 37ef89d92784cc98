import argparse
from pathlib import Path

import cv2
import numpy as np
import pytest

from dinov2.cli import preview
from dinov2.errors import ConfigError, ManifestError, WeightsError
from tests.encoder.made import write_export
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
    told = capsys.readouterr()
    assert told.err.splitlines()[-1].startswith("films 2 of 2 (100%)")
    said = told.out.replace("\n", "")
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
    with pytest.raises(ManifestError, match=r"^--dataset nowhere: no file or folder of this name"):
        command("--dataset", "nowhere", "--output", tmp_path / "a.png")


def test_help_ends_with_two_examples(capsys):
    with pytest.raises(SystemExit):
        command("--help")
    assert capsys.readouterr().out.rsplit("examples:")[1].count("dinov2 preview augmentation") == 2


def test_a_conversion_becomes_a_page_or_a_picture_and_the_next_command_is_told(tmp_path, capsys):
    write_phantom(tmp_path / "in/a.dcm", number=0, seed=0)
    write_phantom(tmp_path / "in/b.dcm", number=1, seed=1, BodyPartExamined="KNEE")
    convert(tmp_path / "in", tmp_path / "out")
    pictures, output = tmp_path / "out", tmp_path / "new/page.html"
    assert command(pictures, "--output", output, "--per-sheet", 3, subject="preprocess") == 0
    said = capsys.readouterr().out.replace("\n", "")
    assert "1 pictures, 1 rejects" in said
    crops = tmp_path / "new/crops.html"
    assert f"next: dinov2 preview augmentation --dataset {pictures}/manifest.parquet --output {crops} --steps" in said
    assert output.read_text().startswith("<!doctype html>")
    sheets = tmp_path / "sheets.png"
    assert command(pictures, "--output", sheets, subject="preprocess") == 0
    assert "1 pictures, 1 rejects" in capsys.readouterr().out.replace("\n", "")
    picture = cv2.imread(str(sheets))
    for left in (14, 394, 774):  # the sample, the rejected film, the view: beside one another, each under its heading
        assert (picture[34:60, left : left + 200] < 128).any()
        assert picture[70:230, left : left + 150].std() > 10
    nowhere = tmp_path / "nowhere"
    assert command(pictures, "--output", output, "--private", nowhere, subject="preprocess") == 0
    assert "give the conversion's private folder with --private" in capsys.readouterr().out.replace("\n", " ")


def test_faults_of_the_words_of_a_page_are_told(tmp_path):
    with pytest.raises(ConfigError, match="--per-sheet 0 --seed 0: give at least 1 film"):
        command(tmp_path, "--output", tmp_path / "a.html", "--per-sheet", 0, subject="preprocess")
    for name in ("a.html", "a.png"):
        with pytest.raises(ManifestError, match="no such manifest"):
            command(tmp_path, "--output", tmp_path / name, subject="preprocess")
    with pytest.raises(ConfigError, match=r"a\.pdf: give a name that ends in \.html"):
        command(tmp_path, "--output", tmp_path / "a.pdf", subject="preprocess")


def test_help_of_the_page_ends_with_two_examples(capsys):
    with pytest.raises(SystemExit):
        command("--help", subject="preprocess")
    assert capsys.readouterr().out.rsplit("examples:")[1].count("dinov2 preview preprocess") == 2


def test_the_suffix_decides_between_a_page_and_a_picture(films, tmp_path, capsys):
    words = ("--dataset", films, "--rows", 1, "crops.local_crops_number=1")
    assert command(*words, "--output", tmp_path / "a.html", "--steps") == 0
    assert (tmp_path / "a.html").read_text().count("<b>cut and resize</b>") == 3
    assert "Open it in a browser." in capsys.readouterr().out
    heights = []
    for extra in ((), ("--steps",)):
        command(*words, "--output", tmp_path / "b.png", *extra)
        heights.append(cv2.imread(str(tmp_path / "b.png")).shape[0])
    assert heights[1] > heights[0] + 500
    with pytest.raises(ConfigError, match=r"--output .*a.pdf: give a name that ends in .html"):
        command(*words, "--output", tmp_path / "a.pdf")


def test_masks_are_counted_and_told(films, tmp_path, capsys):
    words = ("--dataset", films, "--rows", 2, "--films", 64)
    assert command(*words, "--output", tmp_path / "m.html", subject="masks") == 0
    said = capsys.readouterr().out.replace("\n", " ")
    assert "50.0 % of 128 global crops masked, 1" in said
    assert "next: dinov2 train --output-dir RUN" in said
    assert command(*words, "--output", tmp_path / "m.png", subject="masks") == 0
    assert cv2.imread(str(tmp_path / "m.png")).shape[0] > 200
    with pytest.raises(ConfigError, match="--films 0: give 1 or more"):
        command("--dataset", films, "--films", 0, "--output", tmp_path / "m.png", subject="masks")


def test_features_become_a_page_and_a_picture(films, tmp_path, capsys):
    export = write_export(tmp_path / "export")
    words = ("--backbone", export, "--dataset", films, "--films", 2, "--device", "cpu")
    assert command(*words, "--output", tmp_path / "f.html", subject="features") == 0
    said = capsys.readouterr().out.replace("\n", "")
    assert "2 films of 5 x 5 patches" in said
    assert f"next: dinov2 embed --backbone {export} --dataset {films} --output features.parquet" in said
    assert (tmp_path / "f.html").read_text().count("data-film=") == 2
    assert command(*words, "--output", tmp_path / "f.png", subject="features") == 0
    assert cv2.imread(str(tmp_path / "f.png")).shape[0] > 500


def test_faults_of_the_words_of_features_are_told(films, tmp_path):
    words = ("--dataset", films, "--output", tmp_path / "f.html")
    for extra, said in ((("--films", 0), "0 films: give 1 to 48"), (("--seed", -1), "--seed -1: give 0 or more")):
        with pytest.raises(ConfigError, match=said):
            command("--backbone", tmp_path, *words, *extra, subject="features")
    with pytest.raises(WeightsError, match="no such folder or file"):
        command("--backbone", tmp_path / "nowhere", *words, subject="features")


@pytest.mark.parametrize("subject", ["masks", "features"])
def test_help_of_the_other_previews_ends_with_two_examples(subject, capsys):
    with pytest.raises(SystemExit):
        command("--help", subject=subject)
    assert capsys.readouterr().out.rsplit("examples:")[1].count(f"dinov2 preview {subject}") == 2
