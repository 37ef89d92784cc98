import csv
import io
import json
from pathlib import Path

import pytest

from dinov2.cli import main
from tests.launch.test_runs import write_run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, steps, lr in (("a", 10, 1e-4), ("b", 4, 2e-4), ("c", 7, 3e-4)):
        write_run(tmp_path / name, steps=steps, lr=lr)
    return tmp_path


def names(said: str) -> list[str]:
    return [Path(one["run"]).name for one in json.loads(said)]


def test_the_table_shows_state_step_speed_numbers_and_only_the_settings_that_differ(folder, capsys):
    assert main(["runs", str(folder)]) == 0
    said = capsys.readouterr().out
    head, *rows = (line.split() for line in said.splitlines()[1:])
    assert head == ["run", "state", "step", "img/s", "total_loss", "optim.base_lr"]
    assert rows[0] == ["a", "finished", "10/10", "42.5", "0", "0.0001"]
    assert rows[1] == ["b", "stopped", "4/10", "42.5", "6.0000", "0.0002"]
    shown = " ".join(str(folder / name) for name in "abc")
    assert said.splitlines()[-1] == f"next: dinov2 report {shown}"


@pytest.mark.parametrize(
    ("by", "order"),
    [("total_loss", "acb"), ("step", "bca"), ("optim.base_lr", "abc"), ("pictures_per_second", "abc")],
)
def test_runs_are_sorted_by_any_number_and_both_ways(folder, capsys, by, order):
    assert main(["runs", str(folder), "--json", "--sort-by", by]) == 0
    assert names(capsys.readouterr().out) == list(order)
    assert main(["runs", str(folder), "--json", "--sort-by", by, "--descending"]) == 0
    again = names(capsys.readouterr().out)
    assert again == list(reversed(order)) or by == "pictures_per_second"


def test_runs_without_the_number_come_last(folder, capsys):
    (folder / "a" / "training_metrics.json").write_text("")
    for way in ([], ["--descending"]):
        assert main(["runs", str(folder), "--json", "--sort-by", "total_loss", *way]) == 0
        assert names(capsys.readouterr().out)[-1] == "a"


def test_a_number_that_no_run_has_is_refused_with_those_that_there_are(folder, capsys):
    assert main(["runs", str(folder), "--sort-by", "auroc"]) == 2
    assert "total_loss" in capsys.readouterr().err
    assert main(["runs", str(folder), "--metric", "auroc"]) == 2
    assert "total_loss" in capsys.readouterr().err


def test_the_csv_holds_a_row_per_run_with_every_number(folder, capsys):
    assert main(["runs", str(folder), "--csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [Path(row["run"]).name for row in rows] == ["a", "b", "c"]
    assert [row["total_loss"] for row in rows] == ["0.0", "6.0", "3.0"]
    assert rows[2]["optim.base_lr"] == "0.0003"


def test_a_failed_run_has_its_last_words_below_the_table(folder, capsys):
    (folder / "b" / "logs" / "train.log").write_text("2026-01-01 00:00:00,000 ERROR no picture [left]\n")
    assert main(["runs", str(folder)]) == 0
    assert "failed  b: no picture [left]" in capsys.readouterr().out
