"""An archive converted in shares is the archive converted in one go: as processes here, and on a real SLURM.

The SLURM tests run where `sinfo` answers; `eval "$(bash scripts/local_slurm.sh start)"` makes one.
"""

import csv
import hashlib
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.uid import generate_uid

from dinov2 import manifest

from .runs import command, environment, finish
from .slurm import job_of, needs_slurm, queue_of, until

ROOT = Path(__file__).parents[2]
SIZE = "resample.short_side=96"
REPEATS = ("duplicate_pixels", "near_duplicate")


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # tasks start in the folder that they were submitted in


class Archive:
    """Films, the key of their ids, and the output of one plain run over them.

    `copies` of each film under other UIDs are cheaper to have than films, and cost as much to convert.
    """

    def __init__(self, root: Path, *, count: int, short_side: int, copies: int) -> None:
        self.root = root
        words = ["--count", str(count), "--seed", "2", "--short-side", str(short_side)]
        finish(command("phantom", "--output", str(root / "phantoms"), *words))
        self.films = root / "phantoms" / "dicom"
        drawn = sorted(path for path in self.films.rglob("*") if path.is_file())
        for path in drawn:
            film = pydicom.dcmread(path)
            for number in range(copies):
                film.SOPInstanceUID = film.file_meta.MediaStorageSOPInstanceUID = generate_uid()
                film.save_as(path.with_name(f"{path.stem}_{number}.dcm"))
        for number in range(4):  # the very same film, in whichever share each of them falls
            shutil.copyfile(drawn[0], drawn[0].with_name(f"again_{number}.dcm"))
        (self.films / "damaged.dcm").write_bytes(drawn[0].read_bytes()[:2000])
        (self.films / "junk").write_bytes(b"junk" * 100)
        (root / "key").write_text("0123456789abcdef" * 4)
        self.plain = root / "plain"
        finish(command("preprocess", *self.words(self.plain), "--workers", "0"))

    def words(self, output: Path) -> list[str]:
        given = ["--input", str(self.films), "--output", str(output), "--key-file", str(self.root / "key")]
        return [*given, "--dataset", "OURS", "max_rejected_share=1", SIZE]

    def submit(self, output: Path, *options: str, tasks: int, code: int = 0) -> str:
        words = ["submit", "preprocess", "--tasks", str(tasks), *options, "--", *self.words(output)]
        return finish(command(*words), code=code).stdout


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    return Archive(tmp_path_factory.mktemp("small"), count=8, short_side=160, copies=1)


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """Enough work that a task can be met in the middle of it."""
    return Archive(tmp_path_factory.mktemp("large"), count=6, short_side=1024, copies=10)


@dataclass(frozen=True)
class Content:
    """What an output says, whatever the order of its rows.

    Which of several equal films comes first, and so is the one that stays or is not flagged, does depend on the order.
    """

    rows: dict[str, dict[str, Any]]  # by image id
    repeats: Counter[tuple[str, str]]  # flags of repeated pictures, by the picture
    reasons: Counter[str]
    files: list[str]  # every one of them, in the manifest or in the rejects


def content(output: Path) -> Content:
    table = manifest.read(output / "manifest.parquet")
    rows, files, repeats = {}, [], Counter[tuple[str, str]]()
    for row in (table.row(number) for number in range(len(table))):
        files.append(row.pop("source"))
        assert hashlib.sha256((output / row.pop("image")).read_bytes()).hexdigest() == row["sha256"]
        flags = [flag for flag in (row.pop("flags") or "").split(",") if flag]
        repeats.update((flag, row["sha256"]) for flag in flags if flag in REPEATS)
        assert (row.pop("duplicate_of") is not None) == any(flag in REPEATS for flag in flags)
        row["flags"] = [flag for flag in flags if flag not in REPEATS]
        rows[row["image_id"]] = row
    assert len(rows) == len(table), "an id stands for one row"
    with (output / "rejected.csv").open(newline="", encoding="utf-8") as stream:
        rejected = list(csv.DictReader(stream))
    files += [row["file"] for row in rejected]
    return Content(rows, repeats, Counter(row["reason"] for row in rejected), sorted(files))


