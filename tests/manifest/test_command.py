"""`dinov2 manifest`: what its actions print and write, beyond what the rooms' own tests show."""

import argparse
import re

import numpy as np
import pytest
from PIL import Image

from dinov2.cli import manifest as command
from dinov2.errors import ManifestError
from dinov2.manifest import from_folder, from_rows, read
from dinov2.manifest.edit import measure, with_measures


def run_command(*words):
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers(dest="command"))
    arguments = parser.parse_args(["manifest", *map(str, words)])
    return int(arguments.run(arguments))


@pytest.fixture
def pictures(tmp_path):
    """Forty measured pictures and their manifest."""
    (tmp_path / "pictures").mkdir()
    for number in range(40):
        noise = np.random.default_rng(number).integers(0, 256, (9, 8 + number), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "pictures" / f"{number:02}.png")
    found = from_folder(tmp_path / "pictures")
    path = tmp_path / "pictures" / "manifest.parquet"
    with_measures(found, list(measure(found))).write(path)
    return path


def test_show_counts_flags_and_patients(tmp_path, capsys):
    flags = ["", "screenshot", "no_meta,screenshot", None]
    rows = [{"image": f"{i}.png", "patient": str(i // 2), "flags": flag} for i, flag in enumerate(flags)]
    from_rows(rows, root=tmp_path).write(tmp_path / "m.csv")
    assert run_command("show", tmp_path / "m.csv", "--rows", 0) == 0
    output = capsys.readouterr().out
    assert "flags: screenshot 2, no_meta 1" in output
    assert "patients: 2" in output


def test_check_looks_at_all_files_a_sample_or_none(pictures, capsys, monkeypatch):
    monkeypatch.setattr("dinov2.cli.manifest.look.NUM_SAMPLED", 5)
    assert run_command("check", pictures, "--files", "sample", "--hashes") == 0
    assert "40 pictures, 5 of them looked at and present, the right size and unchanged" in capsys.readouterr().out
    missing = pictures.parent / "01.png"  # not among rows 0, 9, 19, 29 and 39
    missing.unlink()
    assert run_command("check", pictures, "--files", "sample") == 0
    with pytest.raises(ManifestError, match=r"1 faults \(1 missing\)"):
        run_command("check", pictures)
    (pictures.parent / "19.png").unlink()
    with pytest.raises(ManifestError, match=r"1 faults \(1 missing\)"):
        run_command("check", pictures, "--files", "sample")
    capsys.readouterr()
    assert run_command("check", pictures, "--files", "none") == 0
    assert "40 pictures, files not looked at" in capsys.readouterr().out


def test_pack_writes_shards_that_check_and_says_what_was_complete_before(pictures, tmp_path, capsys):
    words = ("pack", pictures, "--output", tmp_path / "packed", "--shard-mb", 1)
    assert run_command(*words) == 0
    assert run_command("check", tmp_path / "packed" / "manifest.parquet", "--hashes") == 0
    assert run_command(*words) == 0
    assert "40 pictures in 1 shard, 1 of them complete before." in capsys.readouterr().out


def test_merge_says_what_it_flagged_and_turned_away(tmp_path, capsys):
    digest = "ab" * 32
    for name in "ab":
        rows = [{"image": "x.png", "image_id": f"{name}1", "source": name, "sha256": digest}]
        from_rows(rows, root=tmp_path).write(tmp_path / name / "m.csv")
    inputs = [tmp_path / name / "m.csv" for name in "ab"]
    assert run_command("merge", *inputs, "--output", tmp_path / "m.csv") == 0
    assert "flagged: duplicate_pixels 1" in capsys.readouterr().out
    output = tmp_path / "less" / "m.csv"
    assert run_command("merge", *inputs, "--output", output, "--reject-flags", "duplicate_pixels,near_duplicate") == 0
    printed = capsys.readouterr().out
    assert "turned away now: duplicate_pixels 1" in printed
    assert "rejected.csv: 1 rejects" in printed
    assert len(read(output)) == 1
    with pytest.raises(ManifestError, match="--near-duplicate-bits 64: give 0 to 63"):
        run_command("merge", *inputs, "--output", output, "--near-duplicate-bits", 64)


def test_build_by_layout_reads_the_datasets_own_tables(tmp_path, capsys):
    """NIH ChestX-ray14, with one picture that no row names and one row without a picture."""
    root = tmp_path / "nih"
    (root / "images_001" / "images").mkdir(parents=True)
    for name in ("00000001_000", "00000002_000", "00000009_000"):
        Image.new("L", (8, 8)).save(root / "images_001" / "images" / f"{name}.png")
    header = (
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
        "OriginalImage[Width,"
        "Height],OriginalImagePixelSpacing[x,y],"
    )
    lines = [
        f"{name}.png,No Finding,0,{int(name[:8])},50,M,PA,8,8,0.1,0.1,"
        for name in ("00000001_000", "00000002_000", "00000003_000")
    ]
    (root / "Data_Entry_2017.csv").write_text("\n".join([header, *lines]) + "\n")
    output = tmp_path / "lists" / "nih.parquet"
    assert run_command("build", "--layout", "nih", "--root", root, "--output", output) == 0
    printed = capsys.readouterr().out
    assert "1 rows of the tables have no picture on disk; left out." in printed
    assert "1 pictures on disk are named by no row; left out." in printed
    assert f"next: dinov2 preprocess --input {output} --output PICTURES" in printed
    built = read(output)
    assert built.missing_files() == []
    assert built.table.column("view").to_pylist() == ["PA", "PA"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--layout", "nih"), "--layout nih needs --root"),
        (("--layout", "nih", "--root", "x", "--dataset", "y"), "--dataset goes with --folder, and --layout is given"),
        (("--folder", "x", "--images", "y"), "--images goes with --layout, and --folder is given"),
        (("--layout", "nihh", "--root", "x"), "no layout is called nihh; there are mimic-cxr,"),
    ],
)
def test_build_refuses_words_that_it_would_not_read(tmp_path, words, message):
    with pytest.raises(ManifestError, match=re.escape(message)):
        run_command("build", *words, "--output", tmp_path / "m.csv")


def test_layouts_are_listed_with_what_they_need(capsys):
    assert run_command("layouts") == 0
    printed = capsys.readouterr().out
    for name in ("mimic-cxr:", "mimic-cxr-jpg:", "chexpert:", "nih:", "padchest:", "brax:", "vindr-cxr:"):
        assert f"\n{name}" in f"\n{printed}"
