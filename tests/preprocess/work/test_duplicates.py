from dataclasses import replace

import pydicom
import pytest

from dinov2.config.preprocess import Filters
from tests.preprocess.films import (
    KEY,
    SMALL,
    convert,
    everything,
    messages_of,
    rejects_of,
    rows_of,
    write_phantom,
)

STRICT = replace(SMALL, filters=Filters(flags=("truncated", "duplicate_pixels", "near_duplicate")))


def pictures(output):
    return {path.stem for path in (output / "images").rglob("*.png")}


def test_of_two_files_with_one_uid_the_first_is_kept_unless_its_polarity_is_suspect(tmp_path):
    for name, tags in {"b": {}, "a": {"PhotometricInterpretation": "MONOCHROME1"}, "c": {}}.items():
        write_phantom(tmp_path / f"films/{name}.dcm", **tags)
    summary, _ = convert(tmp_path / "films", tmp_path / "out")
    assert rejects_of(tmp_path / "out") == {"a.dcm": "duplicate_uid", "c.dcm": "duplicate_uid"}
    assert summary.flags == {}
    convert(tmp_path / "films/b.dcm", tmp_path / "alone")
    assert rows_of(tmp_path / "out")[0]["sha256"] == rows_of(tmp_path / "alone")[0]["sha256"]
    assert convert(tmp_path / "films", tmp_path / "out")[1] == []


def test_it_is_told_whether_a_duplicate_by_uid_shows_another_picture(tmp_path):
    for name, seed in {"a": 0, "b": 0, "c": 5}.items():
        write_phantom(tmp_path / f"films/{name}.dcm", seed=seed)
    summary, _ = convert(tmp_path / "films", tmp_path / "out")
    told = messages_of(tmp_path / "out")
    assert "with the same picture" in told["b.dcm"]
    assert "but the picture is another one" in told["c.dcm"]
    assert summary.num_unlike == 1


def test_when_the_kept_film_is_gone_another_of_its_uid_takes_its_place(tmp_path):
    for name in "abc":
        write_phantom(tmp_path / f"films/{name}.dcm")
    convert(tmp_path / "films", tmp_path / "out")
    (tmp_path / "films/a.dcm").unlink()
    convert(tmp_path / "films", tmp_path / "out")
    assert [row["source"] for row in rows_of(tmp_path / "out")] == ["b.dcm"]
    assert rejects_of(tmp_path / "out") == {"c.dcm": "duplicate_uid"}


def test_when_the_kept_film_becomes_another_its_duplicates_are_looked_at_again(tmp_path):
    for name in "abc":
        write_phantom(tmp_path / f"films/{name}.dcm")
    convert(tmp_path / "films", tmp_path / "out")
    write_phantom(tmp_path / "films/a.dcm", number=7, seed=7)
    convert(tmp_path / "films", tmp_path / "out")
    assert [row["source"] for row in rows_of(tmp_path / "out")] == ["a.dcm", "b.dcm"]
    assert rejects_of(tmp_path / "out") == {"c.dcm": "duplicate_uid"}


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_order_in_which_duplicates_came_makes_no_difference(tmp_path, num_workers):
    (tmp_path / "key").write_text(KEY)
    writers = {
        "a": {"PhotometricInterpretation": "MONOCHROME1"},
        "b": {},
        "c": {},
        "d": {"PhotometricInterpretation": "MONOCHROME1"},
    }
    for name, tags in writers.items():
        write_phantom(tmp_path / f"once/{name}.dcm", **tags)
    convert(tmp_path / "once", tmp_path / "at_once", key_file=tmp_path / "key", num_workers=num_workers)
    for name in "dcab":
        write_phantom(tmp_path / f"grown/{name}.dcm", **writers[name])
        convert(tmp_path / "grown", tmp_path / "by_and_by", key_file=tmp_path / "key")
    assert everything(tmp_path / "by_and_by") == everything(tmp_path / "at_once")


def test_the_same_pixels_under_another_uid_are_flagged_and_lead_to_the_first(tmp_path):
    for number, name in enumerate("abc"):
        write_phantom(tmp_path / f"films/{name}.dcm", number=number)
    convert(tmp_path / "films", tmp_path / "out")
    first, *others = rows_of(tmp_path / "out")
    assert first["flags"] == ""
    assert first["duplicate_of"] is None
    assert [(row["flags"], row["duplicate_of"]) for row in others] == [("duplicate_pixels", first["image_id"])] * 2


def test_nearly_the_same_picture_is_flagged_as_such(tmp_path):
    write_phantom(tmp_path / "films/a.dcm", number=0)
    dataset = pydicom.dcmread(write_phantom(tmp_path / "films/b.dcm", number=1))
    stored = dataset.pixel_array.copy()
    stored[40:44, 40:44] += 60
    dataset.PixelData = stored.tobytes()
    dataset.save_as(tmp_path / "films/b.dcm")
    write_phantom(tmp_path / "films/c.dcm", number=2, seed=5)
    convert(tmp_path / "films", tmp_path / "out")
    assert [row["flags"] for row in rows_of(tmp_path / "out")] == ["", "near_duplicate", ""]


def test_repeats_are_turned_away_where_asked_for_and_come_back_when_the_first_is_gone(tmp_path):
    for number, name in enumerate("abc"):
        write_phantom(tmp_path / f"films/{name}.dcm", number=number)
    convert(tmp_path / "films", tmp_path / "out", config=STRICT)
    assert rejects_of(tmp_path / "out") == {"b.dcm": "duplicate_pixels", "c.dcm": "duplicate_pixels"}
    kept = rows_of(tmp_path / "out")
    assert kept[0]["image_id"] in messages_of(tmp_path / "out")["b.dcm"]
    assert pictures(tmp_path / "out") == {kept[0]["image_id"]}
    assert convert(tmp_path / "films", tmp_path / "out", config=STRICT)[1] == []
    (tmp_path / "films/a.dcm").unlink()
    summary, _ = convert(tmp_path / "films", tmp_path / "out", config=STRICT)
    assert [row["source"] for row in rows_of(tmp_path / "out")] == ["b.dcm"]
    assert rejects_of(tmp_path / "out") == {"c.dcm": "duplicate_pixels"}
    assert summary.num_gone == 1
    assert rows_of(tmp_path / "out")[0]["image_id"] in pictures(tmp_path / "out")
