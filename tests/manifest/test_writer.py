"""Manifests written row by row."""

import traceback

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dinov2.errors import ManifestError
from dinov2.manifest import ManifestWriter, from_rows, read, writer

EXTRA = {"flags": pa.string(), "bits": pa.int32()}


def rows(count, *, start=0):
    return [
        {"image": f"{i}.png", "image_id": f"{i:016x}", "width": i, "flags": "", "bits": 12}
        for i in range(start, start + count)
    ]


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_a_manifest_written_row_by_row_is_the_one_written_at_once(tmp_path, suffix):
    with ManifestWriter(tmp_path / f"streamed{suffix}", EXTRA) as stream:
        for start in range(0, 100, 10):
            stream.add(rows(10, start=start))
    from_rows(rows(100), root=tmp_path).write(tmp_path / f"whole{suffix}")
    streamed, whole = read(tmp_path / f"streamed{suffix}").table, read(tmp_path / f"whole{suffix}").table
    assert streamed.column_names == whole.column_names
    assert streamed.to_pylist() == whole.to_pylist()
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_the_bytes_do_not_depend_on_how_rows_were_handed_over(tmp_path, suffix, monkeypatch):
    monkeypatch.setattr(writer, "ROWS_PER_GROUP", 64)
    monkeypatch.setattr(writer, "ROWS_AS_PYTHON", 16)
    everything = rows(333)
    contents = set()
    for number, step in enumerate((1, 7, 100, 333)):
        path = tmp_path / f"{number}{suffix}"
        with ManifestWriter(path, EXTRA) as stream:
            for start in range(0, 333, step):
                part = everything[start : start + step]
                if number == 2 and start == 100:
                    stream.add_table(from_rows(part, root=tmp_path).table)
                else:
                    stream.add(part)
        contents.add(path.read_bytes())
    assert len(contents) == 1
    if suffix == ".parquet":
        metadata = pq.read_metadata(path)
        assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [64] * 5 + [13]


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_an_error_while_writing_leaves_the_former_file_and_nothing_else(tmp_path, suffix):
    path = tmp_path / f"m{suffix}"
    from_rows(rows(1), root=tmp_path).write(path)
    before = path.read_bytes()

    def interrupted():
        with ManifestWriter(path, EXTRA) as stream:
            stream.add(rows(10))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == before


def test_no_row_gives_a_table_without_rows(tmp_path):
    with ManifestWriter(tmp_path / "m.parquet", EXTRA):
        pass
    assert pq.read_table(tmp_path / "m.parquet").num_rows == 0
    with pytest.raises(ManifestError, match="the manifest has no row"):
        read(tmp_path / "m.parquet")


def test_a_value_of_another_type_is_refused_without_showing_it(tmp_path):
    with (
        pytest.raises(ManifestError, match=r"column 'width' holds a value that is no int32") as caught,
        ManifestWriter(tmp_path / "m.parquet") as stream,
    ):
        stream.add([{"image": "a.png", "width": "Doe^Jane"}])
    assert "Doe" not in "".join(traceback.format_exception(caught.value.with_traceback(None)))
    assert list(tmp_path.iterdir()) == []


def test_a_column_that_was_not_announced_is_refused(tmp_path):
    with (
        pytest.raises(ManifestError, match=r"a row has the columns age\. Announce them"),
        ManifestWriter(tmp_path / "m.parquet") as stream,
    ):
        stream.add([{"image": "a.png", "age": 61}])


def test_a_column_that_csv_cannot_hold_is_refused(tmp_path):
    manifest = from_rows([{"image": "a.png", "findings": ["mass", "nodule"]}], root=tmp_path)
    with pytest.raises(ManifestError, match=r"cannot be written to this kind of file .* Use .parquet"):
        manifest.write(tmp_path / "m.csv")
    assert list(tmp_path.iterdir()) == []
