"""`dinov2 eval compare`, and how a probe's command ends."""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import pytest

from dinov2.cli import main
from dinov2.cli.eval.ending import finish
from dinov2.eval.tables import write_result
from tests.eval.scores.made import multilabel, segmentations
from tests.eval.tables.outcomes import outcome


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A good result, a poor one on the same pictures, and a good one again."""
    tmp_path = tmp_path_factory.mktemp("results")
    good = outcome(test=multilabel(signal=3.0))
    poor = outcome(test=replace(good.test, scores=multilabel(signal=0.2).scores))
    for name, made in (("good", good), ("poor", poor), ("again", good)):
        write_result(made, tmp_path / name, draws=20, seed=0)
    return [str(tmp_path / name) for name in ("good", "poor", "again")]


def test_the_better_result_is_named_with_difference_and_p(
    folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["eval", "compare", folders[0], folders[1], "--draws", "100", "--output-dir", str(tmp_path / "out")]
    assert main(words) == 0
    told = capsys.readouterr().out
    assert f"{folders[0]} (linear) is better by AUROC" in told
    record = json.loads((tmp_path / "out" / "comparison.json").read_text())
    macro = next(one for one in record["differences"] if one["class_name"] == "macro" and one["name"] == "auroc")
    assert macro["better"] == "first"
    assert macro["low"] > 0
    assert record["verdict"] in told.replace("\n", " ")
    assert record["better"] == "first"
    assert "next: dinov2 preview features --backbone random:vit_small --dataset" in told
    assert main(words) == 2
    assert "there already" in capsys.readouterr().err
    assert main([*words, "--overwrite"]) == 0


def test_a_result_and_its_copy_cannot_be_told_apart(folders: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "compare", folders[0], folders[2], "--metric", "macro_auprc", "--draws", "50"]) == 0
    assert "cannot be told apart by AUPRC" in capsys.readouterr().out


def test_several_results_are_one_table_the_best_first(
    folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", "compare", *folders, "--output-dir", str(tmp_path / "out")]) == 0
    told = capsys.readouterr().out
    assert "3 results by AUROC" in told
    assert told.splitlines()[-1] == f"next: dinov2 eval compare {folders[0]} {folders[2]}"
    record = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert [row["result"] for row in record["results"]] == [folders[0], folders[2], folders[1]]
    values = [row["scores"]["auroc"][0] for row in record["results"]]
    assert values == sorted(values, reverse=True)


def test_segmentations_are_compared_by_distance_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    near = segmentations()
    far = replace(near, hausdorff95=near.hausdorff95 + 2)
    for name, said in (("near", near), ("far", far)):
        write_result(outcome("segmentation", test=said), tmp_path / name, draws=20, seed=0)
    words = ["eval", "compare", str(tmp_path / "far"), str(tmp_path / "near"), "--draws", "60"]
    assert main([*words, "--metric", "hausdorff95"]) == 0
    assert f"{tmp_path / 'near'} (linear) is better by HD95" in capsys.readouterr().out
    assert main(words) == 0
    assert "cannot be told apart by Dice" in capsys.readouterr().out


def test_mistakes_are_one_message_and_exit_code_2(
    folders: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_result(outcome(test=multilabel(num=50)), tmp_path / "fewer", draws=5, seed=0)
    write_result(replace(outcome(), val=None), tmp_path / "no_val", draws=5, seed=0)
    for words, complaint in (
        ([folders[0]], "nothing to compare"),
        ([folders[0], str(tmp_path)], "holds no result"),
        ([folders[0], str(tmp_path / "fewer")], "of 300 and 50 pictures 50 are in both"),
        ([*folders[:2], "--metric", "macro_dice"], "not among the scores"),
        ([folders[0], str(tmp_path / "no_val"), "--split", "val"], "no predictions of val"),
        ([*folders, "--split", "val"], "--split is for two results"),
    ):
        assert main(["eval", "compare", *words]) == 2
        assert complaint in capsys.readouterr().err


def test_a_probe_ends_with_its_table_its_files_and_the_next_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = argparse.Namespace(output_dir=tmp_path / "scores", draws=10, seed=0)
    assert finish(outcome(dataset="phantoms [red]"), arguments, beside=[outcome(probe="floor", seed=3)]) == 0
    told = capsys.readouterr().out
    assert "mean of classes" in told
    assert "phantoms [red]" in told
    assert "floor" in told
    assert "dinov2 eval compare" in told
    assert (tmp_path / "scores" / "page.html").is_file()
