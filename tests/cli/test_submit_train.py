import contextlib
import io
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
from submitit.core.utils import DelayedSubmission

from dinov2.checkpoint.reading import steps_in
from dinov2.cli import main
from dinov2.train.loggers.loggers import LOGGERS
from tests.integration.runs import metrics, train_words, write_pictures, write_tiny_config

ROOT = Path(__file__).parents[2]
ONE = ("--processes-per-node", "1")
TWO_FOLLOWED = ("--cluster", "local", "--processes-per-node", "2", "--follow")
SHORT = (
    "optim.total_steps=3", "train.num_workers=0", "checkpoint={self_test: false, every_steps: 100}",
    "monitors.every_steps=0",
)  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def _in_the_repository() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)  # processes start in the folder that they were submitted in
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_config(tmp_path_factory.mktemp("config"))


class Submission:
    """The words of a submission, with a run folder of the test's own."""

    def __init__(self, config: Path, pictures: Path, run: Path) -> None:
        self.config, self.pictures, self.run = config, pictures, run

    def words(self, *options: str, overrides: tuple[str, ...] = (), more: tuple[str, ...] = ()) -> list[str]:
        given = train_words(self.config, self.pictures, self.run, *overrides)[1:]
        return ["submit", "train", *options, "--", *more, *given]


@pytest.fixture
def submission(config: Path, pictures: Path, tmp_path: Path) -> Submission:
    return Submission(config, pictures, tmp_path / "run")


def test_a_dry_run_shows_script_and_command_and_makes_nothing(submission, capsys):
    options = ("--nodes", "2", "--gpus-per-node", "4", "--partition", "gpu", "--slurm", "constraint=ib", "exclusive")
    assert main(submission.words(*options, "--setup", "module load cuda", "--srun", "mpi=none", "--dry-run")) == 0
    said = capsys.readouterr().out
    for line in ("#SBATCH --partition=gpu", "#SBATCH --exclusive", "#SBATCH --constraint=ib", "module load cuda"):
        assert f"\n{line}\n" in said
    assert "--cpus-per-task=2" in said, "train.num_workers is 1"
    assert " --mpi=none " in said
    assert f"task 1    dinov2 train --config-file {submission.run}/logs/jobs/tiny-" in said
    assert said.rstrip().endswith("nothing was submitted")
    assert not submission.run.exists()


def test_the_number_of_processes_must_be_said_and_is_that_of_the_gpus(submission, capsys):
    assert main(submission.words()) == 2
    assert "--gpus-per-node" in capsys.readouterr().err
    assert main(submission.words("--gpus-per-node", "4", "--processes-per-node", "2")) == 2
    assert "a process for each of 4 GPUs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--partition", "gpu", "--cpus-per-gpu", "4"), "--partition, --cpus-per-gpu"),
        (("--nodes", "2"), "this one machine"),
        (("--sweep", "train.seed=0,1", "--follow"), "--wait"),
    ],
)
def test_what_cannot_be_done_is_refused_with_what_can(submission, capsys, options, message):
    assert main(submission.words(*ONE, "--cluster", "local", *options)) == 2
    assert message in capsys.readouterr().err
    assert not submission.run.exists()


def test_the_faults_of_all_runs_are_told_together_and_shared_ones_once(submission, capsys):
    sweep = ("--sweep", "optim.base_lr=1e-4,x", "crops.global_crops_size=32,31")
    assert main(submission.words(*ONE, *sweep, "--dry-run")) == 2
    said = capsys.readouterr().err
    assert "2 faults; nothing was submitted" in said
    assert said.count("not a multiple of student.patch_size") == 1
    assert "base_lr=x,global_crops_size=32, base_lr=x,global_crops_size=31: optim.base_lr" in said


def test_data_weights_and_a_batch_that_cannot_be_divided_are_found_before_anything_is_submitted(submission, capsys):
    wrong = ("train.dataset_path=/nowhere/pictures", "student.pretrained_weights=/nowhere/weights.pth")
    wrong += ("train.global_batch_size=10",)
    assert main(submission.words("--processes-per-node", "4", "--dry-run", overrides=wrong)) == 2
    said = capsys.readouterr().err
    assert "3 faults" in said
    for part in ("/nowhere/pictures", "/nowhere/weights.pth", "train.global_batch_size = 10"):
        assert part in said


def test_a_logger_whose_package_is_absent_is_told_before_a_job_waits_for_nothing(submission, capsys, monkeypatch):
    monkeypatch.setattr(LOGGERS["mlflow"][0], "MODULE", "mlflow_that_nobody_has")
    assert main(submission.words(*ONE, "--dry-run", overrides=("logging.loggers=[mlflow]",))) == 2
    assert "pip install 'dinov2[mlflow]'" in capsys.readouterr().err


