import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dinov2.errors import LaunchError
from dinov2.launch.task import STOPPED, Task

from .commands import command

RUN = "import pickle, sys; pickle.load(open(sys.argv[1], 'rb'))()"


@pytest.fixture(autouse=True)
def _own_signals_and_umask():
    before, umask = signal.getsignal(signal.SIGTERM), os.umask(0o022)
    yield
    signal.signal(signal.SIGTERM, before)
    os.umask(umask)


def test_an_exit_code_other_than_0_marks_the_task_as_failed():
    Task(command, ("end", "0"), 0o022)()
    with pytest.raises(LaunchError, match="exit code 2"):
        Task(command, ("end", "2"), 0o022)()


def test_files_of_a_task_are_made_under_the_users_own_umask(tmp_path):
    Task(command, ("write", str(tmp_path / "open")), 0o022)()
    Task(command, ("write", str(tmp_path / "closed")), 0o077)()
    assert (tmp_path / "open").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "closed").stat().st_mode & 0o777 == 0o600


def test_what_is_put_back_into_the_queue_is_the_same_task():
    task = Task(command, ("end", "0"), 0o022)
    assert task.checkpoint().function == task


def test_a_task_that_is_told_to_stop_ends_in_good_order_and_is_not_taken_for_finished(tmp_path):
    task, marker = tmp_path / "task.pkl", tmp_path / "marker"
    task.write_bytes(pickle.dumps(Task(command, ("sleep", str(marker)), 0o022)))
    process = subprocess.Popen([sys.executable, "-c", RUN, str(task)], env=os.environ | {"PYTHONPATH": str(Path.cwd())})
    _wait_for(marker)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) == STOPPED
    assert marker.read_text() == "ended in good order"


def _wait_for(path: Path) -> None:
    for _ in range(600):
        if path.exists() and path.read_text():
            return
        time.sleep(0.05)
    raise AssertionError(f"{path.name} did not appear")
