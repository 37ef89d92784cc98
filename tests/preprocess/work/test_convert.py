import csv
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pydicom
import pytest
from PIL import Image

from dinov2 import manifest
from dinov2.config.preprocess import PreprocessConfig, Privacy, Resample
from dinov2.errors import ConfigError, DataError, Dinov2Error, LaunchError, ManifestError
from dinov2.phantom.dicom import Technique
from dinov2.preprocess.reasons import Flag, Reason
from dinov2.preprocess.work import settings
from dinov2.preprocess.work.pool import run_ordered
from tests.preprocess.films import PATIENT, SMALL, convert, film, write_phantom


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four films of one patient, one of them a PNG, and a file that is none."""
    films = tmp_path / "films"
    for number, technique in enumerate((Technique(), Technique(monochrome1=True), Technique(bits_stored=8))):
        write_phantom(films / f"sub/{number}.dcm", number=number, seed=number, technique=technique)
    Image.fromarray((film(9) * 255).astype(np.uint8)).save(films / "plain.png")
    (films / "junk").write_bytes(b"junk" * 100)
    (films / "readme.txt").write_text("not looked at")
    return films


def rejects(output: Path) -> dict[str, str]:
    with (output / "rejected.csv").open(newline="") as stream:
        return {row["file"]: row["reason"] for row in csv.DictReader(stream)}


def everything(output: Path) -> dict[str, bytes]:
    """What a reader of the output sees; the key and the journal are not part of it."""
    return {
        str(path.relative_to(output)): path.read_bytes()
        for path in sorted(output.rglob("*"))
        if path.is_file() and not path.relative_to(output).parts[0].startswith(".")
    }


def test_every_file_is_in_the_manifest_or_in_the_rejects_and_never_in_both(folder, tmp_path):
    summary, outcomes = convert(folder, tmp_path / "out", dataset="OURS")
    rows = manifest.read(tmp_path / "out" / "manifest.parquet")
    assert rows.table.column("source").to_pylist() == ["plain.png", "sub/0.dcm", "sub/1.dcm", "sub/2.dcm"]
    assert rejects(tmp_path / "out") == {"junk": "not_an_image"}
    assert summary.num_pictures == 4
    assert summary.reasons == {Reason.NOT_AN_IMAGE: 1}
    assert summary.num_skipped == 1
    assert len(outcomes) == 5
    assert set(rows.table.column("dataset").to_pylist()) == {"OURS"}


def test_the_manifest_describes_the_pictures_it_names(folder, tmp_path):
    import hashlib

    convert(folder, tmp_path / "out", csv=True)
    rows = manifest.read(tmp_path / "out" / "manifest.parquet")
    for number in range(len(rows)):
        row = rows.row(number)
        picture = Image.open(rows.path(number))
        assert (picture.width, picture.height, picture.mode) == (row["width"], row["height"], "L")
        assert min(picture.size) == 96
        assert hashlib.sha256(rows.path(number).read_bytes()).hexdigest() == row["sha256"]
        assert row["image"] == f"images/{row['image_id'][:2]}/{row['image_id']}.png"
    dicom = rows.row(1)
    assert (dicom["view"], dicom["modality"], dicom["bits"]) == ("PA", "DX", 12)
    per_row, per_column = (float(v) for v in dicom["spacing_mm"].split(","))
    assert per_row * dicom["height"] == pytest.approx(400, rel=0.01)
    assert per_row == pytest.approx(per_column, rel=0.02)
    assert manifest.read(tmp_path / "out" / "manifest.csv").table.column("image").equals(rows.table.column("image"))


def test_workers_change_neither_pictures_nor_order(folder, tmp_path):
    key = tmp_path / "key"
    key.write_text("a secret of thirty-two letters ...")
    convert(folder, tmp_path / "one", key_file=key)
    convert(folder, tmp_path / "two", key_file=key, num_workers=2)
    assert everything(tmp_path / "one") == everything(tmp_path / "two")
    assert not (tmp_path / "one" / ".id_key").exists()


def test_a_second_run_does_nothing_twice(folder, tmp_path):
    convert(folder, tmp_path / "out")
    before = everything(tmp_path / "out")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "images").rglob("*.png")}
    _, outcomes = convert(folder, tmp_path / "out")
    assert outcomes == []
    assert everything(tmp_path / "out") == before
    assert times == {path: path.stat().st_mtime_ns for path in times}


def test_an_interrupted_conversion_ends_as_an_uninterrupted_one(folder, tmp_path):
    from dinov2.preprocess.work.convert import Request, open_conversion

    key = tmp_path / "key"
    key.write_text("a secret of thirty-two letters ...")
    convert(folder, tmp_path / "whole", key_file=key)
    request = Request(input=folder, output=tmp_path / "cut", config=SMALL, key_file=key, num_workers=0)
    for _ in range(2):
        with open_conversion(request) as conversion:
            work = conversion.run()
            next(work), next(work)
            work.close()
    with (tmp_path / "cut/.preprocess/journal.jsonl").open("a") as journal:
        journal.write('{"size": 12, "mtime')  # as a kill leaves it
    _, outcomes = convert(folder, tmp_path / "cut", key_file=key)
    assert len(outcomes) == 1
    assert everything(tmp_path / "cut") == everything(tmp_path / "whole")
    assert convert(folder, tmp_path / "cut", key_file=key)[1] == [], "the cut line spoils no later one"


def test_only_what_changed_is_done_again(folder, tmp_path):
    convert(folder, tmp_path / "out")
    (first,) = [
        row for row in pq.read_table(tmp_path / "out/manifest.parquet").to_pylist() if row["source"] == "sub/0.dcm"
    ]
    write_phantom(folder / "sub/0.dcm", number=70, seed=7)
    write_phantom(folder / "sub/new.dcm", number=71, seed=8)
    next((tmp_path / "out/images").rglob("*.png"))
    rows = manifest.read(tmp_path / "out/manifest.parquet")
    rows.path(2).unlink()
    _, outcomes = convert(folder, tmp_path / "out")
    assert len(outcomes) == 3, "the changed one, the new one, and the one whose picture was lost"
    names = {row["image"] for row in pq.read_table(tmp_path / "out/manifest.parquet").to_pylist()}
    assert names == {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out/images").rglob("*.png")}
    assert first["image"] not in names


def test_of_two_files_with_one_uid_the_first_is_kept_unless_its_polarity_is_suspect(tmp_path):
    for name, tags in {"b": {}, "a": {"PhotometricInterpretation": "MONOCHROME1"}, "c": {}}.items():
        write_phantom(tmp_path / f"films/{name}.dcm", **tags)
    summary, _ = convert(tmp_path / "films", tmp_path / "out")
    assert rejects(tmp_path / "out") == {"a.dcm": "duplicate_uid", "c.dcm": "duplicate_uid"}
    assert summary.flags == {}
    only = manifest.read(tmp_path / "out/manifest.parquet")
    convert(tmp_path / "films/b.dcm", tmp_path / "alone")
    other = manifest.read(tmp_path / "alone/manifest.parquet")
    assert only.row(0)["sha256"] == other.row(0)["sha256"]
    assert convert(tmp_path / "films", tmp_path / "out")[1] == []
    (tmp_path / "films/b.dcm").unlink()
    convert(tmp_path / "films", tmp_path / "out")
    assert rejects(tmp_path / "out") == {"a.dcm": "duplicate_uid"}, "c takes the place of the film that is gone"


def test_a_film_that_looks_like_a_negative_is_flagged(tmp_path):
    write_phantom(tmp_path / "films/a.dcm", PhotometricInterpretation="MONOCHROME1")
    summary, _ = convert(tmp_path / "films", tmp_path / "out")
    assert summary.flags == {Flag.POLARITY_SUSPECT: 1}


def test_the_same_pixels_under_another_uid_are_flagged(tmp_path):
    write_phantom(tmp_path / "films/a.dcm", number=0)
    write_phantom(tmp_path / "films/b.dcm", number=1)
    convert(tmp_path / "films", tmp_path / "out")
    flags = manifest.read(tmp_path / "out/manifest.parquet").table.column("flags").to_pylist()
    assert flags == ["", "duplicate_pixels"]


def test_no_identity_leaves_the_headers(folder, tmp_path):
    dataset = pydicom.dcmread(folder / "sub/0.dcm")
    secrets = [
        str(dataset[name].value)
        for name in ("PatientName", "PatientID", "StudyDate", "SOPInstanceUID", "StudyInstanceUID")
    ]
    assert PATIENT in secrets
    (folder / "sub/1.dcm").write_bytes((folder / "sub/1.dcm").read_bytes()[:-3000])
    convert(folder, tmp_path / "out", num_workers=1, csv=True)
    for path in (p for p in (tmp_path / "out").rglob("*") if p.is_file()):
        content = path.read_bytes()
        for secret in secrets:
            assert secret.encode() not in content, path
            assert secret not in path.name
    table = pq.read_table(tmp_path / "out/manifest.parquet").to_pydict()
    assert not any(secret in str(table) for secret in secrets)
    assert len(set(filter(None, table["patient"]))) == 1, "films of one patient still belong together"
    assert (tmp_path / "out/.id_key").stat().st_mode & 0o777 == 0o600


def test_ids_depend_on_the_key_and_on_nothing_else(folder, tmp_path):
    (tmp_path / "key").write_text("a secret of thirty-two letters ...")
    outputs = {name: tmp_path / name for name in ("a", "b", "c")}
    convert(folder, outputs["a"], key_file=tmp_path / "key")
    shutil.copytree(folder, tmp_path / "moved")
    convert(tmp_path / "moved", outputs["b"], key_file=tmp_path / "key")
    convert(folder, outputs["c"])
    ids = {
        name: manifest.read(path / "manifest.parquet").table.column("image_id").to_pylist()
        for name, path in outputs.items()
    }
    assert ids["a"] == ids["b"]
    assert set(ids["a"]).isdisjoint(ids["c"])


def test_input_names_can_be_hidden_too(folder, tmp_path):
    convert(folder, tmp_path / "out", config=replace(SMALL, privacy=Privacy(source_names="hmac")))
    names = [
        *manifest.read(tmp_path / "out/manifest.parquet").table.column("source").to_pylist(),
        *rejects(tmp_path / "out"),
    ]
    assert all(len(name) == 16 and int(name, 16) >= 0 for name in names)


def test_a_table_joins_by_path_and_its_patients_get_the_names_of_the_headers(folder, tmp_path):
    (tmp_path / "t.csv").write_text(
        f"file,patient_id,split,age,bits\nfilms/sub/0.dcm,{PATIENT},train,61,99\nfilms/plain.png,{PATIENT},val,,98\n"
    )
    summary, _ = convert(folder, tmp_path / "out", table=tmp_path / "t.csv")
    rows = {row["source"]: row for row in pq.read_table(tmp_path / "out/manifest.parquet").to_pylist()}
    assert rows["sub/0.dcm"]["split"] == "train"
    assert rows["sub/0.dcm"]["age"] == 61
    assert rows["sub/0.dcm"]["bits"] == 12, "the file's own value is not replaced"
    assert rows["sub/0.dcm"]["table_bits"] == 99
    assert rows["plain.png"]["age"] is None
    assert rows["plain.png"]["patient"] == rows["sub/1.dcm"]["patient"]
    assert rows["sub/1.dcm"]["split"] is None
    assert summary.num_unmatched == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,split\na,b\n", "no column names the files"),
        ("file,split\nother.dcm,train\n", "none of its 1 rows"),
        ("file,split\nx/plain.png,a\ny/plain.png,b\n", "2 rows fit"),
        ("", "not a readable CSV"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_before_anything_is_done(folder, tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(ManifestError, match=message):
        convert(folder, tmp_path / "out", table=tmp_path / "t.csv")
    assert not (tmp_path / "out").exists()


def test_wrong_inputs_are_named(folder, tmp_path):
    with pytest.raises(ManifestError, match="no such folder"):
        convert(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/a.zip").write_bytes(b"PK")
    with pytest.raises(ManifestError, match=r"no DICOM, PNG, JPEG or TIFF file.*1 files were left out"):
        convert(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(ManifestError, match="no such table"):
        convert(folder, tmp_path / "out", table=tmp_path / "none.csv")
    with pytest.raises(Dinov2Error, match="key file cannot be read"):
        convert(folder, tmp_path / "out", key_file=tmp_path / "none")
    (tmp_path / "short").write_text("abc")
    with pytest.raises(Dinov2Error, match="has 3 bytes"):
        convert(folder, tmp_path / "out", key_file=tmp_path / "short")
    (tmp_path / "file").write_text("")
    with pytest.raises(Dinov2Error, match="cannot be written"):
        convert(folder, tmp_path / "file" / "out")


def test_an_output_of_other_settings_another_key_or_another_input_is_refused(folder, tmp_path):
    convert(folder, tmp_path / "out")
    with pytest.raises(LaunchError, match=r"resample.short_side was 96 and is now 97"):
        convert(folder, tmp_path / "out", config=PreprocessConfig(resample=Resample(short_side=97)))
    (tmp_path / "key").write_text("a secret of thirty-two letters ...")
    with pytest.raises(LaunchError, match="another key"):
        convert(folder, tmp_path / "out", key_file=tmp_path / "key")
    write_phantom(tmp_path / "others/x.dcm")
    with pytest.raises(LaunchError, match="made from other files"):
        convert(tmp_path / "others", tmp_path / "out")


def test_two_commands_do_not_write_to_one_folder_at_once(folder, tmp_path):
    from dinov2.preprocess.work.convert import Request, open_conversion

    request = Request(input=folder, output=tmp_path / "out", config=SMALL)
    with open_conversion(request), pytest.raises(LaunchError, match="another `dinov2 preprocess`"):
        convert(folder, tmp_path / "out")


def test_too_many_faults_are_an_error_after_everything_is_written(folder, tmp_path):
    summary, _ = convert(folder, tmp_path / "out")
    summary.check(max_rejected_share=0.2)
    with pytest.raises(DataError, match=r"1 files \(20.0% .* allowed is 10.0%"):
        summary.check(max_rejected_share=0.1)
    with pytest.raises(DataError, match="no file became a picture"):
        replace(summary, num_pictures=0).check(max_rejected_share=1)


def test_films_that_a_filter_leaves_out_are_no_faults(tmp_path):
    write_phantom(tmp_path / "films/a.dcm")
    for number in range(1, 5):
        write_phantom(tmp_path / f"films/{number}.dcm", number=number, BodyPartExamined="HIP")
    summary, _ = convert(tmp_path / "films", tmp_path / "out")
    assert summary.reasons == {Reason.BODY_PART: 4}
    summary.check(max_rejected_share=0)


def test_settings_that_do_not_go_together_are_listed_together():
    faulty = replace(SMALL, resample=Resample(short_side=0), max_rejected_share=2.0)
    with pytest.raises(ConfigError) as caught:
        settings.check(faulty)
    assert len(caught.value.faults) == 2


def test_a_worker_that_dies_costs_the_file_it_was_at():
    words = ["1 + 1", "__import__('os').kill(__import__('os').getpid(), 9)", "2 + 2", "3 + 3"]
    assert [answer for _, answer in run_ordered(eval, words, num_workers=2)] == [2, None, 4, 6]


def test_a_file_name_that_is_no_text_is_converted_all_the_same(tmp_path):
    write_phantom(tmp_path / "films/a.dcm")
    (tmp_path / "films/a.dcm").rename(tmp_path / "films" / os.fsdecode(b"\xff\xfe.dcm"))
    convert(tmp_path / "films", tmp_path / "out")
    assert manifest.read(tmp_path / "out/manifest.parquet").row(0)["source"] == "\ufffd\ufffd.dcm"


def command(*words: str | Path, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dinov2", "preprocess", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


def test_a_disk_that_is_full_ends_in_one_message_and_half_a_picture_nowhere(folder, tmp_path):
    import resource

    def small_files_only() -> (
        None
    ):  # no file may grow beyond 6,000 bytes, which is what a full disk looks like to a writer
        resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))

    words = ("--input", folder, "--output", tmp_path / "out", "--workers", "1", "resample.short_side=96")
    done = command(*words, preexec_fn=small_files_only)
    assert done.returncode == 2, done.stderr
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "out/images").rglob("*.png"))
    assert not list((tmp_path / "out/.preprocess/partial").glob("*"))
    done = command(*words)
    assert done.returncode == 0, done.stderr
    assert len(manifest.read(tmp_path / "out/manifest.parquet")) == 4


def test_the_command_shows_counts_and_what_to_do_next(folder, tmp_path):
    done = command("--input", folder, "--output", tmp_path / "out", "--workers", "0", "resample.short_side=96")
    assert done.returncode == 0, done.stderr
    assert "not_an_image" in done.stdout
    assert f"train.dataset_path={tmp_path / 'out/manifest.parquet'}" in done.stdout
    assert "1 files were left out" in done.stdout
    (folder / "more").write_bytes(b"junk")
    done = command("--input", folder, "--output", tmp_path / "out", "--workers", "0", "resample.short_side=96")
    assert done.returncode == 2
    assert "could not be used" in done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_keeps_what_is_done_and_the_next_run_continues(tmp_path):
    import signal
    import time

    for number in range(40):
        write_phantom(tmp_path / f"films/{number:02d}.dcm", number=number, seed=0)
    words = ["--input", tmp_path / "films", "--output", tmp_path / "out", "--workers", "1", "resample.short_side=1200"]
    running = subprocess.Popen(
        [sys.executable, "-m", "dinov2", "preprocess", *map(str, words)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    journal, patience = tmp_path / "out/.preprocess/journal.jsonl", time.monotonic() + 30
    while not (journal.exists() and journal.stat().st_size) and time.monotonic() < patience:
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGINT)  # as a terminal does: to the workers too
    _, errors = running.communicate(timeout=30)
    assert running.returncode == 130, errors
    assert "of 40 files are done" in errors
    assert "Traceback" not in errors
    num_done = len(journal.read_text().splitlines())
    assert 0 < num_done < 40
    assert f"{num_done} of 40" in errors
