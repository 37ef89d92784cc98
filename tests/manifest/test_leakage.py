"""What of an evaluation set is inside pretraining data: by columns, by hashes, and by the pictures themselves."""

import argparse
import csv
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from dinov2.cli import manifest as command
from dinov2.config.schema import Data
from dinov2.data.source import open_pictures
from dinov2.errors import ManifestError
from dinov2.eval.datasets.resemblance import CANDIDATE_BITS, SAME_FILM, candidates, fingerprints, resemblance
from dinov2.manifest import from_rows, read
from dinov2.manifest.duplicates import words_of
from dinov2.manifest.leakage import NEAR_BITS, joined, near_pairs, shared_by_hash, shared_by_table
from dinov2.preprocess.quality.perceptual import perceptual_hash

CXR = Path(os.environ.get("DINOV2_CXR_DIR", Path(__file__).parents[2] / ".." / "shared" / "cxr")) / "hannover"


def manifest(*rows):
    return from_rows(rows, root=Path())


def found(ours, theirs):
    """kind -> pairs of rows"""
    return {
        kind: list(zip(pairs.rows.tolist(), pairs.others.tolist(), strict=True))
        for kind, pairs in joined(shared_by_table(ours, theirs)).items()
    }


def film(seed, *, size=200):
    """Broad shadows with details of their own, as films have."""
    draw = np.random.default_rng(seed)
    layers = [
        cv2.resize(draw.normal(size=(side, side)), (size, size), interpolation=cv2.INTER_CUBIC) for side in (5, 12, 30)
    ]
    picture = sum(weight * layer for weight, layer in zip((2, 1, 0.7), layers, strict=True))
    return cv2.normalize(picture, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def copy_of(picture, seed):
    """Cropped by up to 3 % at every side, resized and compressed again."""
    top, bottom, left, right = np.random.default_rng(seed).uniform(0, 0.03, 4)
    height, width = picture.shape
    part = picture[
        round(top * height) : height - round(bottom * height), round(left * width) : width - round(right * width)
    ]
    smaller = cv2.resize(part, (150, 150 * part.shape[0] // part.shape[1]), interpolation=cv2.INTER_AREA)
    return cv2.imdecode(cv2.imencode(".jpg", smaller, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], cv2.IMREAD_GRAYSCALE)


def run_command(*words):
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers(dest="command"))
    arguments = parser.parse_args(["manifest", *map(str, words)])
    return int(arguments.run(arguments))


def test_the_same_file_is_found_whatever_it_is_called():
    ours = manifest({"image": "a.png", "sha256": "11"}, {"image": "b.png", "sha256": ""}, {"image": "c.png"})
    theirs = manifest({"image": "x.png", "sha256": ""}, {"image": "y.png", "sha256": "11"}, {"image": "z.png"})
    assert found(ours, theirs) == {"sha256": [(0, 1)]}


def test_an_id_counts_within_one_dataset_and_where_one_side_does_not_say():
    ours = manifest({"image": "a.png", "image_id": "7_001", "dataset": "nih"})
    for dataset, leaks in (("nih", True), (None, True), ("mimic", False)):
        theirs = manifest({"image": "b.png", "image_id": "7_001", "dataset": dataset})
        assert ("image_id" in found(ours, theirs)) == leaks


def test_an_id_that_is_only_a_path_says_nothing():
    assert (
        found(manifest({"image": "1.png", "image_id": "1.png"}), manifest({"image": "1.png", "image_id": "1.png"}))
        == {}
    )


def test_a_source_is_recognised_by_its_name_in_another_folder_and_format():
    ours = manifest({"image": "0/1.png", "source": "archive/p1/00000013_005.dcm"})
    assert found(ours, manifest({"image": "images_001/00000013_005.png"})) == {"name": [(0, 0)]}


def test_a_name_that_many_films_have_is_no_evidence():
    ours = manifest(*({"image": f"p{patient}/view1_frontal.jpg"} for patient in range(2)))
    assert found(ours, manifest({"image": "q/view1_frontal.jpg"})) == {}


def test_every_picture_of_a_shared_patient_leaks_and_equal_numbers_of_two_datasets_are_not_one_patient():
    ours = manifest(*({"image": f"{i}.png", "patient": patient, "dataset": "nih"} for i, patient in enumerate("7779")))
    theirs = manifest(
        {"image": "x.png", "patient": "8", "dataset": "nih"}, {"image": "y.png", "patient": "7", "dataset": "nih"}
    )
    assert found(ours, theirs) == {"patient": [(0, 1), (1, 1), (2, 1)]}
    other = manifest({"image": "y.png", "patient": "7", "dataset": "mimic"})
    assert found(ours, other) == {}


def test_the_nearest_hash_is_that_of_comparing_every_bit(monkeypatch):
    monkeypatch.setattr("dinov2.manifest.leakage.ROWS_AT_ONCE", 7)
    monkeypatch.setattr("dinov2.manifest.leakage.OTHERS_AT_ONCE", 5)
    draw = np.random.default_rng(0)
    theirs = draw.integers(0, 256, (23, 32), dtype=np.uint8)
    ours = draw.integers(0, 256, (40, 32), dtype=np.uint8)
    ours[::4] = theirs[draw.integers(0, 23, 10)]
    for row in range(0, 40, 4):  # up to 40 bits away
        for bit in draw.integers(0, 256, row):
            ours[row, bit // 8] ^= 1 << bit % 8
    theirs[3] = 0  # unknown
    bits = (np.unpackbits(ours, axis=1)[:, None] != np.unpackbits(theirs, axis=1)[None]).sum(axis=2)
    bits[:, 3] = 999
    words = [words_of([row.tobytes().hex() for row in one]) for one in (ours, theirs)]
    parts = list(near_pairs(*words, max_bits=NEAR_BITS))
    assert [done for done, *_ in parts][-1] == 40
    rows, others, distance = (np.concatenate([part[i] for part in parts]) for i in (1, 2, 3))
    np.testing.assert_array_equal(rows, np.flatnonzero(bits.min(axis=1) <= NEAR_BITS))
    np.testing.assert_array_equal(others, bits.argmin(axis=1)[rows])
    np.testing.assert_array_equal(distance, bits.min(axis=1)[rows])


def test_resized_and_recompressed_films_are_found_by_the_hashes_of_conversion():
    films = [film(seed) for seed in range(12)]
    copies = [cv2.imdecode(cv2.imencode(".jpg", cv2.resize(one, (120, 120)))[1], 0) for one in films[:4]]
    ours, theirs = (
        manifest(*({"image": f"{i}.png", "perceptual_hash": perceptual_hash(one)} for i, one in enumerate(pictures)))
        for pictures in (films, copies)
    )
    pairs = joined(pairs for _, pairs in shared_by_hash(ours, theirs, max_bits=NEAR_BITS))["near"]
    assert pairs.rows.tolist() == pairs.others.tolist() == [0, 1, 2, 3]


@pytest.fixture
def pretraining(tmp_path):
    """Ten films, three of which are in the evaluation set: two as cropped copies, and one as the original of ours."""
    rows, kept = [], []
    (tmp_path / "pre").mkdir()
    (tmp_path / "eval").mkdir()
    for seed in range(10):
        original = film(seed)
        ours, theirs = (copy_of(original, seed), original) if seed == 2 else (original, copy_of(original, seed))
        cv2.imwrite(str(tmp_path / "pre" / f"a{seed}.png"), ours)
        rows.append({"image": f"a{seed}.png", "image_id": f"ours-{seed}", "dataset": "one", "split": "train"})
        if seed < 3:
            cv2.imwrite(str(tmp_path / "eval" / f"b{seed}.png"), theirs)
            kept.append({"image": f"b{seed}.png", "image_id": f"theirs-{seed}", "dataset": "two"})
    cv2.imwrite(str(tmp_path / "eval" / "b99.png"), film(99))
    kept.append({"image": "b99.png", "image_id": "theirs-99", "dataset": "two"})
    from_rows(rows, root=tmp_path / "pre").write(tmp_path / "pre" / "m.csv")
    from_rows(kept, root=tmp_path / "eval").write(tmp_path / "eval" / "m.csv")
    return tmp_path


def test_cropped_copies_are_found_in_the_pictures_and_left_out_of_a_training_by_the_list(pretraining, capsys):
    ours, theirs, leak = pretraining / "pre" / "m.csv", pretraining / "eval" / "m.csv", pretraining / "leak.csv"
    assert run_command("check", ours, "--against", theirs) == 0
    said = capsys.readouterr()
    assert "near-duplicates were not looked for" in said.err.replace("\n", " ")
    assert f"nothing of {theirs} is in it" in said.out
    with pytest.raises(ManifestError, match=r"3 rows share a picture or a patient with .* \(3 near\)") as caught:
        run_command("check", ours, "--against", theirs, "--near", "--output", leak)
    assert caught.value.exit_code == 2
    printed = capsys.readouterr().out
    assert "nearly the same picture: 3 rows" in printed
    assert "a0.png and b0.png" in printed
    assert (
        f"next: dinov2 train --config-file F --output-dir RUN train.dataset_path={ours} data.exclude={leak}" in printed
    )
    with leak.open() as stream:
        listed = list(csv.DictReader(stream))
    assert [(row["image"], row["shared"], row["evaluation_image"]) for row in listed] == [
        (f"a{i}.png", "near", f"b{i}.png") for i in range(3)
    ]
    left = open_pictures(str(ours), data=Data(exclude=str(leak)), seed=0)
    assert left.table.column("image").to_pylist() == [f"a{i}.png" for i in range(3, 10)]


def test_a_training_without_the_listed_rows_leaks_no_more(pretraining):
    ours, theirs, leak = read(pretraining / "pre" / "m.csv"), pretraining / "eval" / "m.csv", pretraining / "leak.csv"
    with pytest.raises(ManifestError):
        run_command("check", pretraining / "pre" / "m.csv", "--against", theirs, "--near", "--output", leak)
    ours.filter(exclude=frozenset({f"a{i}.png" for i in range(3)})).write(pretraining / "pre" / "less.csv")
    assert run_command("check", pretraining / "pre" / "less.csv", "--against", theirs, "--near") == 0


def test_a_picture_that_cannot_be_read_is_counted_and_near_nothing(pretraining, capsys):
    (pretraining / "pre" / "a0.png").write_bytes(b"no picture")
    with pytest.raises(ManifestError, match="2 near"):
        run_command(
            "check",
            pretraining / "pre" / "m.csv",
            "--files",
            "none",
            "--against",
            pretraining / "eval" / "m.csv",
            "--near",
        )
    assert "1 of 10 pictures cannot be compared" in capsys.readouterr().err


def test_words_that_need_an_evaluation_set_are_refused_without_one(pretraining):
    with pytest.raises(ManifestError, match="--near and --output go with --against"):
        run_command("check", pretraining / "pre" / "m.csv", "--near")


@pytest.mark.skipif(not CXR.is_dir(), reason="the real films of hannover/ are not on this machine (DINOV2_CXR_DIR)")
def test_copies_of_real_films_are_found_and_other_patients_are_not():
    with (CXR.parent / "hannover.csv").open() as stream:
        rows = list(csv.DictReader(stream))[::2]
    films = [cv2.imread(str(CXR.parent / row["file"]), cv2.IMREAD_GRAYSCALE) for row in rows]
    patients = np.array([row["patient_id"] for row in rows])
    chosen = np.arange(0, len(films), 8)
    copies = [copy_of(films[row], row) for row in chosen]
    ours, theirs = (np.stack([fingerprints(one) for one in pictures]) for pictures in (films, copies))
    pairs = {
        (int(row), int(other))
        for _, rows_, others in candidates(ours, theirs)
        for row, other in zip(rows_, others, strict=True)
    }
    missed = [row for place, row in enumerate(chosen) if (int(row), place) not in pairs]
    assert missed == []  # every copy is a candidate
    assert {patients[row] == patients[chosen[other]] for row, other in pairs} == {True}  # no other patient is
    scores = [resemblance(films[row], copies[place]) for place, row in enumerate(chosen[:6])]
    assert min(scores) >= SAME_FILM
    assert CANDIDATE_BITS > NEAR_BITS
    others = [resemblance(films[row], copies[place - 1]) for place, row in enumerate(chosen[:6]) if place]
    assert max(others) < SAME_FILM
