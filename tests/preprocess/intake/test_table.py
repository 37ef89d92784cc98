from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dinov2.errors import ManifestError
from dinov2.preprocess.intake.table import FilmTable, read_table
from tests.preprocess.intake.inputs import sources


def table(folder: Path, text: str, **words) -> FilmTable:
    (folder / "t.csv").write_text(text)
    return read_table(folder / "t.csv", **words)


def test_a_file_matches_its_path_or_the_row_of_which_one_path_is_the_others_ending(tmp_path):
    rows = table(
        tmp_path, "file,split\nset/p1/view1.jpg,a\nset/p2/view1.jpg,b\np3/view1.jpg,c\nx.dcm,d\n.\\y\\z.dcm,e\n"
    )
    asked = [
        "p1/view1.jpg",
        "set/p2/view1.jpg",
        "more/set/p3/view1.jpg",
        "a.zip!/in/x.dcm",
        "y/z.dcm",
        "1/view1.jpg",
        "q",
    ]
    found = rows.find_many(asked)
    assert [one and one["split"] for one in found] == ["a", "b", "c", "d", "e", None, None]
    assert [rows.find(relative) for relative in asked] == found
    assert rows.rows_of(asked).tolist() == [0, 1, 2, 3, 4, -1, -1]


def test_a_file_that_two_rows_fit_is_named_only_where_names_are_shown(tmp_path):
    rows = table(tmp_path, "file,split\nx/plain.png,a\ny/plain.png,b\n")
    with pytest.raises(ManifestError, match="2 rows fit the input file") as caught:
        rows.find("plain.png")
    assert "plain.png" not in str(caught.value)
    with pytest.raises(ManifestError, match="file PLAIN"):
        rows.find("plain.png", shown=lambda relative: relative.split(".")[0].upper())
    assert rows.find("x/plain.png")["split"] == "a", "an exact match goes before an ending"


def test_a_row_that_is_there_twice_is_one_unless_the_two_differ(tmp_path):
    rows = table(tmp_path, "file,split\na.png,x\nb.png,x\na.png,x\nb.png,y\n")
    assert rows.find("a.png") == {"split": "x"}
    with pytest.raises(ManifestError, match="2 rows fit"):
        rows.find("b.png")


paths = st.lists(st.sampled_from("ab"), min_size=1, max_size=4).map("/".join)


@given(st.lists(paths, min_size=1, max_size=8, unique=True), st.lists(paths, min_size=1, max_size=8))
def test_the_index_finds_what_comparing_with_every_row_finds(tmp_path_factory, listed, asked):
    rows = table(tmp_path_factory.mktemp("t"), "file,n\n" + "".join(f"{path},{n}\n" for n, path in enumerate(listed)))
    for relative in asked:
        exact = [n for n, path in enumerate(listed) if path == relative]
        endings = [n for n, p in enumerate(listed) if p.endswith(f"/{relative}") or relative.endswith(f"/{p}")]
        fitting = exact or endings
        if len(fitting) > 1:
            with pytest.raises(ManifestError, match=f"{len(fitting)} rows fit"):
                rows.rows_of([relative])
        else:
            assert rows.rows_of([relative]).tolist() == (fitting or [-1])


def test_columns_that_may_name_a_person_or_a_day_stay_behind(tmp_path):
    header = (
        "file,PatientID,Patient Age,sex,split,No Finding,PatientName,birth_date,StudyDate,AccessionNumber,seen,"
        "image_uid,referring_physician,covid,fluid,pathology,read_by,Vorname,city_phone,acquired,visit"
    )
    first = (
        "a.png,007,61,F,train,1,DOE^JANE,1950-01-01,20200102,77,2020-01-02,1.2.3,Dr X,0,1,none,ROE^R,Jane,1,03.04.2021,"
        "20210403"
    )
    rows = table(tmp_path, f"{header}\n{first}\n")
    assert rows.columns_kept == ("patient", "Patient Age", "sex", "split", "No Finding", "covid", "fluid", "pathology")
    assert tuple(rows.types) == rows.columns_kept
    assert rows.types["Patient Age"] == pa.int64()
    assert "PatientName" in rows.columns_left_out
    assert len(rows.columns_left_out) + len(rows.columns_kept) + 1 == len(header.split(","))
    assert rows.find("a.png")["patient"] == "007", "ids stay text"
    kept = table(tmp_path, f"{header}\n{first}\n", keep_columns=("studydate", "read_by"))
    assert kept.find("a.png")["StudyDate"] == "20200102"
    assert kept.find("a.png")["read_by"] == "ROE^R"


def test_columns_of_ours_are_not_overwritten_and_none_is_lost(tmp_path):
    rows = table(tmp_path, "path,bits,table_bits,View Position,view,film_height\na.png,8,9,PA,odd,7\n")
    assert rows.find("a.png") == {"table_bits": 8, "table_table_bits": 9, "view": "PA", "table_view": "odd"} | {
        "table_film_height": 7
    }


def test_parquet_gives_what_csv_gives_and_gzip_and_semicolons_change_nothing(tmp_path):
    import gzip

    text = "file,patient_id,label\na/1.png,007,1\na/2.png,008,\n"
    expected = table(tmp_path, text).find_many(["a/1.png", "2.png"])
    (tmp_path / "s.csv").write_text("\ufeff" + text.replace(",", ";"))
    with gzip.open(tmp_path / "t.csv.gz", "wt") as stream:
        stream.write(text)
    columns = {"file": ["a/1.png", "a/2.png"], "patient_id": ["007", "008"], "label": [1, None]}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet", row_group_size=1)
    for name in ("s.csv", "t.csv.gz", "t.parquet"):
        assert read_table(tmp_path / name).find_many(["a/1.png", "2.png"]) == expected, name


def test_a_list_that_is_the_input_is_also_the_table_of_its_files(tmp_path):
    (tmp_path / "a b.dcm").write_bytes(b"1")
    (tmp_path / "list.csv").write_text(f"file,split\n.\\a b.dcm,train\n{tmp_path}/a b.dcm,val\ngone.dcm,test\n")
    found = read_table(tmp_path / "list.csv").find_many([one.relative for one in sources(tmp_path / "list.csv")])
    assert [one["split"] for one in found] == ["train", "val", "test"]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_list_of_names_alone_is_a_table_that_says_nothing(tmp_path, kind):
    path = tmp_path / f"list.{kind}"
    names = pa.table({"file": ["a", "b", "a"], "nothing": pa.nulls(3, pa.string())})
    pq.write_table(names, path) if kind == "parquet" else path.write_text("file,nothing\na,\nb,\na,\n")
    rows = read_table(path)
    assert (rows.num_rows, rows.columns_kept, rows.columns_left_out) == (3, (), ())
    assert rows.find_many(["b", "a", "c"]) == [{}, {}, None]


@pytest.mark.parametrize(
    ("text", "message"),
    [("name,split\na,b\n", "no column names the files"), ("", "it is empty"), ("file,a\n1,2,3\n", "Row #2")],
)
def test_a_table_that_is_none_is_refused(tmp_path, text, message):
    with pytest.raises(ManifestError, match=message):
        table(tmp_path, text)
    with pytest.raises(ManifestError, match="no such table"):
        read_table(tmp_path / "none.csv")
