import os
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dinov2.errors import DicomRejected, ManifestError
from dinov2.preprocess.intake.sources import in_share, iter_sources
from tests.preprocess.intake.inputs import ROOMY, contents, phantom_bytes, skipped, sources, write_tar, write_zip


def fill(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())


def names(root: Path, **words) -> list[str]:
    return [source.relative for source in sources(root, **words)]


def test_a_folder_is_listed_in_the_order_of_its_relative_paths(tmp_path):
    given = ["b/2", "b.1", "b/10", "a", "c/d/e/1.2.840.5", "b!", "b-", "B", "c0", "ä"]
    fill(tmp_path, *given)
    assert names(tmp_path) == sorted(given)
    assert contents(sources(tmp_path)) == {name: name.encode() for name in given}


def test_films_in_archives_stand_where_their_archive_stands(tmp_path):
    film = phantom_bytes(tmp_path)
    fill(tmp_path, "a", "m/x", "z")
    write_zip(tmp_path / "m/films.ZIP", {"2.dcm": film, "1.dcm": b""})
    write_tar(tmp_path / "n.tar", {"f.dcm": film})
    assert names(tmp_path) == ["a", "m/films.ZIP!/2.dcm", "m/films.ZIP!/1.dcm", "m/x", "n.tar!/f.dcm", "z"]
    assert list(contents(sources(tmp_path)).values()).count(film) == 2


def test_what_is_never_a_picture_is_counted_and_not_read(tmp_path):
    fill(
        tmp_path, "a.dcm", "notes.TXT", "DICOMDIR", ".hidden", ".git/a.dcm", "b.csv", "c.nii.gz", "sub/README", "1.2.3"
    )
    assert names(tmp_path) == ["1.2.3", "a.dcm"]
    left_out = {".git": "HIDDEN", ".hidden": "HIDDEN", "DICOMDIR": "NAME", "b.csv": "NAME", "c.nii.gz": "NAME"}
    assert skipped(tmp_path) == left_out | {"notes.TXT": "NAME", "sub/README": "NAME"}


def test_output_and_private_folder_are_no_input_even_through_a_link(tmp_path):
    fill(tmp_path, "films/a", "films/out/images/b.png", "films/out.private/c.png", "films/out2/d")
    (tmp_path / "films/link").symlink_to(tmp_path / "films/out/images")
    folders = [tmp_path / "films/out", tmp_path / "films/../films/out.private"]
    assert names(tmp_path / "films", leave_out=folders) == ["a", "out2/d"]
    with pytest.raises(ManifestError, match="input and output at once"):
        iter_sources(tmp_path / "films", leave_out=[tmp_path / "films"])


def test_links_neither_loop_nor_hide_a_film_nor_show_it_twice(tmp_path):
    fill(tmp_path, "films/a/1", "elsewhere/2", "elsewhere/deep/3")
    films = tmp_path / "films"
    (films / "a/up").symlink_to(films)
    (films / "b").symlink_to(films / "a")
    (films / "c").symlink_to(tmp_path / "elsewhere")
    (films / "d").symlink_to(tmp_path / "elsewhere/deep")
    (tmp_path / "elsewhere/back").symlink_to(films)
    (tmp_path / "elsewhere/self").symlink_to(tmp_path / "elsewhere")
    (films / "file").symlink_to(tmp_path / "elsewhere/2")
    assert names(films) == ["a/1", "c/2", "c/deep/3", "file"]
    assert set(skipped(films).values()) == {"LINK"}
    assert len(skipped(films)) == 5


def test_a_link_to_nowhere_is_listed_and_a_pipe_is_not_waited_for(tmp_path):
    (tmp_path / "annexed.dcm").symlink_to(tmp_path / "not/here")
    os.mkfifo(tmp_path / "pipe.dcm")
    (only,) = sources(tmp_path)
    with pytest.raises(FileNotFoundError):
        only.read(max_bytes=ROOMY)
    assert skipped(tmp_path) == {"pipe.dcm": "SPECIAL"}


def test_folders_may_be_nested_deeper_than_the_interpreter_goes(tmp_path):
    before, limit = sys.getrecursionlimit(), 1000  # Python's own; libraries that compile raise it
    depth = limit + 100
    folder = os.open(tmp_path, os.O_RDONLY)

    def go(to: str) -> None:
        nonlocal folder
        folder, former = os.open(to, os.O_RDONLY, dir_fd=folder), folder
        os.close(former)

    try:
        sys.setrecursionlimit(limit)
        for _ in range(depth):
            os.mkdir("d", dir_fd=folder)
            go("d")
        os.close(os.open("film", os.O_WRONLY | os.O_CREAT, dir_fd=folder))
        (only,) = names(tmp_path)
        assert only.count("/") == depth
    finally:  # what removes temporary folders calls itself once per level
        sys.setrecursionlimit(before)
        os.unlink("film", dir_fd=folder)
        for _ in range(depth):
            go("..")
            os.rmdir("d", dir_fd=folder)
        os.close(folder)


