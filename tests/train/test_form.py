from dataclasses import replace

import pytest
import torch

from dinov2.config.schema import Runtime
from dinov2.errors import ConfigError
from dinov2.train.form import choose_form

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def test_on_a_cpu_blocks_are_compiled_only_when_asked_for() -> None:
    assert not choose_form(Runtime(), device=CPU).compiled
    assert not choose_form(Runtime(compile="never"), device=CPU).compiled
    assert choose_form(Runtime(compile="always"), device=CPU).compiled


def test_on_a_gpu_blocks_are_compiled_where_triton_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for found in (object(), None):
        monkeypatch.setattr("dinov2.train.form.find_spec", lambda _, found=found: found)
        form = choose_form(Runtime(), device=GPU)
        assert form.compiled == (found is not None)
        assert form.reason == ("auto: on a GPU" if found else "auto: Triton is not installed")


def test_xformers_is_not_compiled_and_asking_for_both_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dinov2.train.form.find_spec", lambda _: object())
    runtime = Runtime(attention="xformers")
    assert not choose_form(runtime, device=GPU).compiled
    with pytest.raises(ConfigError, match=r"compile=always: the kernels of xformers .*runtime\.compile=never"):
        choose_form(replace(runtime, compile="always"), device=GPU)


@pytest.mark.parametrize("name", ["xformers", "varlen"])
def test_a_kernel_for_gpus_is_refused_on_a_cpu_before_anything_is_built(name: str) -> None:
    with pytest.raises(ConfigError, match=f"attention={name} has no kernel for the CPU"):
        choose_form(Runtime(attention=name), device=CPU)


def test_compiling_without_a_compiler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dinov2.train.form.shutil.which", lambda _: None)
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ConfigError, match=r"no C\+\+ compiler \(g\+\+\) is installed"):
        choose_form(Runtime(compile="always"), device=CPU)
