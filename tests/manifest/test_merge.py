"""Shares of a conversion, and several datasets, as one manifest with one list of rejects."""

import csv

import numpy as np
import pytest

from dinov2.errors import ManifestError
from dinov2.manifest import from_rows, merge, read
from dinov2.manifest.merge import merge as merged


def digits(number):
    """64 hexadecimal digits, far from those of any other number."""
    return np.random.default_rng(number).bytes(32).hex()


def nearly(hashed, bits=3):
    return f"{int(hashed, 16) ^ ((1 << bits) - 1):064x}"


def row(number, *, image_id=None, sha256=None, perceptual=None, flags="", **others):
    image_id = image_id or f"{number:016x}"
    return {
        "image": f"images/{number:04}.png",
        "image_id": image_id,
        "source": f"source{number}",
        "sha256": sha256 or digits(number),
        "perceptual_hash": perceptual or digits(1000 + number),
        "flags": flags,
        "duplicate_of": None,
    } | others


def share(folder, name, rows, *, rejects=(), suffix=".parquet"):
    path = folder / name / f"manifest{suffix}"
    from_rows(rows, root=path.parent).write(path)
    with (path.parent / "rejected.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerows([("file", "reason", "message"), *rejects])
    return path


def rejects_of(path):
    with (path.parent / "rejected.csv").open(newline="") as stream:
        return [(line["file"], line["reason"]) for line in csv.DictReader(stream)]


def run(paths, folder, *, bits=6, reject_flags=()):
    output = folder / "all" / "manifest.parquet"
    done = merged(paths, output=output, near_duplicate_bits=bits, reject_flags=reject_flags)
    return done, read(output).table.to_pylist(), rejects_of(output)


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_shares_become_one_manifest_with_the_rejects_of_all(tmp_path, suffix):
    paths = [
        share(tmp_path, "1", [row(1), row(2)], rejects=[("a", "constant", "m"), ("b", "view", "m")], suffix=suffix),
        share(tmp_path, "2", [row(3)], rejects=[("c", "truncated", "m, with a comma")], suffix=suffix),
    ]
    done, rows, rejects = run(paths, tmp_path)
    assert [one["image"] for one in rows] == [f"../{n}/images/{i:04}.png" for n, i in ((1, 1), (1, 2), (2, 3))]
    assert rejects == [("a", "constant"), ("b", "view"), ("c", "truncated")]
    assert (done.num_pictures, done.num_rejected) == (3, 3)
    assert not done.flags
    assert not done.turned_away


def test_a_share_without_a_picture_brings_its_rejects_and_shares_without_any_are_refused(tmp_path):
    empty = [share(tmp_path, name, [], rejects=[(name, "constant", "m")]) for name in ("1", "2")]
    with pytest.raises(ManifestError, match="none of the 2 manifests has a row"):
        run(empty, tmp_path)
    _, rows, rejects = run([*empty, share(tmp_path, "3", [row(3)])], tmp_path)
    assert [one["image_id"] for one in rows] == [row(3)["image_id"]]
    assert rejects == [("1", "constant"), ("2", "constant")]


def test_a_film_in_two_shares_stays_once_and_the_other_is_rejected(tmp_path):
    twice = [row(i, image_id="ab" * 8) for i in (2, 3)]
    done, rows, rejects = run(
        [share(tmp_path, "1", [row(1), twice[0]]), share(tmp_path, "2", [twice[1], row(4)])], tmp_path
    )
    assert [one["source"] for one in rows] == ["source1", "source2", "source4"]
    assert rejects == [("source3", "duplicate_uid")]
    assert done.turned_away == {"duplicate_uid": 1}


def test_of_two_films_with_one_id_the_one_of_suspect_polarity_yields(tmp_path):
    first = row(1, image_id="ab" * 8, flags="polarity_suspect,no_meta")
    _, rows, rejects = run([share(tmp_path, "1", [first]), share(tmp_path, "2", [row(2, image_id="ab" * 8)])], tmp_path)
    assert [one["source"] for one in rows] == ["source2"]
    assert rejects == [("source1", "duplicate_uid")]


def test_equal_ids_of_two_datasets_are_two_films(tmp_path):
    paths = [share(tmp_path, name, [row(i, image_id="0001", dataset=name)]) for i, name in enumerate(("nih", "brax"))]
    assert len(run(paths, tmp_path)[1]) == 2


def test_duplicates_are_found_over_all_shares_and_old_flags_go_where_they_no_longer_hold(tmp_path):
    copy = row(4, sha256=digits(1), perceptual=digits(1001), flags="saturated")
    alike = row(5, perceptual=nearly(digits(1002)))
    stale = row(6, flags="no_meta,near_duplicate") | {"duplicate_of": "f" * 16}
    done, rows, rejects = run(
        [share(tmp_path, "1", [row(1), row(2), stale]), share(tmp_path, "2", [row(3), copy, alike])], tmp_path
    )
    remarks = {one["source"]: (one["flags"], one["duplicate_of"]) for one in rows}
    assert remarks["source4"] == ("saturated,duplicate_pixels", f"{1:016x}")
    assert remarks["source5"] == ("near_duplicate", f"{2:016x}")
    assert remarks["source6"] == ("no_meta", None)
    assert remarks["source1"] == remarks["source3"] == ("", None)
    assert done.flags == {"duplicate_pixels": 1, "near_duplicate": 1}
    assert rejects == []


def test_flags_that_turn_a_film_away_do_so_over_all_shares(tmp_path):
    copy, alike = row(3, sha256=digits(1), perceptual=digits(1001)), row(4, perceptual=nearly(digits(1002)))
    paths = [share(tmp_path, "1", [row(1), row(2)]), share(tmp_path, "2", [copy, alike])]
    done, rows, rejects = run(paths, tmp_path, reject_flags=["duplicate_pixels"])
    assert rejects == [("source3", "duplicate_pixels")]
    assert [one["source"] for one in rows] == ["source1", "source2", "source4"]
    assert rows[2]["flags"] == "near_duplicate"
    done, rows, rejects = run(paths, tmp_path, reject_flags=["duplicate_pixels", "near_duplicate"])
    assert rejects == [("source3", "duplicate_pixels"), ("source4", "near_duplicate")]
    assert len(rows) == 2
    assert done.turned_away == {"duplicate_pixels": 1, "near_duplicate": 1}


def test_every_row_of_every_share_is_in_the_manifest_or_in_the_rejects_and_in_one_only(tmp_path):
    rng = np.random.default_rng(3)
    rows = [
        row(i, image_id=f"{rng.integers(200):016x}", sha256=digits(rng.integers(150)), perceptual=digits(i % 90))
        for i in range(300)
    ]
    paths = [share(tmp_path, str(n), rows[n::3], rejects=[(f"r{n}", "view", "m")]) for n in range(3)]
    _, kept, rejects = run(paths, tmp_path, reject_flags=["duplicate_pixels"])
    named = [one["source"] for one in kept] + [file for file, _ in rejects]
    assert sorted(named) == sorted([*(one["source"] for one in rows), "r0", "r1", "r2"])
    assert len({one["image_id"] for one in kept}) == len(kept)
    assert len({one["sha256"] for one in kept}) == len(kept)


def test_a_merge_of_merges_is_the_merge_of_all(tmp_path):
    rng = np.random.default_rng(5)
    rows = [row(i, sha256=digits(rng.integers(40)), perceptual=digits(rng.integers(40))) for i in range(90)]
    paths = [share(tmp_path, str(n), rows[30 * n : 30 * (n + 1)]) for n in range(3)]
    half = tmp_path / "half" / "manifest.parquet"
    merged(paths[:2], output=half, near_duplicate_bits=6)
    _, at_once, _ = run(paths, tmp_path)
    _, in_two_steps, _ = run([half, paths[2]], tmp_path)
    keys = ("image_id", "source", "flags", "duplicate_of")
    assert [[one[key] for key in keys] for one in in_two_steps] == [[one[key] for key in keys] for one in at_once]


def test_a_dataset_without_hashes_keeps_its_rows_and_gets_no_remark(tmp_path):
    plain = from_rows([{"image": f"{i}.png", "age": i} for i in range(3)], root=tmp_path)
    plain.write(tmp_path / "plain.csv")
    _, rows, _ = run([tmp_path / "plain.csv", share(tmp_path, "1", [row(1)])], tmp_path)
    assert [one["age"] for one in rows] == [0, 1, 2, None]
    assert [one["flags"] for one in rows] == [None, None, None, ""]


def test_manifests_without_rejects_and_duplicates_leave_no_list_and_no_new_column(tmp_path):
    for name in "ab":
        from_rows([{"image": f"{name}.png"}], root=tmp_path).write(tmp_path / name / "m.csv")
    merged([tmp_path / "a" / "m.csv", tmp_path / "b" / "m.csv"], output=tmp_path / "m.csv", near_duplicate_bits=6)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "m.csv"]
    assert "flags" not in read(tmp_path / "m.csv").table.column_names