def test_a_folder_that_cannot_be_read_is_one_error_that_does_not_name_it(tmp_path):
    fill(tmp_path, "films/A/1", "films/MUELLER/1")
    listing = iter_sources(tmp_path / "films")
    assert next(listing).relative == "A/1"
    (tmp_path / "films/MUELLER").rename(tmp_path / "gone")
    with pytest.raises(ManifestError, match=r"a folder 1 levels below .* cannot be read") as caught:
        list(listing)
    assert "MUELLER" not in str(caught.value)


def test_inputs_with_nothing_in_them_are_named(tmp_path):
    with pytest.raises(ManifestError, match="no such folder or file"):
        iter_sources(tmp_path / "nowhere")
    fill(tmp_path, "films/a.txt")
    with pytest.raises(ManifestError, match=r"no DICOM, PNG, JPEG or TIFF file.*1 files were left out"):
        names(tmp_path / "films")
    with pytest.raises(ManifestError, match="archives included"):
        names(write_zip(tmp_path / "empty.zip", {}))


def test_one_file_or_one_archive_is_an_input_too(tmp_path):
    fill(tmp_path, "odd.txt")
    assert names(tmp_path / "odd.txt") == ["odd.txt"], "what is asked for by name is looked at"
    assert names(write_zip(tmp_path / "a.zip", {"x": b"1"})) == ["a.zip!/x"]


def test_shares_are_disjoint_complete_and_stable_when_files_are_added(tmp_path):
    fill(tmp_path, *(f"{number % 7}/{number}" for number in range(200)))
    write_zip(tmp_path / "a.zip", {str(number): b"1" for number in range(50)})
    everything = names(tmp_path)
    shares = [names(tmp_path, share=(number, 4)) for number in (1, 2, 3, 4)]
    assert sorted(name for share in shares for name in share) == sorted(everything)
    assert min(map(len, shares)) > 30
    assert shares[1] == [one.relative for one in sources(tmp_path) if in_share(one, number=2, count=4)]
    fill(tmp_path, "0/new", "later")
    assert set(shares[2]) <= set(names(tmp_path, share=(3, 4)))


def test_a_compressed_tar_is_in_one_share_and_opened_for_that_one_alone(tmp_path, monkeypatch):
    fill(tmp_path, "x/a")
    write_tar(tmp_path / "x/films.tar.gz", {str(number): b"1" for number in range(20)}, mode="w:gz")
    opened = []
    from dinov2.preprocess.intake import archives

    original = archives.gzip.open
    monkeypatch.setattr(archives.gzip, "open", lambda *words: opened.append(1) or original(*words))
    shares = [[n for n in names(tmp_path, share=(number, 3)) if "!/" in n] for number in (1, 2, 3)]
    assert sorted(map(len, shares)) == [0, 0, 20]
    assert len(opened) == 1


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_list_names_the_files_relative_to_its_folder_or_absolutely(tmp_path, kind):
    fill(tmp_path, "films/a.dcm", "films/b/c", "elsewhere/d.dcm")
    listed = ["./a.dcm", "b\\c", str(tmp_path / "elsewhere/d.dcm"), "", "a.dcm", "b", "gone.dcm"]
    table = pa.table({"age": [1] * 7, "Path": listed})
    path = tmp_path / "films" / f"list.{kind}"
    if kind == "csv":
        path.write_text("age,Path\n" + "".join(f"1,{name}\n" for name in listed))
    else:
        pq.write_table(table, path)
    found = sources(path)
    assert [one.relative for one in found] == ["a.dcm", "b/c", str(tmp_path / "elsewhere/d.dcm"), "b", "gone.dcm"]
    assert [one.read(max_bytes=ROOMY) for one in found[:3]] == [b"films/a.dcm", b"films/b/c", b"elsewhere/d.dcm"]
    for source, message in zip(found[3:], ("no file", "not there"), strict=True):
        with pytest.raises(DicomRejected, match=message) as caught:
            source.read(max_bytes=ROOMY)
        assert caught.value.reason == "unreadable"
        assert source.relative not in str(caught.value)
    assert skipped(path) == {"": "NAMELESS", "a.dcm": "AGAIN"}


def test_relative_names_of_a_list_may_start_from_another_folder_and_name_archives(tmp_path):
    fill(tmp_path, "films/a.dcm")
    write_zip(tmp_path / "films/b.zip", {"c": b"c"})
    (tmp_path / "list.csv").write_text("file;note\na.dcm;x\nb.zip;y\n")
    assert names(tmp_path / "list.csv", list_root=tmp_path / "films") == ["a.dcm", "b.zip!/c"]
    with pytest.raises(ManifestError, match=r"none of the 2 files .* --root"):
        names(tmp_path / "list.csv")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name,age\na,1\n", "no column names the files"),
        (b"", "it is empty"),
        (b"file,age\na,1\nMUELLER,1,2\n", r"Row #3: Expected 2 columns, got 3"),
        (b"file,age\nM\xdcLLER,1\n", "not UTF-8"),
        (b"file,file\na,1\n", "several columns are called file"),
    ],
)
def test_a_list_that_is_none_is_refused_without_quoting_it(tmp_path, content, message):
    (tmp_path / "list.csv").write_bytes(content)
    with pytest.raises(ManifestError, match=message) as caught:
        names(tmp_path / "list.csv")
    assert "LLER" not in str(caught.value)
