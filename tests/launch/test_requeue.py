import pytest

from dinov2.errors import LaunchError
from dinov2.launch import job_in_slurm, puts_back, requeue


@pytest.fixture(autouse=True)
def _outside(monkeypatch):
    for name in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(name, raising=False)


def test_outside_of_slurm_there_is_no_job_and_nothing_to_put_back():
    assert job_in_slurm() is None
    assert not any(puts_back(name) for name in (None, "SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2"))
    with pytest.raises(LaunchError, match="no SLURM job"):
        requeue()


def test_a_task_of_an_array_has_a_name_of_its_own(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    assert job_in_slurm() == "12"
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "12")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    assert job_in_slurm() == "12_3", "12 alone would be the whole array"


def test_a_signal_of_the_cluster_means_later_again_and_ctrl_c_does_not(monkeypatch, tmp_path):
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("PATH", str(tmp_path))  # no SLURM to ask, so nobody says that the job is being pushed out
    assert [name for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2") if puts_back(name)] == ["SIGUSR1", "SIGUSR2"]


def test_where_slurm_cannot_be_asked_the_message_says_that_everything_is_saved(monkeypatch, tmp_path):
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("PATH", str(tmp_path))
    for _ in range(2):  # a refusal is not remembered
        with pytest.raises(LaunchError, match=r"job 12 back into the queue.*scontrol.*Everything is saved"):
            requeue()
