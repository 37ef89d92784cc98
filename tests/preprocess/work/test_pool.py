import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace

import pytest

from dinov2.config.preprocess import Limits
from dinov2.preprocess.work import convert as convert_module
from dinov2.preprocess.work.pool import Allowance, Lost, run_tasks
from tests.preprocess.films import SMALL, convert, messages_of, rejects_of, rows_of, write_phantom
from tests.preprocess.work import faults

FREE = Allowance(seconds=60, memory_mb=0)


def answers(*words: str, allowance: Allowance = FREE, num_workers: int = 1) -> dict:
    return dict(run_tasks(faults.calculate, words, num_workers=num_workers, allowance=allowance))


def test_a_worker_that_dies_or_hangs_costs_the_task_it_was_at():
    kill, hang = "os.kill(os.getpid(), 9)", "time.sleep(600)"
    words = ("1 + 1", kill, "2 + 2", hang, "3 + 3", "4 + 4")
    found = answers(*words, allowance=Allowance(seconds=1.5, memory_mb=0), num_workers=2)
    assert found == {"1 + 1": 2, kill: Lost.DIED, "2 + 2": 4, hang: Lost.TIMED_OUT, "3 + 3": 6, "4 + 4": 8}


def test_a_slow_task_holds_up_no_other():
    slow, *quick = "time.sleep(1.5) or 1", "1 + 1", "2 + 2", "3 + 3", "4 + 4"
    order = [task for task, _ in run_tasks(faults.calculate, [slow, *quick], num_workers=2, allowance=FREE)]
    assert set(order[:4]) == set(quick)


def test_an_exception_of_a_task_is_raised_here():
    with pytest.raises(ZeroDivisionError):
        answers("1 + 1", "1 / 0")


def test_workers_have_one_thread_and_say_nothing(capfd):
    before = os.environ.get("OMP_NUM_THREADS")
    found = answers("os.environ['OMP_NUM_THREADS']", "os.write(2, b'SMITH^JOHN')", "os.write(1, b'SMITH^JOHN')")
    assert found["os.environ['OMP_NUM_THREADS']"] == "1"
    said = capfd.readouterr()
    assert "SMITH" not in said.out + said.err
    assert os.environ.get("OMP_NUM_THREADS") == before, "this process is left as it was"


def test_leaving_early_ends_the_workers():
    with closing(run_tasks(faults.calculate, ["os.getpid()"] * 50, num_workers=1, allowance=FREE)) as work:
        _, pid = next(work)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_parent_that_is_killed_leaves_no_worker_behind():
    program = (
        "from tests.preprocess.work import faults, test_pool\n"
        "if __name__ == '__main__':\n"
        "    words = ['os.getpid()'] * 9\n"
        "    work = test_pool.run_tasks(faults.calculate, words, num_workers=1, allowance=test_pool.FREE)\n"
        "    print(next(work)[1], flush=True)\n"
        "    input()\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    worker = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    patience = time.monotonic() + 20
    while time.monotonic() < patience:
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise AssertionError("the worker is still there")


def test_a_film_that_kills_crashes_hangs_or_eats_all_memory_costs_that_film(tmp_path, monkeypatch):
    monkeypatch.setattr(convert_module, "convert_file", faults.convert_or_fail)
    names = ("a", "kills", "b", "hangs", "c", "crashes", "d", "eats")
    for number, name in enumerate(names):
        write_phantom(tmp_path / f"films/{name}.dcm", number=number, seed=number)
    config = replace(SMALL, limits=Limits(seconds_per_file=4, memory_mb=2000))
    summary, _ = convert(tmp_path / "films", tmp_path / "out", config=config, num_workers=2)
    fatal = {"kills": "worker_died", "crashes": "worker_died", "hangs": "time_limit", "eats": "too_large"}
    assert rejects_of(tmp_path / "out") == {f"{name}.dcm": reason for name, reason in fatal.items()}
    assert [row["source"] for row in rows_of(tmp_path / "out")] == ["a.dcm", "b.dcm", "c.dcm", "d.dcm"]
    assert summary.num_faults == 4
    assert "took longer than 4 s" in messages_of(tmp_path / "out")["hangs.dcm"]
    monkeypatch.undo()
    _, outcomes = convert(tmp_path / "films", tmp_path / "out", num_workers=2)
    assert len(outcomes) == 4, "all of them are tried again: the limits have changed, and machines do fail"
    assert rejects_of(tmp_path / "out") == {}
