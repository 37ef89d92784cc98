"""Training on a real SLURM of two nodes: started in every way, stopped in every way, and the numbers are those of a run
that nobody stopped.

These tests run where `sinfo` answers; `eval "$(bash scripts/local_slurm.sh start)"` makes one.
"""

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from .runs import command, environment, finish, torchrun, train_words, write_pictures, write_tiny_config
from .slurm import job_of, needs_slurm, queue_of, start_at_once, until

pytestmark = needs_slurm
ROOT = Path(__file__).parents[2]
STEPS = ("optim.total_steps=60", "checkpoint.every_steps=1000")
INTERRUPTED_FROM = 5  # steps that a run has made when something happens to it


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # jobs start in the folder that they were submitted in


@dataclass(frozen=True)
class Case:
    """What all runs here have in common, and the one that nobody stopped: two processes, as all others."""

    config: Path
    pictures: Path
    whole: Path

    def words(self, run: Path, *overrides: str) -> list[str]:
        return train_words(self.config, self.pictures, run, *STEPS, *overrides)[1:]

    def assert_equal(self, run: Path) -> None:
        ours, plain = (path / "training_metrics.json" for path in (run, self.whole))
        assert ours.read_bytes() == plain.read_bytes()


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    home = tmp_path_factory.mktemp("case")
    case = Case(write_tiny_config(home), write_pictures(home / "pictures"), home / "whole")
    finish(torchrun(2, "train", *case.words(case.whole)))
    return case


