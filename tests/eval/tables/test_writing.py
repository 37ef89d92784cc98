"""A result's folder: what is in it, that it is whole, and that it can be read again."""

import csv
import json
import math
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from dinov2.errors import ConfigError, Dinov2Error
from dinov2.eval.outcome import Outcome
from dinov2.eval.tables import read_result, write_result
from dinov2.eval.tables.writing import CSV_COLUMNS
from tests.eval.scores.made import multilabel
from tests.eval.tables.outcomes import outcome

FILES = {"result.json", "scores.csv", "predictions.parquet", "page.html", "page.png"}
KINDS = pytest.mark.parametrize("kind", ["multilabel", "multiclass", "segmentation"])


def write(made: Outcome, folder: Path, **more: Any) -> Any:
    return write_result(made, folder, **({"draws": 8, "seed": 0} | more))


def same(one: Any, two: Any) -> bool:
    """Fields of two predictions, NaN being equal to NaN."""
    for field in fields(one):
        a, b = getattr(one, field.name), getattr(two, field.name)
        if isinstance(a, np.ndarray):
            if a.dtype.kind != b.dtype.kind or not np.array_equal(a, b, equal_nan=a.dtype.kind == "f"):
                return False
        elif isinstance(a, dict):
            if a.keys() != b.keys() or not all(np.array_equal(a[key], b[key]) for key in a):
                return False
        elif a != b:
            return False
    return True


@KINDS
def test_what_was_written_is_read_again(kind: str, tmp_path: Path) -> None:
    made = outcome(kind)
    floor = outcome(kind, seed=5, probe="floor")
    written = write(made, tmp_path / "a", beside=[floor])
    assert {path.name for path in (tmp_path / "a").iterdir()} == FILES
    again = read_result(tmp_path / "a")
    assert same(again.outcome.test, made.test)
    assert same(again.outcome.val, made.val)
    assert repr(again.cards) == repr(written.result.cards)  # as text NaN is equal to itself
    assert repr(again.beside[0].cards) == repr(written.result.beside[0].cards)
    assert again.outcome.chosen == made.chosen
    assert again.outcome.trail[1] == made.trail[1]
    assert again.outcome.settings["rates"] == [pytest.approx(0.1), "inf"]


@KINDS
def test_result_json_is_json_without_nan(kind: str, tmp_path: Path) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(name)

    write(outcome(kind), tmp_path)
    record = json.loads((tmp_path / "result.json").read_text(), parse_constant=refuse)
    assert record["format"] == "dinov2 eval result"
    assert set(record["splits"]) == {"val", "test"}
    assert record["outcome"]["trail"][0]["validation"] is None


def test_a_second_run_into_the_same_folder_replaces_the_first_and_appends_nothing(tmp_path: Path) -> None:
    write(outcome(seed=1), tmp_path)
    (tmp_path / "head.safetensors").write_text("of the probe")
    write(outcome(seed=2), tmp_path)
    write(outcome(seed=2), tmp_path / "fresh")
    for name in ("result.json", "scores.csv", "predictions.parquet", "page.html"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "fresh" / name).read_bytes(), name
    assert (tmp_path / "head.safetensors").read_text() == "of the probe"