def assert_equal(output: Path, archive: Archive) -> None:
    ours, plain = content(output), content(archive.plain)
    assert ours.rows == plain.rows
    assert ours.repeats == plain.repeats
    assert ours.reasons == plain.reasons
    assert ours.files == plain.files
    assert plain.reasons["duplicate_uid"] == 4


def test_two_shares_on_this_machine_give_what_one_run_gives(small: Archive, tmp_path: Path) -> None:
    said = small.submit(tmp_path / "pictures", "--cluster", "local", "--wait", tasks=2)
    assert_equal(tmp_path / "pictures", small)
    assert {path.name for path in (tmp_path / "pictures" / "shares").iterdir()} == {"1-of-2", "2-of-2"}
    assert "dinov2 manifest merge" in said
    assert str(small.films) not in said
    again = small.submit(tmp_path / "pictures", "--cluster", "local", "--wait", tasks=2)
    assert_equal(tmp_path / "pictures", small)
    assert "0002" in again


def test_a_share_that_fails_is_named_with_its_log_and_nothing_is_merged(small: Archive, tmp_path: Path) -> None:
    (tmp_path / "pictures" / "shares").mkdir(parents=True)
    (tmp_path / "pictures" / "shares" / "2-of-2").write_text("in the way")
    words = ["submit", "preprocess", "--tasks", "2", "--cluster", "local", "--wait", "--"]
    done = finish(command(*words, *small.words(tmp_path / "pictures")), code=2)
    assert "1 of 2 tasks failed" in done.stderr
    assert "task 2: " in done.stderr
    assert not (tmp_path / "pictures" / "manifest.parquet").exists()
    (tmp_path / "pictures" / "shares" / "2-of-2").unlink()
    small.submit(tmp_path / "pictures", "--cluster", "local", "--wait", tasks=2)
    assert_equal(tmp_path / "pictures", small)


def test_shares_without_a_picture_are_merged_too_and_faults_are_judged_over_all(small: Archive, tmp_path: Path) -> None:
    films = tmp_path / "films"
    films.mkdir()
    shutil.copyfile(next(small.films.glob("phantom_*.dcm")), films / "film.dcm")
    (films / "junk.dcm").write_bytes(b"junk" * 100)
    given = ["--input", str(films), "--output", str(tmp_path / "pictures"), SIZE]
    words = ["submit", "preprocess", "--tasks", "3", "--cluster", "local", "--wait", "--", *given]
    assert "1 files (50.0%" in finish(command(*words), code=2).stderr
    said = content(tmp_path / "pictures")
    assert len(said.rows) == 1
    assert said.reasons == {"not_an_image": 1}


SLURM = ("--cpus-per-task", "1", "--mem", "2G", "--time", "10")


@needs_slurm
def test_four_tasks_on_slurm_give_what_one_run_gives(large: Archive, tmp_path: Path) -> None:
    said = large.submit(tmp_path / "pictures", *SLURM, "--wait", tasks=4)
    assert_equal(tmp_path / "pictures", large)
    assert "squeue --jobs" in said
    jobs = tmp_path / "pictures.private" / "jobs"
    assert [path for path in (jobs, *jobs.rglob("*.err"), *jobs.rglob("*.out")) if path.stat().st_mode & 0o077] == []


@needs_slurm
def test_a_task_that_is_cancelled_in_the_middle_is_finished_by_the_same_command(large: Archive, tmp_path: Path) -> None:
    output = tmp_path / "pictures"
    job = job_of(large.submit(output, *SLURM, tasks=4))
    share = in_the_middle(output, job=job)
    subprocess.run(["scancel", f"{job}_{share - 1}"], check=True)
    until(lambda: f"{job}_{share - 1}" not in queue_of(job), what="the task is gone")
    assert not (output / "shares" / f"{share}-of-4" / "manifest.parquet").exists(), "it was in the middle"
    subprocess.run(["scancel", job], check=True)
    until(lambda: not queue_of(job), what="the job is gone")
    large.submit(output, *SLURM, "--wait", tasks=4)
    assert_equal(output, large)


