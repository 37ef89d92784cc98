"""What `dinov2 check` finds in the pictures."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dinov2.errors import ManifestError
from dinov2.forecast.data import DataReport, look_at_data, manifest_file
from dinov2.manifest import from_rows
from tests.forecast.steps import small_config
from tests.integration.runs import write_pictures


def look(path: Path, *words: str, num_rows: int = 100) -> DataReport:
    config = small_config(f"train.dataset_path={path}", *words)
    return look_at_data(config, num_rows=num_rows, progress=lambda *_: None)


def manifest_of(folder: Path, rows: list[dict[str, Any]]) -> Path:
    file = folder / "manifest.parquet"
    from_rows(rows, root=folder).write(file)
    return file


def test_a_sample_is_decoded_and_progress_counts_it(tmp_path: Path) -> None:
    heard = []
    config = small_config(f"train.dataset_path={write_pictures(tmp_path, count=20)}")
    report = look_at_data(config, num_rows=8, progress=lambda number, total: heard.append((number, total)))
    assert heard == [(number, 8) for number in range(1, 9)]
    assert (report.num_pictures, report.num_sampled, report.unreadable) == (20, 8, {})
    assert report.kinds == {"8-bit grey, PNG": 8}
    assert report.sizes is not None
    assert (report.sizes.smallest, report.sizes.largest, report.sizes.share_below_crop) == (56, 56, 1.0)
    assert report.pictures_per_core_second > 0
    assert report.copies is None


def test_pictures_that_cannot_be_read_are_named_with_the_reason(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path, count=6)
    (folder / "film_02.png").write_bytes(b"no picture")
    cv2.imwrite(str(folder / "film_03.png"), np.full((60, 60), 900, np.uint16))
    report = look(folder)
    assert {Path(path).name for path in report.unreadable} == {"film_02.png", "film_03.png"}
    assert any("brightest level is 900" in reason for reason in report.unreadable.values())


def test_kinds_tell_depth_and_colour_apart(tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (70, 70))
    cv2.imwrite(str(tmp_path / "a.png"), (grey * 257).astype(np.uint16))
    cv2.imwrite(str(tmp_path / "b.jpg"), np.repeat(grey[:, :, None], 3, axis=2).astype(np.uint8))
    assert look(tmp_path).kinds == {"16-bit grey, PNG": 1, "8-bit colour, JPEG": 1}


def test_copies_are_counted_among_the_chosen_rows_and_patients_over_the_whole_manifest(tmp_path: Path) -> None:
    write_pictures(tmp_path, count=6)
    hashes = ["a" * 64, "a" * 64, "b" * 64, "c" * 64, "b" * 64, "d" * 64]
    splits = ["train"] * 4 + ["test"] * 2
    rows = [
        {"image": f"film_{i:02d}.png", "sha256": hashes[i], "split": splits[i], "patient": f"p{i % 4}", "view": "PA"}
        for i in range(6)
    ]
    file = manifest_of(
        tmp_path, [row | {"duplicate_of": "film_00.png" if i == 1 else ""} for i, row in enumerate(rows)]
    )
    report = look(file, "data.splits=[train]")
    assert report.num_pictures == 4
    assert report.copies is not None
    assert (report.copies.same_file, report.copies.same_look, report.copies.named) == (1, None, 1)
    assert report.num_split_patients == 2
    assert "patient p0 is in the splits test, train" in report.split_patients[0]
    assert report.groups["split"] == {"train": 4}
    assert report.groups["view"] == {"PA": 4}
    assert report.groups["dataset"] == {}


def test_the_manifest_is_found_however_the_data_are_named(tmp_path: Path) -> None:
    write_pictures(tmp_path, count=2)
    assert manifest_file(str(tmp_path)) is None
    file = manifest_of(tmp_path, [{"image": "film_00.png"}, {"image": "film_01.png"}])
    assert manifest_file(str(file)) == manifest_file(str(tmp_path)) == file
    assert manifest_file(f"Films:root={tmp_path}:split=train") == file


def test_data_that_are_not_there_are_an_error_in_words(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="no such manifest"):
        look(tmp_path / "none.parquet")
