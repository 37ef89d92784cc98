"""Commands that are killed in the middle of writing: a later one cleans up, another at the same time does not."""

import csv
import os
import time
from pathlib import Path

import numpy as np
from PIL import Image

from dinov2.cli import main
from tests.distributed.processes import warm_context

BACKBONE = "random:vit_small/16@32"
WORDS = {
    "embed": ["embed", "--output", "{folder}/films.parquet"],
    "knn": ["eval", "knn", "--labels", "bright", "--output-dir", "{folder}/knn", "--features-dir", "{folder}"],
    "segment": [
        *("eval", "segment", "--masks", "mask", "--tokens", "disk"),
        *("--output-dir", "{folder}/segment", "--features-dir", "{folder}"),
    ],
}


def films(folder: Path, *, seed: int) -> Path:
    """A manifest of twelve small pictures with masks."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    with (folder / "films.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "patient_id", "split", "bright", "mask"])
        for row in range(12):
            mask = np.zeros((36, 36), dtype=np.uint8)
            mask[8:24, 4:20] = 1
            picture = rng.integers(60, 100, size=mask.shape) + 90 * (row % 2) + 40 * mask
            Image.fromarray(picture.astype(np.uint8)).save(folder / f"{row}.png")
            Image.fromarray(mask).save(folder / f"{row}_mask.png")
            split = ("train", "train", "train", "train", "val", "val", "test", "test")[row % 8]
            table.writerow([f"{row}.png", f"p{row}", split, row % 2, f"{row}_mask.png"])
    return folder / "films.csv"


def words(command: str, manifest: Path, folder: Path) -> list[str]:
    common = ["--backbone", BACKBONE, "--dataset", str(manifest), "--device", "cpu", "--batch-size", "2"]
    return [word.format(folder=folder) for word in WORDS[command]] + [*common, "--workers", "1"]


def being_made(folder: Path) -> set[str]:
    return {path.name for path in folder.glob(".*.partial")}


def test_what_killed_commands_left_half_made_is_removed_by_the_next_one_but_not_while_they_run(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    stuck, well = films(tmp_path / "stuck", seed=0), films(tmp_path / "well", seed=1)
    (stuck.parent / "10.png").unlink()
    os.mkfifo(stuck.parent / "10.png")  # of train; whoever reads it waits for ever
    context = warm_context()
    running = [context.Process(target=main, args=(words(command, stuck, folder),)) for command in WORDS]
    for process in running:
        process.start()
    try:
        deadline = time.monotonic() + 120
        while len(being_made(folder)) < len(WORDS):
            assert all(process.is_alive() for process in running)
            assert time.monotonic() < deadline
            time.sleep(0.01)
        half = being_made(folder)
        assert main(words("embed", well, folder)) == 0
        assert being_made(folder) == half, "they still run"
    finally:
        for process in running:
            process.kill()
        for process in running:
            process.join(60)
    assert being_made(folder) == half
    (folder / "films.parquet").unlink()
    assert main(words("embed", well, folder)) == 0
    assert being_made(folder) == set()
