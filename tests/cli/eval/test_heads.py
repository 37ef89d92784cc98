"""The commands of heads on features, from pictures on disk to a result folder."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open

from dinov2.cli import main
from dinov2.eval.tables import read_result

BACKBONE = "random:vit_small/16@32"
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of 72 small pictures: `bright` is in the picture, `dull` is not, `view` follows `bright`."""
    folder = tmp_path_factory.mktemp("films")
    with (folder / "films.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "patient_id", "split", "zz_bright", "aa_dull", "view", "sex"])
        for row in range(72):
            bright, dull = row % 2, int(RNG.integers(0, 2))
            levels = RNG.integers(60, 100, size=(40, 36)) + 90 * bright
            Image.fromarray(levels.astype(np.uint8)).save(folder / f"{row}.png")
            split = ("train", "train", "train", "val", "test", "test")[row // 2 % 6]
            view, sex = ("AP", "PA")[bright], ("f", "m", "")[row % 3]
            writer.writerow([f"{row}.png", row, split, bright, dull, view, sex])
    return folder / "films.csv"


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("features")


def run(
    probe: str, *words: object, films: Path, features: Path, output: Path, labels: str = "zz_bright aa_dull"
) -> int:
    backbone = [] if probe == "floor" else ["--backbone", BACKBONE, "--precision", "fp32"]
    common = ["--dataset", films, "--labels", *labels.split(), "--features-dir", features, "--output-dir", output]
    return main([str(word) for word in ["eval", probe, *backbone, *common, "--workers", 0, "--draws", 20, *words]])


@pytest.mark.parametrize(
    ("probe", "words"),
    [
        ("logreg", ["--num-c", 3, "--pooled", "--scaling", "l2"]),
        ("linear", ["--learning-rates", 0.01, 0.1, "--epochs", 20]),
        ("attentive", ["--learning-rates", 0.001, "--epochs", 20]),
        ("fewshot", ["--shots", 1, 4, "--num-draws", 2]),
        ("fewshot", ["--shots", 2, "--num-draws", 2, "--head", "linear", "--choose", "few"]),
        ("floor", ["--kind", "pixels", "metadata"]),
    ],
)
def test_a_command_finds_what_is_in_the_pictures_and_keeps_the_order_of_the_labels(
    probe: str, words: list[object], films: Path, features: Path, tmp_path: Path
) -> None:
    assert run(probe, *words, films=films, features=features, output=tmp_path) == 0
    said = read_result(tmp_path).outcome.test
    assert said.classes == ("zz_bright", "aa_dull")
    bright = said.labels[:, 0] == 1
    assert said.scores[bright, 0].mean() > said.scores[~bright, 0].mean() + 0.01


def test_floors_stand_beside_a_result(
    films: Path, features: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--num-c", 2, "--beside", "pixels", "metadata", "--metadata", "view", "zz_bright"]
    assert run("logreg", *words, films=films, features=features, output=tmp_path) == 0
    printed = capsys.readouterr().out
    assert "pixels at" in printed.replace("\n", " ")
    beside = read_result(tmp_path).beside
    assert [one.outcome.backbone for one in beside] == ["pixels at 32 x 32", "metadata: view"]  # never the label itself


def test_pooled_false_is_no(films: Path, features: Path, tmp_path: Path) -> None:
    words = ["--pooled", "false", "--blocks", 2, "--epochs", 1]
    assert run("linear", *words, films=films, features=features, output=tmp_path) == 0
    trail = read_result(tmp_path).outcome.trail
    assert {one["pooled"] for one in trail} == {False}


def test_the_chosen_head_is_kept_with_what_it_sees_and_its_classes(films: Path, features: Path, tmp_path: Path) -> None:
    words = ["--pooled", "true", "--blocks", 1, "--epochs", 1]
    assert run("linear", *words, films=films, features=features, output=tmp_path) == 0
    with safe_open(tmp_path / "head.safetensors", framework="np") as kept:
        assert kept.get_tensor("weight").shape == (2 * 384, 2)
        assert json.loads(kept.metadata()["classes"]) == ["zz_bright", "aa_dull"]
        assert kept.metadata()["input"] == "cls of 1 block + mean patch"


def test_a_learning_curve_is_written_beside_the_result(films: Path, features: Path, tmp_path: Path) -> None:
    assert run("fewshot", "--shots", 1, 2, "--num-draws", 2, films=films, features=features, output=tmp_path) == 0
    with (tmp_path / "fewshot.csv").open() as file:
        assert [(row["shots"], row["draw"]) for row in csv.DictReader(file)] == [
            ("1", "0"),
            ("1", "1"),
            ("2", "0"),
            ("2", "1"),
        ]
    assert (tmp_path / "fewshot.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("probe", "words", "message"),
    [
        ("logreg", ["--metric", "auc"], "macro_auroc"),
        ("logreg", ["--num-c", 0], "1 or more"),
        ("linear", ["--blocks", 40], "gives 1 to 12"),
        ("linear", ["--epochs", 0], "--epochs 0"),
        ("fewshot", ["--num-draws", 0], "--num-draws 0"),
        ("floor", ["--kind", "metadata", "--metadata", "site"], "says anything"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(
    probe: str,
    words: list[object],
    message: str,
    films: Path,
    features: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(probe, *words, films=films, features=features, output=tmp_path) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "result.json").exists()


def test_a_result_is_not_written_over_unasked(films: Path, features: Path, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text("{}")
    assert run("logreg", films=films, features=features, output=tmp_path) == 2
    assert (tmp_path / "result.json").read_text() == "{}"