def test_rows_pass_through_part_by_part_and_come_out_the_same(tmp_path, monkeypatch):
    rows = [row(i, sha256=digits(i % 70)) for i in range(100)]
    paths = [share(tmp_path, "1", rows[:60]), share(tmp_path, "2", rows[60:])]
    expected = run(paths, tmp_path)[1:]
    monkeypatch.setattr("dinov2.manifest.reading.ROWS_AT_ONCE", 7)
    assert run(paths, tmp_path)[1:] == expected


def test_a_merge_that_would_overwrite_what_it_reads_is_refused(tmp_path):
    paths = [share(tmp_path, "1", [row(1)]), share(tmp_path, "2", [row(2)])]
    with pytest.raises(ManifestError, match="is one of the manifests to be merged"):
        merged(paths, output=paths[0], near_duplicate_bits=6)
    with pytest.raises(ManifestError, match=r"rejected.csv: belongs to .* Give an --output in another folder"):
        merged(paths, output=tmp_path / "1" / "all.parquet", near_duplicate_bits=6)
    with pytest.raises(ManifestError, match="saturated: only duplicate_pixels and near_duplicate"):
        merged(paths, output=tmp_path / "m.parquet", near_duplicate_bits=6, reject_flags=["saturated"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]


def test_a_file_that_is_no_list_of_rejects_is_refused_and_nothing_is_written(tmp_path):
    path = share(tmp_path, "1", [row(1)])
    (path.parent / "rejected.csv").write_text("name,age\nx,1\n")
    with pytest.raises(ManifestError, match="has no column 'reason'"):
        merged([path], output=tmp_path / "all" / "m.parquet", near_duplicate_bits=6)
    assert list((tmp_path / "all").iterdir()) == []


def test_the_codes_are_those_of_the_conversion():
    from dinov2.preprocess.reasons import Flag, Reason

    assert merge.SAME == Flag.DUPLICATE_PIXELS == Reason.DUPLICATE_PIXELS
    assert merge.NEAR == Flag.NEAR_DUPLICATE == Reason.NEAR_DUPLICATE
    assert merge.SUSPECT == Flag.POLARITY_SUSPECT
    assert Reason("duplicate_uid") == Reason.DUPLICATE_UID