def test_a_run_that_fails_while_writing_leaves_the_earlier_result_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(outcome(seed=1), tmp_path)
    before = (tmp_path / "result.json").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dinov2.eval.tables.picture.draw_picture", full)
    with pytest.raises(OSError, match="No space"):
        write(outcome(seed=2), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == FILES
    assert (tmp_path / "result.json").read_bytes() == before
    read_result(tmp_path)


def test_scores_csv_has_a_row_per_split_class_group_and_score(tmp_path: Path) -> None:
    card = write(outcome(), tmp_path).result.cards["test"]
    with (tmp_path / "scores.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert tuple(rows[0]) == CSV_COLUMNS
    found = [r for r in rows if (r["split"], r["class"], r["group"], r["score"]) == ("test", "macro", "", "auroc")]
    assert len(found) == 1
    assert float(found[0]["value"]) == card.find("auroc").value
    assert any(row["group"] == "sex=F" for row in rows)
    assert not any("nan" in row.values() for row in rows)
    assert {row["split"] for row in rows if row["group"]} == {"test"}


def test_predictions_parquet_can_be_read_by_anybody(tmp_path: Path) -> None:
    made = outcome()
    write(made, tmp_path)
    table = pq.read_table(tmp_path / "predictions.parquet")
    assert table.column_names[:3] == ["split", "id", "patient"]
    assert {"score:finding 0", "label:finding 1", "group:sex"} <= set(table.column_names)
    assert len(table) == 180


def test_predictions_of_one_picture_and_one_class_keep_both_dimensions(tmp_path: Path) -> None:
    one = multilabel(num=1, prevalence=(0.5,))
    write(outcome(test=one, val=None), tmp_path)
    assert read_result(tmp_path).outcome.test.scores.shape == (1, 1)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("result.json", b"{ not json", "damaged"),
        ("result.json", b'{"format": "dinov2 eval result", "version": 0}', "version 0"),
        ("result.json", b'["a list"]', "damaged"),
        ("predictions.parquet", b"PAR1", "not the one"),
    ],
)
def test_a_damaged_or_older_result_gives_one_message(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    write(outcome(), tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=words) as caught:
        read_result(tmp_path)
    assert "again with --overwrite" in str(caught.value)


def test_a_result_that_lacks_a_score_field_or_its_predictions_is_damaged(tmp_path: Path) -> None:
    write(outcome(), tmp_path)
    record = json.loads((tmp_path / "result.json").read_text())
    del record["splits"]["test"]["scores"][0]["low"]
    (tmp_path / "result.json").write_text(json.dumps(record))
    with pytest.raises(ConfigError, match="damaged"):
        read_result(tmp_path)
    (tmp_path / "predictions.parquet").unlink()
    with pytest.raises(ConfigError, match="damaged"):
        read_result(tmp_path)
    with pytest.raises(ConfigError, match="holds no result"):
        read_result(tmp_path / "nowhere")


def test_nothing_predicted_and_other_classes_beside_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to score"):
        write(outcome(val=None, test=None), tmp_path)
    with pytest.raises(ConfigError, match="same classes"):
        write(outcome(), tmp_path, beside=[outcome("multiclass")])
    assert not any(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Dinov2Error, match="cannot be written"):
        write(outcome(), tmp_path / "file" / "folder")


@KINDS
def test_the_page_needs_nothing_else_and_shows_every_class(kind: str, tmp_path: Path) -> None:
    made = outcome(kind, backbone="<b>not bold</b>")
    written = write(made, tmp_path, beside=[outcome(kind, seed=5, probe="floor")])
    page = written.page.read_text()
    assert not re.search(r"""(src|href)=|<script|url\(|https?://""", page)
    assert "<b>not bold" not in page
    assert "prefers-color-scheme: dark" in page
    for name in made.test.classes:
        assert name in page
    assert "What was tried" in page
    assert 'class="won"' in page
    assert "floor" in page
    assert ("<polyline" in page) == (kind != "segmentation")
    assert "nan" not in re.sub(r"<[^>]*>", " ", page).split()
    assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")


def test_the_summary_names_the_absent_class_and_tells_the_score_with_its_interval(tmp_path: Path) -> None:
    said = multilabel(num=90)
    labels = said.labels.copy()
    labels[:, 1] = 0
    written = write(outcome(test=replace(said, labels=labels)), tmp_path)
    card = written.result.card
    assert card.absent == ("finding 1",)
    assert "not in the mean over classes: finding 1" in written.summary
    assert f"{card.find('auroc').value:.3f} ({card.find('auroc').low:.3f} to" in written.summary
    assert math.isnan(card.find("auroc", "finding 1").value)
    assert "out of 2: blocks 4, pool True" in written.summary


def test_without_test_the_summary_says_that_validation_chose(tmp_path: Path) -> None:
    written = write(outcome(test=None), tmp_path)
    assert written.result.split == "val"
    assert "too good" in written.summary


def test_the_name_of_the_split_that_was_fitted_on_does_not_stand_beside_that_of_test(tmp_path: Path) -> None:
    written = write(outcome(dataset="films.csv, train"), tmp_path)
    assert "linear on films.csv, test: " in written.summary
    assert "films.csv, train" not in written.summary


def test_where_there_is_no_gap_the_reason_is_the_right_one(tmp_path: Path) -> None:
    few = multilabel(num=20)
    assert "by sex: no gap, as fewer than two groups" in write(outcome(test=few, val=None), tmp_path / "few").summary
    sex = {"sex": np.asarray(["F", "M"] * 45)}
    many = outcome("multiclass", metric="accuracy")
    many = replace(many, test=replace(many.test, groups=sex))
    assert "by sex: no gap, as accuracy is not told class by class" in write(many, tmp_path / "many").summary
