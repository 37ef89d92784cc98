import hashlib
import os
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dinov2 import manifest
from dinov2.config.preprocess import Decode, Filters, Intensity, PreprocessConfig, Quality, Resample
from dinov2.errors import ConfigError, DataError, Dinov2Error, LaunchError, ManifestError
from dinov2.preprocess.reasons import Flag, Reason
from dinov2.preprocess.work import settings
from dinov2.preprocess.work.convert import Request, open_conversion
from tests.preprocess.films import (
    KEY,
    SMALL,
    convert,
    everything,
    film,
    messages_of,
    rejects_of,
    rows_of,
    write_few_films,
    write_phantom,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_few_films(tmp_path / "films")


def test_every_file_is_in_the_manifest_or_in_the_rejects_and_never_in_both(folder, tmp_path):
    summary, outcomes = convert(folder, tmp_path / "out", dataset="OURS")
    rows = rows_of(tmp_path / "out")
    assert [row["source"] for row in rows] == ["plain.png", "sub/0.dcm", "sub/1.dcm", "sub/2.dcm"]
    assert rejects_of(tmp_path / "out") == {"junk": "not_an_image"}
    assert (summary.num_files, summary.num_pictures) == (5, 4)
    assert summary.reasons == {Reason.NOT_AN_IMAGE: 1}
    assert sum(summary.skipped.values()) == 1
    assert len(outcomes) == 5
    assert {row["dataset"] for row in rows} == {"OURS"}


def test_the_manifest_describes_the_pictures_it_names(folder, tmp_path):
    convert(folder, tmp_path / "out", csv=True)
    rows = manifest.read(tmp_path / "out" / "manifest.parquet")
    for number in range(len(rows)):
        row = rows.row(number)
        picture = Image.open(rows.path(number))
        assert (picture.width, picture.height, picture.mode) == (row["width"], row["height"], "L")
        assert min(picture.size) == 96
        assert hashlib.sha256(rows.path(number).read_bytes()).hexdigest() == row["sha256"]
        assert row["image"] == f"images/{row['image_id'][:2]}/{row['image_id']}.png"
        assert len(row["perceptual_hash"]) == 64
    dicom = rows.row(1)
    assert (dicom["view"], dicom["modality"], dicom["bits"], dicom["frame"]) == ("PA", "DX", 12, None)
    assert dicom["transfer_syntax"] == "Explicit VR Little Endian"
    per_row, per_column = (float(v) for v in dicom["spacing_mm"].split(","))
    assert per_row * dicom["height"] == pytest.approx(400, rel=0.01)
    assert per_row == pytest.approx(per_column, rel=0.02)
    assert min(dicom["film_height"], dicom["film_width"]) == 160
    assert manifest.read(tmp_path / "out" / "manifest.csv").table.column("image").equals(rows.table.column("image"))


def test_workers_change_nothing_at_all(folder, tmp_path):
    (tmp_path / "key").write_text(KEY)
    convert(folder, tmp_path / "one", key_file=tmp_path / "key", csv=True)
    convert(folder, tmp_path / "two", key_file=tmp_path / "key", csv=True, num_workers=2)
    assert everything(tmp_path / "one") == everything(tmp_path / "two")
    crosswalks = [(tmp_path / f"{name}.private/crosswalk.csv").read_bytes() for name in ("one", "two")]
    assert crosswalks[0] == crosswalks[1]
    assert not (tmp_path / "one.private/id_key").exists()


def test_every_frame_of_a_file_becomes_a_picture_where_all_are_wanted(tmp_path):
    stored = [np.rint(film(seed)[:160, :160] * 4095).astype("<u2") for seed in (0, 1)]
    write_phantom(
        tmp_path / "films/cine.dcm", Rows=160, Columns=160, NumberOfFrames=2, PixelData=b"".join(map(bytes, stored))
    )
    write_phantom(tmp_path / "films/plain.dcm", number=1, seed=2)
    convert(tmp_path / "films", tmp_path / "all", config=replace(SMALL, decode=Decode(multi_frame="all")))
    rows = rows_of(tmp_path / "all")
    assert [(row["source"], row["frame"]) for row in rows] == [("cine.dcm", 1), ("cine.dcm", 2), ("plain.dcm", None)]
    assert len({row["image_id"] for row in rows} | {row["sha256"] for row in rows}) == 6
    assert "one_frame_of_many" in rows[0]["flags"]
    convert(tmp_path / "films", tmp_path / "none")
    assert rejects_of(tmp_path / "none") == {"cine.dcm": "multi_frame"}


def test_a_film_of_which_one_frame_is_no_good_is_turned_away_whole(tmp_path):
    stored = np.rint(film(0)[:160, :160] * 4095).astype("<u2")
    frames = stored.tobytes() + np.zeros_like(stored).tobytes()
    write_phantom(tmp_path / "films/cine.dcm", Rows=160, Columns=160, NumberOfFrames=2, PixelData=frames)
    write_phantom(tmp_path / "films/plain.dcm", number=1)
    convert(tmp_path / "films", tmp_path / "out", config=replace(SMALL, decode=Decode(multi_frame="all")))
    assert rejects_of(tmp_path / "out") == {"cine.dcm": "constant"}
    assert len(list((tmp_path / "out").rglob("*.png"))) == 1


def test_sixteen_bits_are_written_and_judged(folder, tmp_path):
    convert(folder, tmp_path / "out", config=replace(SMALL, intensity=Intensity(bits=16)))
    rows = manifest.read(tmp_path / "out/manifest.parquet")
    assert Image.open(rows.path(0)).mode == "I;16"
    convert(folder, tmp_path / "eight")
    eight = {row["source"]: row["perceptual_hash"] for row in rows_of(tmp_path / "eight")}
    for row in rows.table.to_pylist():
        differing = int(row["perceptual_hash"], 16) ^ int(eight[row["source"]], 16)
        assert differing.bit_count() <= 6


def test_a_flag_can_turn_a_film_away(folder, tmp_path):
    write_phantom(folder / "negative.dcm", number=8, seed=8, PhotometricInterpretation="MONOCHROME1")
    summary, _ = convert(folder, tmp_path / "out")
    assert summary.flags[Flag.POLARITY_SUSPECT] == 1
    strict = replace(SMALL, filters=Filters(flags=("polarity_suspect",)))
    convert(folder, tmp_path / "strict", config=strict)
    assert rejects_of(tmp_path / "strict") == {"junk": "not_an_image", "negative.dcm": "polarity_suspect"}


def test_archives_and_lists_are_inputs_too(folder, tmp_path):
    (tmp_path / "key").write_text(KEY)
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder))
    (tmp_path / "list.csv").write_text("file,age\nfilms/sub/1.dcm,61\nfilms/sub/0.dcm,44\nfilms/gone.dcm,1\n")
    convert(folder, tmp_path / "folder", key_file=tmp_path / "key")
    convert(tmp_path / "all.zip", tmp_path / "zip", key_file=tmp_path / "key", num_workers=1)
    convert(tmp_path / "list.csv", tmp_path / "list", key_file=tmp_path / "key")
    by_id = {row["image_id"]: row["sha256"] for row in rows_of(tmp_path / "folder") if row["source"] != "plain.png"}
    assert by_id.items() <= {row["image_id"]: row["sha256"] for row in rows_of(tmp_path / "zip")}.items()
    assert [(row["source"], row["age"]) for row in rows_of(tmp_path / "list")] == [
        ("films/sub/1.dcm", 61),
        ("films/sub/0.dcm", 44),
    ]
    assert rejects_of(tmp_path / "list") == {"films/gone.dcm": "unreadable"}


