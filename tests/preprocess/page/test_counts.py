import numpy as np
import pyarrow as pa
import pytest

from dinov2.errors import ManifestError
from dinov2.manifest import from_rows
from dinov2.preprocess.page.counts import (
    count_rejects,
    count_values,
    films_per_patient,
    read_pictures,
    row_of_each,
    rows_by_flag,
    rows_of,
    shown,
)


def column(*values: str | None) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values, pa.string())])


def test_categories_are_counted_most_frequent_first_and_the_rest_together():
    views = column("PA", "AP", "PA", None, "", "LL", "PA", "RL")
    assert count_values(views) == {"PA": 3, "not stated": 2, "AP": 1, "LL": 1, "RL": 1}
    assert count_values(views, most=2) == {"PA": 3, "not stated": 2, "3 more": 3}


def test_the_rows_of_a_category_are_those_that_were_counted():
    rng = np.random.default_rng(0)
    choices = ["PA", "AP", "", None, "LL", "<b>no term</b>", "also^none"]
    values = column(*(choices[i] for i in rng.integers(0, len(choices), 200)))
    counts = count_values(values)
    assert sum(counts.values()) == 200
    rows = {name: rows_of(values, name) for name in counts}
    assert {name: len(found) for name, found in rows.items()} == counts
    assert sorted(np.concatenate(list(rows.values()))) == list(range(200))


def test_what_is_no_term_is_not_shown():
    assert shown("GE HealthCare") == "GE HealthCare"
    assert shown("DOE^JOHN") == shown("<script>") == shown("x" * 49) == "other"
    assert shown(None) == shown("  ") == "not stated"


def test_a_row_has_several_flags_and_each_is_found():
    flags = column("truncated,screenshot", "", None, "screenshot", "no_voi, truncated", "screenshot")
    found = {name: rows.tolist() for name, rows in rows_by_flag(flags).items()}
    assert found == {"screenshot": [0, 3, 5], "truncated": [0, 4], "no_voi": [4]}
    assert list(found) == ["screenshot", "truncated", "no_voi"]
    assert rows_by_flag(column()) == {}


def test_patients_are_counted_by_their_number_of_films():
    patients = column("a", "b", "b", *["c"] * 7, *["d"] * 8, *["e"] * 60, None, None)
    assert films_per_patient(patients) == {"1": 1, "2": 1, "5 to 9": 2, "50 or more": 1}
    assert films_per_patient(column(None)) == {}


def test_the_picture_that_is_repeated_is_found_by_its_id():
    assert row_of_each(column("x", "y", "z"), ["z", "gone", None, "x"]) == [2, None, None, 0]


def test_rejects_are_counted_however_their_messages_break(tmp_path):
    path = tmp_path / "rejected.csv"
    path.write_text('file,reason,message\na,truncated,"two\nlines, and a comma"\nb,modality,plain\nc,truncated,\n')
    assert count_rejects(path) == {"truncated": 2, "modality": 1}
    assert count_rejects(tmp_path / "none.csv") == {}
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ManifestError, match="not a readable table of rejects"):
        count_rejects(path)


def test_a_manifest_of_others_is_read_with_what_it_lacks_left_empty(tmp_path):
    from_rows([{"image": "a.png", "bits": "many", "view": "PA"}], root=tmp_path).write(tmp_path / "m.parquet")
    table = read_pictures(tmp_path / "m.parquet").table
    assert table.column("view").to_pylist() == ["PA"]
    assert table.column("bits").null_count == table.column("flags").null_count == 1


def test_a_folder_without_a_manifest_is_refused_with_what_to_do(tmp_path):
    with pytest.raises(ManifestError, match="Give the --output folder of `dinov2 preprocess`"):
        read_pictures(tmp_path)
    (tmp_path / "shares").mkdir()
    with pytest.raises(ManifestError, match="dinov2 manifest merge"):
        read_pictures(tmp_path)