def test_a_hub_id_is_no_missing_file_but_whoever_submits_is_told_that_it_is_not_here(
    submission, capsys, tmp_path, monkeypatch
):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    given = ("student.pretrained_weights=owner/tiny", "init_from.dino_head=heads/dino_head.safetensors")
    assert main(submission.words(*ONE, "--dry-run", overrides=given)) == 2
    assert "init_from.dino_head = heads/dino_head.safetensors: no such file or folder" in capsys.readouterr().err
    assert main(submission.words(*ONE, "--dry-run", overrides=given[:1])) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "taken for a model of the Hugging Face hub, and is not in this machine's cache" in said
    assert "hf download owner/tiny" in said
    snapshot = tmp_path / "hub" / "models--owner--tiny"
    (snapshot / "snapshots" / "abc").mkdir(parents=True)
    (snapshot / "refs").mkdir()
    (snapshot / "refs" / "main").write_text("abc")
    assert main(submission.words(*ONE, "--dry-run", overrides=given[:1])) == 0
    assert "Hugging Face" not in capsys.readouterr().err


@pytest.fixture(scope="module")
def followed(config: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Submission, str]:
    """A run on two processes that was followed to its end, and what was said meanwhile."""
    submission = Submission(config, pictures, tmp_path_factory.mktemp("followed") / "run")
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert main(submission.words(*TWO_FOLLOWED, overrides=SHORT)) == 0
    return submission, said.getvalue()


def test_a_run_on_two_processes_of_this_machine_is_followed_to_its_end(followed, capfd):
    submission, said = followed
    assert "2 process(es)" in said
    assert "done: 3 steps" in said
    assert [line["step"] for line in metrics(submission.run)] == [1, 2, 3]
    assert main(submission.words(*TWO_FOLLOWED, overrides=SHORT)) == 0
    again = capfd.readouterr().out
    assert "is finished" in again
    assert "nothing was submitted" in again
    other = (*SHORT, "optim.total_steps=9", "student.embed_dim=64")
    assert main(submission.words(*ONE, "--cluster", "local", overrides=other)) == 2
    assert "student.embed_dim: 32 in the checkpoint, 64 now" in capfd.readouterr().err


def test_a_run_that_is_stopped_here_saves_and_no_second_one_is_started_beside_it(submission, capfd):
    long = (*SHORT, "optim.total_steps=100000", "teacher.warmup_teacher_temp_steps=4")
    words = submission.words("--cluster", "local", *ONE, overrides=long)
    assert main(words) == 0
    said = capfd.readouterr().out
    until_step(submission.run, 3)
    assert main(words) == 2
    assert "a run is writing to this folder" in capfd.readouterr().err
    state = report_of(submission.run, capfd)
    assert (state["state"], state["total_steps"]) == ("running", 100000)
    subprocess.run(how_to_stop(said), check=True)
    log = next((submission.run / "logs" / "jobs" / "0001").glob("*_0_log.out"))
    wait_for(lambda: "is whole" in log.read_text())
    wait_for(lambda: report_of(submission.run, capfd)["state"] == "stopped")
    steps = steps_in(submission.run / "checkpoints")
    assert steps[-1] == metrics(submission.run)[-1]["step"]


def test_to_start_anew_is_done_once_at_the_submission_and_not_by_a_job_that_may_come_back(followed, submission, capfd):
    """The job trains from the first step, and what it was told is what it would be told again."""
    shutil.copytree(followed[0].run, submission.run)
    words = submission.words("--cluster", "local", *ONE, "--follow", overrides=SHORT, more=("--no-resume",))
    assert main(words) == 0
    assert "set aside once" in capfd.readouterr().out
    assert (submission.run / "superseded" / "1" / "training_metrics.json").is_file()
    assert steps_in(submission.run / "superseded" / "1" / "checkpoints") == [3]
    assert [line["step"] for line in metrics(submission.run)] == [1, 2, 3]
    (job,) = (submission.run / "logs" / "jobs").glob("*/*_submitted.pkl")
    told = DelayedSubmission.load(job).function.words
    assert str(submission.run) in told
    assert "--no-resume" not in told


def test_a_failed_run_is_named_with_its_log(submission, capfd):
    """A picture cannot be read, which nobody knows before the run does."""
    pictures = write_pictures(submission.run.parent / "own", count=8)
    (pictures / "film_03.png").write_bytes(b"not a picture")
    own = Submission(submission.config, pictures, submission.run)
    overrides = (*SHORT, "data.max_unreadable_share=0")
    assert main(own.words("--cluster", "local", *ONE, "--follow", overrides=overrides)) == 2
    assert "failed or was stopped; its log:" in capfd.readouterr().err
    state = report_of(submission.run, capfd)
    assert state["state"] == "failed"
    assert "film_03.png" in state["words"]


def how_to_stop(said: str) -> list[str]:
    return next(line for line in said.splitlines() if line.startswith("stop ")).split()[1:]


def report_of(run: Path, capfd) -> dict[str, Any]:
    capfd.readouterr()
    assert main(["runs", str(run), "--json"]) == 0
    (report,) = json.loads(capfd.readouterr().out)
    return report


def until_step(run: Path, step: int) -> None:
    wait_for(lambda: (run / "training_metrics.json").is_file() and len(metrics(run)) >= step)


def wait_for(holds) -> None:
    for _ in range(1200):
        if holds():
            return
        time.sleep(0.1)
    raise AssertionError("it did not come to that")
