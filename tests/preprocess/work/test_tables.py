from dataclasses import replace
from pathlib import Path

import pytest

from dinov2.config.preprocess import Privacy
from dinov2.errors import ManifestError
from dinov2.preprocess.work.convert import Request, open_conversion
from tests.preprocess.films import PATIENT, SMALL, convert, rows_of, write_few_films


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_few_films(tmp_path / "films")


def test_a_table_joins_by_path_and_its_patients_get_the_names_of_the_headers(folder, tmp_path):
    (tmp_path / "t.csv").write_text(
        f"file,patient_id,split,age,bits\nfilms/sub/0.dcm,{PATIENT},train,61,99\nfilms/plain.png,{PATIENT},val,,98\n"
    )
    summary, _ = convert(folder, tmp_path / "out", table=tmp_path / "t.csv", csv=True)
    rows = {row["source"]: row for row in rows_of(tmp_path / "out")}
    assert rows["sub/0.dcm"]["split"] == "train"
    assert rows["sub/0.dcm"]["age"] == 61
    assert rows["sub/0.dcm"]["bits"] == 12, "the file's own value is not replaced"
    assert rows["sub/0.dcm"]["table_bits"] == 99
    assert rows["plain.png"]["age"] is None
    assert rows["plain.png"]["patient"] == rows["sub/1.dcm"]["patient"]
    assert rows["sub/1.dcm"]["split"] is None
    assert summary.num_unmatched == 2
    assert PATIENT in (tmp_path / "out.private/crosswalk.csv").read_text()


def test_columns_that_look_personal_are_left_out_and_named_once(folder, tmp_path):
    (tmp_path / "t.csv").write_text("file,age,birth_date\nplain.png,61,1957-01-01\n")
    request = Request(input=folder, output=tmp_path / "out", config=SMALL, table=tmp_path / "t.csv", num_workers=0)
    with open_conversion(request) as conversion:
        taken, left_out = conversion.remarks
        assert "taken along: age" in taken
        assert "birth_date" not in taken
        assert "birth_date" in left_out
        list(conversion.run())
        conversion.finish()
    assert "birth_date" not in rows_of(tmp_path / "out")[0]
    kept = replace(SMALL, privacy=Privacy(source_names="path", keep_columns=("birth_date",)))
    convert(folder, tmp_path / "kept", config=kept, table=tmp_path / "t.csv")
    assert rows_of(tmp_path / "kept")[0]["birth_date"] == "1957-01-01"


def test_a_column_to_keep_that_no_table_has_is_refused_with_the_nearest_one(folder, tmp_path):
    (tmp_path / "t.csv").write_text("file,age,birth_date\nplain.png,61,1957-01-01\n")
    config = replace(SMALL, privacy=Privacy(keep_columns=("birthdate",)))
    with pytest.raises(ManifestError, match=r"'birthdate'. Perhaps birth_date\?"):
        convert(folder, tmp_path / "out", config=config, table=tmp_path / "t.csv")
    with pytest.raises(ManifestError, match="no table is given"):
        convert(folder, tmp_path / "out", config=config)


def test_a_list_and_a_table_speak_of_a_film_together_and_the_table_last(folder, tmp_path):
    (tmp_path / "list.csv").write_text("file,split,sex\nfilms/plain.png,train,F\nfilms/sub/0.dcm,val,M\n")
    (tmp_path / "t.csv").write_text("file,split,score\nplain.png,test,0.5\n")
    convert(tmp_path / "list.csv", tmp_path / "out", table=tmp_path / "t.csv")
    rows = rows_of(tmp_path / "out")
    assert [(row["split"], row["sex"], row["score"]) for row in rows] == [("test", "F", 0.5), ("val", "M", None)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,split\na,b\n", "no column names the files"),
        ("file,split\nother.dcm,train\n", "none of its 1 rows"),
        ("file,split\nx/plain.png,a\ny/plain.png,b\n", "2 rows fit"),
        ("", "not a readable CSV"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_before_anything_is_converted(folder, tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ManifestError, match=message):
        convert(folder, tmp_path / "out", table=tmp_path / "t.csv")
    assert not (tmp_path / "out/images").exists()


def test_a_table_that_does_not_fit_is_refused_without_naming_the_file(folder, tmp_path):
    (tmp_path / "t.csv").write_text("file,split\nx/plain.png,a\ny/plain.png,b\n")
    hidden = replace(SMALL, privacy=Privacy())
    with pytest.raises(ManifestError) as caught:
        convert(folder, tmp_path / "out", table=tmp_path / "t.csv", config=hidden)
    assert "plain.png" not in str(caught.value)


def test_another_table_in_a_later_run_changes_the_manifest_and_converts_nothing(folder, tmp_path):
    convert(folder, tmp_path / "out")
    (tmp_path / "t.csv").write_text("file,age\nplain.png,61\n")
    _, outcomes = convert(folder, tmp_path / "out", table=tmp_path / "t.csv")
    assert outcomes == []
    assert [row["age"] for row in rows_of(tmp_path / "out")] == [61, None, None, None]
