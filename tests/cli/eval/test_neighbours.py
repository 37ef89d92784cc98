"""The commands knn, retrieval, zeroshot and embed, from pictures on disk to their files."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dinov2.cli import main
from dinov2.eval.backbones import open_backbone
from dinov2.eval.pictures import batches, preparation_for
from dinov2.eval.tables import read_result
from tests.distributed.processes import run_ranks
from tests.eval.backbones.small_models import clip_model, write_vocabulary
from tests.eval.pictures.made import examples_of

BACKBONE = "random:vit_small/16@32"
NUM = 48


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of small pictures: `bright` is in the picture, `dull` is not; two pictures a patient."""
    folder = tmp_path_factory.mktemp("films")
    rng = np.random.default_rng(0)
    with (folder / "films.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "patient_id", "split", "bright", "dull", "view", "sex"])
        for row in range(NUM):
            bright, patient = row // 2 % 2, row // 2
            levels = rng.integers(60, 100, size=(40, 36)) + 90 * bright
            Image.fromarray(levels.astype(np.uint8)).save(folder / f"{row}.png")
            split = ("train", "train", "val", "test")[patient // 2 % 4]
            writer.writerow(
                [f"{row}.png", patient, split, bright, rng.integers(2), ("AP", "PA")[bright], "fm"[row % 2]]
            )
    return folder / "films.csv"


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("features")


def run(probe: str, *words: object, films: Path, features: Path, output: Path) -> int:
    common = ["--backbone", BACKBONE, "--dataset", films, "--labels", "bright", "dull", "--features-dir", features]
    return main(
        [str(word) for word in ["eval", probe, *common, "--output-dir", output, "--workers", 0, "--draws", 20, *words]]
    )


def test_knn_finds_what_is_in_the_pictures_and_its_features_are_found_again(
    films: Path, features: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("knn", "--k", 3, 5, 500, "--groups", "sex", films=films, features=features, output=tmp_path / "a") == 0
    first = capsys.readouterr()
    outcome = read_result(tmp_path / "a").outcome
    assert outcome.test is not None
    assert outcome.test.classes == ("bright", "dull")
    bright = outcome.test.labels[:, 0] == 1
    assert outcome.test.scores[bright, 0].min() > outcome.test.scores[~bright, 0].max()
    assert [one["k"] for one in outcome.trail] == [3, 5]
    assert "kept in" in first.err
    assert run("knn", "--k", 3, films=films, features=features, output=tmp_path / "b") == 0
    second = capsys.readouterr()
    assert second.err.count("found in") == 3
    assert "kept in" not in second.err


def test_retrieval_tells_shares_with_intervals_and_keeps_them(
    films: Path, features: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--labels", "view", "--k", 1, 3]
    assert run("retrieval", *words, films=films, features=features, output=tmp_path / "a") == 0
    assert "R@1 1.000 (1.000 to 1.000)" in capsys.readouterr().out.replace("\n", " ")
    settings = read_result(tmp_path / "a").outcome.settings
    assert settings["P@3: value, low, high"] == [1.0, 1.0, 1.0]
    assert run("retrieval", *words, "--by", "patient", films=films, features=features, output=tmp_path / "b") == 0
    told = read_result(tmp_path / "b").outcome.settings
    assert told["gallery"] == "the others of test"
    assert told["P@3: value, low, high"][0] <= 1 / 3 + 1e-9


def test_a_gallery_that_holds_no_patient_of_test_is_refused(films: Path, features: Path, tmp_path: Path) -> None:
    words = ["--by", "patient", "--gallery", "train"]
    assert run("retrieval", *words, films=films, features=features, output=tmp_path) == 2


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "clip"
    clip_model().save_pretrained(folder)
    write_vocabulary(folder)
    return folder


@pytest.mark.parametrize("ensemble", ["embedding", "similarity", "max"])
def test_zero_shot_runs_with_a_clip_of_transformers(films: Path, clip: Path, ensemble: str, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.yaml"
    prompts.write_text("AP: [lying, in bed]\nPA: [standing]\nother: [never used]\n")
    words = ["--backbone", clip, "--dataset", films, "--labels", "view", "--prompts", prompts, "--ensemble", ensemble]
    common = ["--output-dir", tmp_path / "scores", "--workers", 0, "--draws", 20, "--groups", "sex"]
    assert main([str(word) for word in ["eval", "zeroshot", *words, *common]]) == 0
    outcome = read_result(tmp_path / "scores").outcome
    assert outcome.fitted_on == "nothing"
    assert outcome.test is not None
    assert outcome.val is not None
    np.testing.assert_allclose(outcome.test.scores.sum(axis=1), 1, atol=1e-5)
    assert outcome.test.scores.std(axis=0).min() > 0


def test_pictures_of_test_alone_suffice_for_zero_shot(films: Path, clip: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.json"
    prompts.write_text('{"bright": {"positive": ["a bright film"], "negative": ["a dark film"]}}')
    words = ["--backbone", clip, "--test-dataset", films, "--labels", "bright", "--prompts", prompts]
    common = ["--output-dir", tmp_path / "scores", "--workers", 0, "--draws", 20]
    assert main([str(word) for word in ["eval", "zeroshot", *words, *common]]) == 0
    test = read_result(tmp_path / "scores").outcome.test
    assert test is not None
    assert len(test.ids) == NUM // 4


def test_a_backbone_without_a_text_tower_is_one_clear_message(
    films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts = tmp_path / "prompts.yaml"
    prompts.write_text("AP: [lying]\nPA: [standing]\n")
    words = ["--backbone", BACKBONE, "--dataset", films, "--labels", "view", "--prompts", prompts]
    assert main([str(word) for word in ["eval", "zeroshot", *words, "--output-dir", tmp_path / "scores"]]) == 2
    assert "has no text tower" in capsys.readouterr().err


def test_embed_writes_the_features_of_the_backbone_with_what_made_them(films: Path, tmp_path: Path) -> None:
    output = tmp_path / "features.parquet"
    words = [
        "embed",
        "--backbone",
        BACKBONE,
        "--dataset",
        films,
        "--columns",
        "patient",
        "view",
        "--pooled",
        "--patches",
    ]
    assert main([str(word) for word in [*words, "--workers", 0, "--batch-size", 7, "--output", output]]) == 0
    table = pq.read_table(output)
    assert table.column_names == ["image_id", "image", "patient", "view", "cls", "pooled", "patches"]
    assert table.num_rows == NUM
    backbone = open_backbone(BACKBONE)
    picture = np.asarray(Image.open(films.parent / "9.png"))
    preparation = preparation_for(backbone.traits, size=None, fit="crop")
    (batch,) = batches(examples_of([picture]), preparation=preparation, batch_size=1, workers=0)
    tokens = backbone(batch.normalised("cpu"))
    assert tokens.patches is not None
    row = table.slice(9, 1).to_pylist()[0]
    assert row["image"] == "9.png"
    np.testing.assert_allclose(row["cls"], tokens.cls[0].detach(), atol=1e-4)
    np.testing.assert_allclose(row["pooled"], tokens.patches[0].mean(dim=0).detach(), atol=1e-4)
    np.testing.assert_allclose(row["patches"], tokens.patches[0].detach().reshape(-1), atol=1e-4)
    about = json.loads(table.schema.metadata[b"dinov2"])
    assert about["backbone"] == BACKBONE
    assert about["fingerprint"] == backbone.traits.fingerprint
    assert (about["size"], about["fit"], about["grid"]) == (32, "crop", [2, 2])


def test_embed_leaves_no_file_where_a_picture_is_missing(
    films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "films.csv").write_text(f"file\n{films.parent / '0.png'}\n{films.parent / 'gone.png'}\n")
    words = ["embed", "--backbone", BACKBONE, "--dataset", tmp_path / "films.csv", "--workers", 0]
    assert main([str(word) for word in [*words, "--output", tmp_path / "f.parquet"]]) == 2
    assert "gone.png" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["films.csv"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--output", "f.csv"], "ends in .parquet"),
        (["--output", "f.parquet", "--columns", "ward"], "has no ward"),
        (["--output", "f.parquet", "--size", "40"], "multiples of 16 px, such as 32 or 48"),
    ],
)
def test_embed_refuses_with_one_message(
    words: list[str],
    said: str,
    films: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["embed", "--backbone", BACKBONE, "--dataset", str(films), *words]) == 2
    assert said in capsys.readouterr().err.replace("\n", " ")


def test_two_processes_make_the_features_of_one_and_the_first_goes_on(
    films: Path, features: Path, tmp_path: Path
) -> None:
    """As torchrun starts them: the result is written once, from equal features."""
    assert run("knn", "--k", 3, films=films, features=features, output=tmp_path / "one") == 0
    words = ["eval", "knn", "--backbone", BACKBONE, "--dataset", films, "--labels", "bright", "dull", "--k", 3]
    common = ["--device", "cpu", "--workers", 0, "--draws", 20, "--batch-size", 8, "--output-dir", tmp_path / "two"]
    first, second = run_ranks(["dinov2", *map(str, [*words, *common])], size=2, seconds=300)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert "written:" in first.stdout
    assert second.stdout == ""
    one, two = (read_result(tmp_path / name).outcome.test for name in ("one", "two"))
    assert one is not None
    assert two is not None
    np.testing.assert_allclose(one.scores, two.scores, atol=1e-4)


@pytest.mark.parametrize("device", ["cuda:77", "quantum"])
def test_a_device_that_is_not_there_is_refused_before_any_work(
    device: str, films: Path, features: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("knn", "--device", device, films=films, features=features, output=tmp_path) == 2
    assert f"--device {device}" in capsys.readouterr().err