def test_members_of_a_compressed_tar_are_converted_and_leave_nothing_behind(folder, tmp_path):
    import tarfile

    with tarfile.open(tmp_path / "all.tar.gz", "w:gz") as archive:
        archive.add(folder, arcname="films")
    summary, _ = convert(tmp_path / "all.tar.gz", tmp_path / "out", num_workers=2)
    assert (summary.num_files, summary.num_pictures) == (5, 4)
    assert not (tmp_path / "out.private/spool").exists()
    assert convert(tmp_path / "all.tar.gz", tmp_path / "out")[1] == []


def test_wrong_inputs_are_named(folder, tmp_path):
    with pytest.raises(ManifestError, match="no such folder"):
        convert(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ManifestError, match="no DICOM, PNG, JPEG or TIFF file"):
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
    (tmp_path / "key").write_text(KEY)
    with pytest.raises(LaunchError, match="another key"):
        convert(folder, tmp_path / "out", key_file=tmp_path / "key")
    write_phantom(tmp_path / "others/x.dcm")
    with pytest.raises(LaunchError, match="made from other files"):
        convert(tmp_path / "others", tmp_path / "out")
    (tmp_path / "out/preprocess.json").write_text("{}")
    with pytest.raises(LaunchError, match="no record of a conversion"):
        convert(folder, tmp_path / "out")