@needs_slurm
def test_a_task_that_is_warned_puts_itself_back_and_goes_on(large: Archive, tmp_path: Path) -> None:
    output = tmp_path / "pictures"
    words = ["submit", "preprocess", "--tasks", "2", *SLURM, "--wait", "--", *large.words(output)]
    waiting = subprocess.Popen(command(*words), stdout=subprocess.PIPE, text=True, env=environment())
    assert waiting.stdout is not None
    job = job_of("".join(line for line in until_job(iter(waiting.stdout))))
    share = in_the_middle(output, job=job)
    task = f"{job}_{share - 1}"
    subprocess.run(["scancel", "--signal=USR2", task], check=True)
    until(lambda: queue_of(job).get(task) == "PENDING", what="the task waits again")
    assert not (output / "shares" / f"{share}-of-2" / "manifest.parquet").exists(), "it was in the middle"
    number = subprocess.run(["squeue", "-h", "-j", task, "-o", "%A"], capture_output=True, text=True, check=True)
    # Spares the two minutes that SLURM gives a node to recover; where the number is the array's too, the other task
    # cannot be changed and the command fails for it.
    subprocess.run(["scontrol", "update", f"JobId={number.stdout.strip()}", "StartTime=now"], check=False)
    assert waiting.wait(timeout=240) == 0
    assert_equal(output, large)


@needs_slurm
def test_a_second_job_over_the_same_output_is_refused_while_the_first_is_queued(small: Archive, tmp_path: Path) -> None:
    job = job_of(small.submit(tmp_path / "pictures", *SLURM, "--slurm", "begin=now+1hour", tasks=2))
    try:
        words = ["submit", "preprocess", "--tasks", "2", *SLURM, "--", *small.words(tmp_path / "pictures")]
        assert f"job {job}" in finish(command(*words), code=2).stderr
    finally:
        subprocess.run(["scancel", job], check=True)


@needs_slurm
def test_resources_that_the_cluster_does_not_have_are_refused_in_its_own_words(small: Archive, tmp_path: Path) -> None:
    words = ["submit", "preprocess", "--tasks", "2", "--partition", "nowhere", "--"]
    done = finish(command(*words, *small.words(tmp_path / "pictures")), code=2)
    assert "SLURM did not take the job" in done.stderr
    assert "invalid partition" in done.stderr
    assert "Traceback" not in done.stderr


@needs_slurm
def test_the_batch_file_does_the_same_without_submitit(small: Archive, tmp_path: Path) -> None:
    output, scripts = tmp_path / "pictures", tmp_path / "bin"
    scripts.mkdir()
    (scripts / "dinov2").write_text(f'#!/bin/sh\nexec {" ".join(command())} "$@"\n')
    (scripts / "dinov2").chmod(0o755)
    path = f"{scripts}:{os.environ['PATH']}"
    options = ["--wait", "--array=0-1", "--cpus-per-task=1", "--mem=2G", f"--output={tmp_path}/%a.log"]
    words = ["sbatch", *options, str(ROOT / "slurm" / "preprocess_array.sbatch"), *small.words(output)]
    done = subprocess.run(words, env=environment() | {"PATH": path}, check=False, timeout=240, capture_output=True)
    assert done.returncode == 0, "\n".join(log.read_text() for log in tmp_path.glob("*.log"))
    shares = sorted(str(share) for share in (output / "shares").glob("*/manifest.parquet"))
    finish(command("manifest", "merge", *shares, "--output", str(output / "manifest.parquet")))
    assert_equal(output, small)


def until_job(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        yield line
        if line.startswith("job "):
            return


def in_the_middle(output: Path, *, job: str) -> int:
    """The number of a share that has pictures and is still at work."""
    met: list[int] = []

    def look() -> bool:
        for task, state in queue_of(job).items():
            number = int(task.rpartition("_")[2]) + 1
            share = next((output / "shares").glob(f"{number}-of-*"), None)
            if state == "RUNNING" and share and any(share.glob("images/*/*.png")):
                met.append(number)
        return bool(met)

    until(look, what="a share is at work")
    return met[0]