def sbatch(script: str, *words: str, log: Path, options: tuple[str, ...] = ()) -> str:
    """The id of a job that runs one of the shipped scripts."""
    given = ["--parsable", "--cpus-per-task=1", f"--output={log}", *options, str(ROOT / "slurm" / script), *words]
    # MASTER_ADDR: the two nodes of a local SLURM have names that no network knows
    variables = {"DINOV2_VENV": str(Path(sys.executable).parents[1]), "MASTER_ADDR": "127.0.0.1"}
    done = subprocess.run(
        ["sbatch", *given], env=environment() | variables, capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.strip()


def steps_of(run: Path) -> int:
    metrics = run / "training_metrics.json"
    return len(metrics.read_text().splitlines()) if metrics.is_file() else 0


def in_the_middle(run: Path) -> None:
    until(lambda: steps_of(run) >= INTERRUPTED_FROM, what=f"{run} has made {INTERRUPTED_FROM} steps")


def until_ended(job: str) -> None:
    until(lambda: not queue_of(job), what=f"job {job} has ended", seconds=180)


def assert_was_stopped_by(name: str, *, log: Path) -> None:
    said = log.read_text()
    assert f"stopped by {name}" in said, said[-3000:]
    assert "is whole" in said
    assert "continuing from" in said, said[-3000:]


def test_torchrun_over_two_nodes_pushed_out_by_an_urgent_job_comes_back_and_goes_on(case: Case, tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    if "urgent" not in subprocess.run(["sinfo", "-h", "-o", "%R"], capture_output=True, text=True, check=True).stdout:
        pytest.skip("this SLURM has no partition `urgent`; scripts/local_slurm.sh makes one")
    options = ("--nodes=2", "--partition=all")
    job = sbatch("train_torchrun.sbatch", *case.words(run), log=log, options=options)
    in_the_middle(run)
    urgent = ["--parsable", "--partition=urgent", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 1"]
    subprocess.run(["sbatch", *urgent], check=True, capture_output=True, cwd=tmp_path)
    start_at_once(job)
    until_ended(job)
    assert_was_stopped_by("SIGTERM", log=log)
    case.assert_equal(run)


def test_srun_over_two_nodes_saves_when_it_is_cancelled_and_the_same_line_goes_on(case: Case, tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    options = ("--nodes=2", "--ntasks-per-node=1", "--open-mode=append")
    job = sbatch("train_srun.sbatch", *case.words(run), log=log, options=options)
    in_the_middle(run)
    subprocess.run(["scancel", job], check=True)
    until_ended(job)
    made = steps_of(run)
    assert made < 60
    assert [path.name for path in (run / "checkpoints").iterdir() if path.name.isdecimal()] == [str(made)]
    until_ended(sbatch("train_srun.sbatch", *case.words(run), log=log, options=options))
    assert_was_stopped_by("SIGTERM", log=log)
    case.assert_equal(run)


def test_a_submitted_training_whose_time_is_over_saves_comes_back_and_goes_on(case: Case, tmp_path: Path) -> None:
    """--follow tells all of it, and the script is the one that --dry-run showed."""
    run = tmp_path / "run"
    options = ["--nodes", "2", "--processes-per-node", "1", "--cpus-per-task", "1", "--time", "10"]
    words = ["submit", "train", *options]
    shown = finish(command(*words, "--dry-run", "--", *case.words(run))).stdout
    assert not run.exists()
    following = subprocess.Popen(
        command(*words, "--follow", "--", *case.words(run)),
        stdout=(tmp_path / "out").open("w"),
        stderr=(tmp_path / "err").open("w"),
        env=environment(),
    )
    until(lambda: "\njob " in (tmp_path / "out").read_text(), what="it is submitted")
    job = job_of((tmp_path / "out").read_text())
    in_the_middle(run)
    subprocess.run(["scancel", "--signal=USR2", job], check=True)  # what --time sends before its end
    start_at_once(job)
    code = following.wait(timeout=240)
    out, told = (tmp_path / "out").read_text(), (tmp_path / "err").read_text()
    assert code == 0, out + told
    case.assert_equal(run)
    submitted = (run / "logs" / "jobs" / "0001" / f"{job}_submission.sh").read_text()
    assert submitted.strip() in shown
    log = run / "logs" / "jobs" / "0001" / f"{job}_0_log.out"
    assert_was_stopped_by("SIGUSR2", log=log)
    assert log.read_text() in out
    assert f"job {job} was put back into the queue" in told
    assert log.read_text().count("is back in the queue") == 1
    assert "is finished" in finish(command(*words, "--", *case.words(run))).stdout


def test_a_sweep_is_an_array_whose_runs_are_those_of_the_plain_command(case: Case, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    options = ["--processes-per-node", "2", "--cpus-per-task", "1", "--sweep", "train.seed=0,1", "--wait"]
    submit = command("submit", "train", *options, "--", *case.words(sweep))
    done = finish(submit)
    case.assert_equal(sweep / "seed=0")
    assert (sweep / "seed=1" / "training_metrics.json").read_bytes() != (
        case.whole / "training_metrics.json"
    ).read_bytes()
    reports = json.loads(finish(command("runs", str(sweep), "--json")).stdout)
    assert [(Path(one["run"]).name, one["state"], one["settings"]) for one in reports] == [
        ("seed=0", "finished", {"train.seed": 0}),
        ("seed=1", "finished", {"train.seed": 1}),
    ]
    assert "seed=1" in done.stdout
    shutil.rmtree(sweep / "seed=1" / "checkpoints")  # what is missing is done again, and nothing else
    again = finish([*submit[:5], "--dry-run", *submit[5:]]).stdout
    assert "1 finished, 1 to do" in again
    assert f"--output-dir {sweep}/seed=1" in again
    assert f"--output-dir {sweep}/seed=0" not in again


def test_a_sweep_by_hand_takes_its_settings_from_the_lines_of_a_file(case: Case, tmp_path: Path) -> None:
    settings, short = tmp_path / "settings.txt", ("optim.total_steps=3", "train.num_workers=0")
    settings.write_text("train.seed=0\ntrain.seed=1 'crops.local_crops_scale=[0.1, 0.3]'\n")
    words = [str(settings), str(tmp_path / "sweep"), "--config-file", str(case.config)]
    words += [f"train.dataset_path={case.pictures}", *short]
    until_ended(sbatch("train_array.sbatch", *words, log=tmp_path / "log.%a", options=("--array=1-2",)))
    reports = json.loads(finish(command("runs", str(tmp_path / "sweep"), "--json")).stdout)
    logs = "".join(path.read_text() for path in tmp_path.glob("log.*"))
    assert [(one["state"], one["step"]) for one in reports] == [("finished", 3), ("finished", 3)], logs
    assert reports[1]["settings"] == {"train.seed": 1, "crops.local_crops_scale": [0.1, 0.3]}


def test_a_second_submission_into_a_folder_whose_job_is_queued_is_refused(case: Case, tmp_path: Path) -> None:
    words = ["submit", "train", "--processes-per-node", "1", "--slurm", "begin=now+1hour", "--", *case.words(tmp_path)]
    job = job_of(finish(command(*words)).stdout)
    try:
        assert f"job {job}" in finish(command(*words), code=2).stderr
        report = json.loads(finish(command("runs", str(tmp_path), "--json")).stdout)[0]
        assert (report["state"], report["words"]) == ("waiting", "BeginTime")
    finally:
        subprocess.run(["scancel", job], check=True)
