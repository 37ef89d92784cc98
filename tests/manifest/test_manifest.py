"""Manifests: reading and writing, filters, faults, splits by patient, merging, and the command that does all of it."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from dinov2 import manifest as manifests
from dinov2.cli import manifest as command
from dinov2.errors import ManifestError
from dinov2.manifest import Manifest, from_folder, from_rows, read, read_id_list
from dinov2.manifest.check import file_faults, table_faults
from dinov2.manifest.edit import join, measure, rebase, split_by_patient, with_measures
from dinov2.manifest.merge import merge

REAL_FILMS = Path(os.environ.get("DINOV2_CXR_DIR", Path(__file__).parents[3] / "shared" / "cxr"))


def films(folder: Path, count: int = 6, *, offset: int = 0) -> Path:
    """`count` small pictures, no two alike."""
    for number in range(count):
        path = folder / f"patient{number // 2}" / f"film{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8 + number, 10), 7 * number + offset, dtype=np.uint8)).save(path)
    return folder


def measured(folder: Path) -> Manifest:
    manifest = from_folder(folder)
    return with_measures(manifest, list(measure(manifest)))


def rows(*entries: tuple[str, str | None, str | None], root: Path = Path()) -> Manifest:
    """Rows of (image, patient, split)."""
    return from_rows(({"image": i, "patient": p, "split": s} for i, p, s in entries), root=root)


def run_command(*words: str) -> int:
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers(dest="command"))
    arguments = parser.parse_args(["manifest", *words])
    return int(arguments.run(arguments))


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_a_manifest_reads_back_equal(tmp_path, suffix):
    manifest = from_rows(
        [
            {"image": "a.png", "patient": "007", "width": 3, "height": 4, "age": 61, "No Finding": 1},
            {"image": "b.png", "split": "val", "age": None, "No Finding": 0},
        ],
        root=tmp_path,
    )
    manifest.write(tmp_path / f"m{suffix}")
    again = read(tmp_path / f"m{suffix}")
    assert again.table.select(list(manifests.COLUMNS)).to_pylist()[0]["patient"] == "007"
    assert [row | {"image_id": None} for row in again.table.to_pylist()] == [
        row | {"image_id": None} for row in manifest.table.to_pylist()
    ]
    assert list(tmp_path.iterdir()) == [tmp_path / f"m{suffix}"]


def test_columns_of_other_names_become_standard_ones_and_a_second_of_a_kind_keeps_its_name(tmp_path):
    (tmp_path / "m.csv").write_text("file,path,Subject_ID,ViewPosition,split\nx.png,/y.png,0012,PA,train\n")
    row = read(tmp_path / "m.csv").row(0)
    assert (row["image"], row["path"], row["patient"], row["view"]) == ("x.png", "/y.png", "0012", "PA")
    assert row["image_id"] == "x.png"


@pytest.mark.parametrize(
    ("name", "text", "part"),
    [
        ("absent.csv", None, "absent.csv: no such manifest. Give a .parquet or .csv file"),
        ("m.parquet", "no parquet", "m.parquet: not a readable Parquet file"),
        ("m.csv", "patient,view\n1,PA\n", "no column names the picture; expected 'image' (or file, file_name,"),
        ("m.csv", "image,patient\n", "the manifest has no row"),
        ("m.csv", "image,patient\na.png,1\n,2\n", "1 of 2 rows name no picture"),
        ("m.csv", "image,width\na.png,wide\n", "column 'width' should hold int32"),
    ],
)
def test_a_file_that_is_no_manifest_is_refused(tmp_path, name, text, part):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(ManifestError) as caught:
        read(tmp_path / name)
    assert part in str(caught.value)


def test_a_folder_gives_its_pictures_in_order_and_leaves_hidden_ones_out(tmp_path):
    films(tmp_path, 3)
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "x.png").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("")
    images = from_folder(tmp_path).table.column("image").to_pylist()
    assert images == ["patient0/film0.png", "patient0/film1.png", "patient1/film2.png"]


def test_a_folder_that_is_absent_or_holds_no_picture_is_refused(tmp_path):
    with pytest.raises(ManifestError, match="no such folder"):
        from_folder(tmp_path / "absent")
    with pytest.raises(ManifestError, match=r"no picture in this folder .* dinov2 preprocess"):
        from_folder(tmp_path)


def test_filters_keep_the_rows_that_pass_all_of_them_whatever_the_case():
    manifest = from_rows(
        [
            {"image": "a/1.png", "split": "train", "view": "PA", "dataset": "NIH"},
            {"image": "a/2.png", "split": "train", "view": None, "dataset": "NIH"},
            {"image": "a/3.png", "split": "val", "view": "pa", "dataset": "MIMIC"},
        ],
        root=Path(),
    )
    kept = manifest.filter(splits=["TRAIN"], views=["pa"])
    assert kept.table.column("image").to_pylist() == ["a/1.png"]
    assert len(manifest.filter(include=frozenset({"3", "a/1.png"}))) == 2
    assert manifest.filter(exclude=frozenset({"2.png"})).table.column("image").to_pylist() == ["a/1.png", "a/3.png"]
    with pytest.raises(
        ManifestError, match=r"no row has split in \['dev'\]; the splits present are \['train', 'val'\]"
    ):
        manifest.filter(splits=["dev"])


def test_a_sample_is_the_same_for_the_same_seed_and_keeps_the_order():
    manifest = rows(*((f"{i:03}.png", None, None) for i in range(100)))
    drawn = manifest.sample(0.3, seed=1).table.column("image").to_pylist()
    assert len(drawn) == 30
    assert drawn == sorted(drawn) == manifest.sample(0.3, seed=1).table.column("image").to_pylist()
    assert drawn != manifest.sample(0.3, seed=2).table.column("image").to_pylist()
    assert manifest.sample(1.0, seed=1) is manifest


def test_a_list_of_ids_may_have_a_header_and_may_not_be_empty(tmp_path):
    (tmp_path / "plain.csv").write_text("a.png\nb.png\n")
    (tmp_path / "header.csv").write_text("patient,image_id\n1,a.png\n2,b.png\n")
    assert read_id_list(tmp_path / "plain.csv") == read_id_list(tmp_path / "header.csv") == {"a.png", "b.png"}
    (tmp_path / "empty.csv").write_text("image_id\n")
    with pytest.raises(ManifestError, match="the list is empty"):
        read_id_list(tmp_path / "empty.csv")
    with pytest.raises(ManifestError, match="no such list"):
        read_id_list(tmp_path / "absent.csv")


def test_a_sound_manifest_has_no_fault(tmp_path):
    manifest = measured(films(tmp_path))
    assert [fault for fault in file_faults(manifest, hashes=True) if fault] == []
    assert table_faults(manifest) == []
    assert manifest.row(3)["width"] == 10
    assert manifest.row(3)["height"] == 11


def test_every_kind_of_fault_of_a_file_is_found(tmp_path):
    manifest = measured(films(tmp_path))
    paths = [manifest.path(row) for row in range(4)]
    paths[0].unlink()
    paths[1].write_text("no picture")
    Image.new("L", (5, 5)).save(paths[2])
    Image.new("L", (10, 11), 200).save(paths[3])
    assert [fault and fault.kind for fault in file_faults(manifest)] == [
        "missing",
        "unreadable",
        "size",
        None,
        None,
        None,
    ]
    changed = list(file_faults(manifest, hashes=True))[3]
    assert changed is not None
    assert changed.text == f"row 3: {paths[3]} is not the file of the manifest (its sha256 differs)"
    assert manifest.missing_files() == [0]


def test_repeated_pictures_and_a_patient_in_two_splits_are_found(tmp_path):
    films(tmp_path)
    (tmp_path / "copy.png").write_bytes((tmp_path / "patient0" / "film0.png").read_bytes())
    faults = table_faults(measured(tmp_path))
    assert [fault.text for fault in faults] == ["the same picture is in 2 rows: copy.png, patient0/film0.png"]
    leaking = rows(("a.png", "7", "train"), ("b.png", "7", "test"), ("b.png", "8", "test"), ("c.png", None, "train"))
    assert [fault.text for fault in table_faults(leaking)] == [
        "the picture is in 2 rows: b.png",
        "patient 7 is in the splits test, train",
    ]


def test_a_split_keeps_every_patient_whole_and_depends_on_the_seed_not_on_the_order():
    entries = [(f"{patient}_{film}.png", str(patient), None) for patient in range(40) for film in range(3)]
    divided = split_by_patient(rows(*entries), val=0.1, test=0.2, seed=3)
    assert table_faults(divided) == []
    of_patient = {row["patient"]: row["split"] for row in divided.table.to_pylist()}
    assert sorted(of_patient.values()) == ["test"] * 8 + ["train"] * 28 + ["val"] * 4
    backwards = split_by_patient(rows(*reversed(entries)), val=0.1, test=0.2, seed=3)
    assert {row["patient"]: row["split"] for row in backwards.table.to_pylist()} == of_patient
    other = split_by_patient(rows(*entries), val=0.1, test=0.2, seed=4)
    assert {row["patient"]: row["split"] for row in other.table.to_pylist()} != of_patient


def test_rows_without_a_patient_are_split_one_by_one():
    divided = split_by_patient(rows(*((f"{i}.png", None, None) for i in range(10))), val=0.2, test=0.0, seed=0)
    assert divided.table.column("split").to_pylist().count("val") == 2


def test_shares_that_leave_nothing_are_refused():
    manifest = rows(("a.png", "1", None), ("b.png", "2", None))
    with pytest.raises(ManifestError, match="together below 1"):
        split_by_patient(manifest, val=0.5, test=0.5, seed=0)
    with pytest.raises(ManifestError, match=r"val 0.1 of 2 patients is none"):
        split_by_patient(manifest, val=0.1, test=0.5, seed=0)


def test_merged_manifests_point_at_the_same_files_from_a_new_place(tmp_path):
    first, second = from_folder(films(tmp_path / "a", 2)), from_folder(films(tmp_path / "b" / "c", 3))
    paths = [one.root / "manifest.parquet" for one in (first, second)]
    for one, path in zip((first, second), paths, strict=True):
        one.write(path)
    merge(paths, output=tmp_path / "out" / "m.parquet", near_duplicate_bits=6)
    merged = read(tmp_path / "out" / "m.parquet")
    before = [one.path(row).resolve() for one in (first, second) for row in range(len(one))]
    assert [merged.path(row).resolve() for row in range(len(merged))] == before
    assert merged.missing_files() == []
    with pytest.raises(ManifestError, match="2 pictures are in more than one of the manifests"):
        merge([paths[0], paths[0]], output=tmp_path / "m.parquet", near_duplicate_bits=6)


def test_absolute_paths_stay_as_they_are_when_a_manifest_moves(tmp_path):
    manifest = rows(("/x/a.png", None, None), ("b.png", None, None), root=tmp_path)
    moved = rebase(manifest, tmp_path / "deep" / "er")
    assert moved.table.column("image").to_pylist() == ["/x/a.png", "../../b.png"]


def test_columns_that_do_not_go_together_are_refused(tmp_path):
    from_rows([{"image": "a.png", "age": 61}], root=tmp_path).write(tmp_path / "a.parquet")
    from_rows([{"image": "b.png", "age": "old"}], root=tmp_path).write(tmp_path / "b.parquet")
    with pytest.raises(ManifestError, match=r"a column holds different things .*age"):
        merge([tmp_path / "a.parquet", tmp_path / "b.parquet"], output=tmp_path / "m.parquet", near_duplicate_bits=6)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.parquet", "b.parquet"]


def test_a_table_is_joined_by_path_name_or_stem_and_its_values_win(tmp_path):
    manifest = from_folder(films(tmp_path, 4))
    labels = from_rows(
        [
            {"image": "patient0/film0.png", "patient": "0", "age": 50},
            {"image": "elsewhere/film1.png", "patient": "1", "age": 51},
            {"image": "film2", "patient": "2", "age": None},
        ],
        root=Path(),
    )
    joined, unknown = join(manifest, labels)
    assert joined.table.column("patient").to_pylist() == ["0", "1", "2", None]
    assert joined.table.column("age").to_pylist() == [50, 51, None, None]
    assert joined.table.column("image").to_pylist() == manifest.table.column("image").to_pylist()
    assert unknown == 1
    with pytest.raises(ManifestError, match="none of the 4 pictures is named in the table"):
        join(manifest, from_rows([{"image": "other.png"}], root=Path()))


def test_a_name_that_stands_for_two_rows_of_a_table_is_not_guessed_at():
    labels = from_rows([{"image": "a/1.png", "patient": "A"}, {"image": "b/1.png", "patient": "B"}], root=Path())
    manifest = from_rows([{"image": "b/1.png"}, {"image": "c/1.png"}], root=Path())
    joined, unknown = join(manifest, labels)
    assert joined.table.column("patient").to_pylist() == ["B", None]
    assert unknown == 1


def test_the_command_builds_splits_shows_and_checks(tmp_path, capsys):
    films(tmp_path / "pictures", 8)
    table = tmp_path / "labels.csv"
    table.write_text("file,patient_id,view\n" + "".join(f"film{i}.png,{i // 2:03},PA\n" for i in range(8)))
    built, divided = str(tmp_path / "m.parquet"), str(tmp_path / "split" / "m.csv")
    words = [
        "build",
        "--folder",
        str(tmp_path / "pictures"),
        "--output",
        built,
        "--table",
        str(table),
        "--dataset",
        "toy",
    ]
    assert run_command(*words) == 0
    assert run_command("split", built, "--output", divided, "--val", "0.25", "--test", "0.25") == 0
    assert run_command("show", divided, "--rows", "1") == 0
    assert run_command("check", divided, "--hashes") == 0
    output = capsys.readouterr().out
    assert "labels.csv: knows 8 of the 8 pictures." in output
    assert "split: train 4, " in output
    assert "dataset: toy 8" in output
    assert "row 0: image=../pictures/patient0/film0.png" in output
    assert "patient=000" in output
    assert "8 pictures, all present, the right size and unchanged; no patient is in two splits." in output


def test_the_check_command_lists_faults_and_ends_with_exit_code_2(tmp_path, capsys):
    manifest = measured(films(tmp_path, 3))
    manifest.write(tmp_path / "m.parquet")
    manifest.path(1).unlink()
    with pytest.raises(
        ManifestError,
        match=r"1 faults \(1 missing\).* 3 rows share a picture or a patient with .* \(3 sha256, 3 name\)",
    ) as caught:
        run_command("check", str(tmp_path / "m.parquet"), "--against", str(tmp_path / "m.parquet"))
    assert caught.value.exit_code == 2
    assert f"missing: row 1: {manifest.path(1)} is not there" in capsys.readouterr().out


def test_the_merge_command_writes_one_manifest(tmp_path):
    for name in ("a", "b"):
        from_folder(films(tmp_path / name, 2)).write(tmp_path / name / "manifest.parquet")
    paths = [str(tmp_path / name / "manifest.parquet") for name in ("a", "b")]
    assert run_command("merge", *paths, "--output", str(tmp_path / "all.parquet")) == 0
    assert pq.read_table(tmp_path / "all.parquet").column("image").to_pylist()[2] == "b/patient0/film0.png"


def test_nothing_of_it_imports_torch():
    code = "import sys, dinov2.cli.manifest, dinov2.manifest.check; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "False\n"


def test_the_table_of_a_manifest_is_arrow_and_has_every_standard_column():
    table = rows(("a.png", None, None)).table
    assert isinstance(table, pa.Table)
    assert table.schema.names == list(manifests.COLUMNS)


@pytest.mark.skipif(
    not (REAL_FILMS / "hannover.csv").is_file(),
    reason="no real films: set DINOV2_CXR_DIR to the folder of hannover.csv",
)
def test_real_films_with_their_table_are_sound():
    manifest = read(REAL_FILMS / "hannover.csv")
    assert len(manifest) == 243
    assert table_faults(manifest) == []
    assert [fault for fault in file_faults(manifest) if fault] == []