def test_two_commands_do_not_write_to_one_folder_at_once(folder, tmp_path):
    request = Request(input=folder, output=tmp_path / "out", config=SMALL)
    with open_conversion(request), pytest.raises(LaunchError, match="another `dinov2 preprocess`"):
        convert(folder, tmp_path / "out")


def test_a_file_system_without_locks_is_told_and_used(folder, tmp_path, monkeypatch):
    import errno
    import fcntl

    def refuse(*_):
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with open_conversion(Request(input=folder, output=tmp_path / "out", config=SMALL, num_workers=0)) as conversion:
        assert "knows no locks" in conversion.remarks[0]
        assert len(list(conversion.run())) == 5


def test_a_damaged_state_is_named_and_can_be_removed(folder, tmp_path):
    convert(folder, tmp_path / "out")
    before = everything(tmp_path / "out")
    state = tmp_path / "out.private/state.sqlite"
    state.write_bytes(b"no database" * 1000)
    with pytest.raises(Dinov2Error, match=r"is damaged or no database .* Remove it"):
        convert(folder, tmp_path / "out")
    state.unlink()
    assert len(convert(folder, tmp_path / "out")[1]) == 5
    assert everything(tmp_path / "out") == before


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
    faulty = replace(
        SMALL,
        resample=Resample(short_side=0),
        max_rejected_share=2.0,
        filters=Filters(flags=("saturatd",)),
        quality=Quality(near_duplicate_bits=64),
    )
    with pytest.raises(ConfigError) as caught:
        settings.check(faulty)
    assert len(caught.value.faults) == 4
    assert "saturated" in str(caught.value)


def test_a_file_name_that_is_no_text_is_converted_all_the_same(tmp_path):
    write_phantom(tmp_path / "films/a.dcm")
    (tmp_path / "films/a.dcm").rename(tmp_path / "films" / os.fsdecode(b"\xff\xfe.dcm"))
    convert(tmp_path / "films", tmp_path / "out")
    assert rows_of(tmp_path / "out")[0]["source"] == "\ufffd\ufffd.dcm"
    assert b"\xff\xfe.dcm" in (tmp_path / "out.private/crosswalk.csv").read_bytes()


def test_a_uid_that_climbs_out_of_the_folder_names_no_path(tmp_path):
    write_phantom(tmp_path / "films/a.dcm", SOPInstanceUID="../../../evil", StudyInstanceUID="../..")
    convert(tmp_path / "films", tmp_path / "deep/er/out")
    outside = [path for path in tmp_path.rglob("*.png") if (tmp_path / "deep/er/out/images") not in path.parents]
    assert outside == []
    assert not messages_of(tmp_path / "deep/er/out") or "evil" not in str(messages_of(tmp_path / "deep/er/out"))
