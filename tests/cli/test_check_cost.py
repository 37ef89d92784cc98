"""`dinov2 check --cost`: what it prints, what it writes, what it refuses."""

import json
from pathlib import Path

import pytest

from dinov2.cli import main
from tests.forecast.steps import SMALL

FILE = "train:\n  dataset_path: nowhere/at/all.parquet\n"
WORDS = [*SMALL, "student.depth=1", "train.batch_size_per_gpu=2", "runtime.precision=bf16", "ibot.loss_weight=0"]


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    file = tmp_path / "run.yaml"
    file.write_text(FILE)
    return file


def test_the_page_tells_cost_and_predictions_without_a_picture(
    config_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "cost.json"
    options = ["--processes", "8", "--machine", "h100", "--json", str(out), "--global-batch", "64"]
    assert main(["check", "--cost", "--config-file", str(config_file), *options, *WORDS]) == 0
    page = capsys.readouterr().out
    for words in (
        "GFLOP a picture",
        "FULL_SHARD",
        "strong scaling",
        "on paper and by simulation",
        "kept in all, counted",
    ):
        assert words in page
    assert "A100: a step" not in page
    report = json.loads(out.read_text())
    assert report["gpus"] == 8
    assert report["global_batch"] == 64
    assert report["activations_counted"] > 0
    assert {curve["strategy"] for curve in report["machines"][0]["curves"]} == set(report["sent"])


def test_an_override_behind_json_is_not_taken_for_a_file(config_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, *rest = WORDS
    assert main(["check", "--cost", "--config-file", str(config_file), "--json", first, *rest]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["gpus"] == 64  # nobody said how many
    assert report["pictures"] == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--machine", "B300"], "--machine B300: not known; did you mean"),
        (["--processes", "0"], "--processes 0: give more than 0"),
        (["--efficiency", "1.2"], "--efficiency 1.2: a share of the peak"),
        (["--link-gbit", "0"], "--link-gbit 0.0: give more than 0"),
        (["--global-batch", "-1"], "--global-batch -1: give more than 0"),
        (["--measured", "nowhere.json"], "Make it with: dinov2 bench step --json F"),
        (["--processes", "12", "--processes-per-node", "8"], "not a multiple of --processes-per-node"),
    ],
)
def test_mistakes_end_with_one_message(
    config_file: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: str
) -> None:
    assert main(["check", "--cost", "--config-file", str(config_file), *options, "--sample", "1", *WORDS]) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert "Traceback" not in captured.err
