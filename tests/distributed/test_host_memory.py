import os
import subprocess
import sys

import pytest
import torch

from dinov2.distributed import keep_freed_memory
from dinov2.distributed.host_memory import OF_USERS

CPU = torch.device("cpu")
PROGRAM = """
import argparse, resource, sys
import torch
from dinov2.cli.eval.options import device_of
from dinov2.distributed import keep_freed_memory, open_world

def world(device):
    with open_world({}, device=device):
        pass

PREPARE = {
    "nothing": lambda: None,
    "kept": lambda: keep_freed_memory(torch.device("cpu")),
    "world": lambda: world("cpu"),
    "command": lambda: device_of(argparse.Namespace(device="cpu")),
}
PREPARE[sys.argv[1]]()
for step in range(8):
    if step == 3:  # the first are new memory whatever is done, until every size has found its place
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    del (tensors := [torch.ones(length) for length in (2**24, 2**22, 2**18)])[:]
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(how: str) -> int:
    """Of making and freeing the same tensors a few times, in a process that did `how` at its start."""
    environ = {name: value for name, value in os.environ.items() if name not in (*OF_USERS, "GLIBC_TUNABLES")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True, env=environ, timeout=300
    )
    return int(done.stdout)


@pytest.fixture(scope="module")
def by_itself() -> int:
    return page_faults("nothing")


@pytest.mark.parametrize("how", ["kept", "world", "command"])
def test_freed_memory_is_used_again_without_new_pages(how: str, by_itself: int) -> None:
    assert page_faults(how) * 10 < by_itself


@pytest.mark.parametrize(
    "environ", [*({name: "1000"} for name in OF_USERS), {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}]
)
def test_settings_of_the_user_are_left_alone(environ: dict[str, str]) -> None:
    assert not keep_freed_memory(CPU, environ=environ)


def test_other_tunables_of_the_user_do_not_stand_in_the_way() -> None:
    assert keep_freed_memory(CPU, environ={"GLIBC_TUNABLES": "glibc.pthread.rseq=0", "MALLOC_TRIM_THRESHOLD_": ""})


def test_a_process_that_computes_on_a_gpu_is_left_as_it_is() -> None:
    assert not keep_freed_memory(torch.device("cuda", 0), environ={})


@pytest.mark.skipif(sys.platform != "linux", reason="only there is a C library to be told")
def test_where_the_c_library_is_another_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other:
        """No glibc: it has a `mallopt` of its own, with other numbers."""

        def mallopt(self, *_: int) -> int:
            raise AssertionError("asked")

    monkeypatch.setattr("ctypes.CDLL", lambda _: Other())
    assert not keep_freed_memory(CPU, environ={})
