"""What each room of the doctor finds on a machine that is as it should be, and on one that is not."""

import json
import os
import stat
import sys
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement
from pydicom.uid import JPEG2000Lossless

from dinov2.config.load import load_config
from dinov2.doctor import TOPICS, choices, cluster, decoding, devices, examine, places, versions
from dinov2.preprocess.decode.decoders import ENCAPSULATED, SUPPORTED
from dinov2.ssl.precision import choose_precision
from dinov2.train.run import num_workers


def config(*overrides: str):
    return load_config(None, overrides=["train.dataset_path=x.parquet", *overrides]).config


def by_name(findings):
    return {finding.name: finding for finding in findings}


def program(folder, name: str, script: str) -> None:
    file = folder / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(file.stat().st_mode | stat.S_IEXEC)


def test_every_transfer_syntax_that_is_supported_is_read_here():
    (finding,) = decoding.examine(config())
    assert finding.verdict == "good"
    assert finding.value.startswith(f"{len(SUPPORTED)} of {len(SUPPORTED)} ")
    assert {str(syntax) for syntax in ENCAPSULATED} == set(json.loads(decoding.STREAMS.read_text()))


def test_a_decoder_that_gives_other_values_is_told(monkeypatch):
    from dinov2.preprocess.decode import decoders

    def wrong(*_):
        return decoding.ramp(bits=12).astype("<u2")[::-1].copy()

    monkeypatch.setattr(decoders, "DECODERS", {**decoders.DECODERS, JPEG2000Lossless: (wrong,)})
    summary, fault = decoding.examine(config())
    assert summary.value.startswith(f"{len(SUPPORTED) - 1} of ")
    assert (fault.verdict, fault.why) == ("absent", "values come out wrong")
    assert JPEG2000Lossless.name in fault.value
    assert fault.mend.startswith("pip install")


def test_the_libraries_here_are_those_the_package_was_tried_with():
    found = by_name(versions.examine(config()))
    assert found["torch"].verdict == "good"
    assert found["opencv-python-headless"].verdict == "good"
    assert not [one for one in found.values() if one.verdict == "broken"]


@pytest.mark.parametrize(
    ("requirement", "why"),
    [("no-such-library>=1", "it is required"), ("numpy<1", "tried with <1")],
)
def test_a_required_library_that_is_absent_or_old_is_broken_and_says_what_to_install(requirement, why):
    finding = versions._library(Requirement(requirement))
    assert finding.verdict == "broken"
    assert why in finding.why
    assert finding.mend == f"pip install '{requirement}'"


def test_a_library_that_is_there_and_does_not_load_is_broken(monkeypatch):
    monkeypatch.setitem(versions.IMPORTED_AS, "pyyaml", "no_module_of_that_name")
    finding = versions._library(Requirement("pyyaml>=6"))
    assert finding.verdict == "broken"
    assert "no_module_of_that_name" in finding.why


def test_an_absent_extra_is_told_with_its_use_and_its_command():
    finding = versions._extra("slurm", (Requirement("no-such-library>=1"),))
    assert (finding.verdict, finding.mend) == ("absent", "pip install 'dinov2[slurm]'")
    assert "dinov2 submit" in finding.why


def test_auto_is_told_as_the_training_chooses_it():
    used = config("runtime.device=cpu")
    found = by_name(choices.examine(used))
    chosen = choose_precision(
        "auto",
        used.compute_precision,
        parts=("backbone", "dino_head"),
        device=devices.torch.device("cpu"),
        sharded=False,
    )
    assert (found["runtime.precision"].value, found["runtime.precision"].why) == (chosen.name, chosen.reason)
    assert found["runtime.compile"].value == "not compiled"
    assert found["loader"].value == f"{num_workers(used)} processes"


def test_attention_on_a_cpu_is_explicit_for_short_crops_in_half_precision_alone():
    short = by_name(choices.examine(config("runtime.device=cpu", "runtime.precision=bf16")))
    whole = by_name(choices.examine(config("runtime.device=cpu", "runtime.precision=fp32")))
    large = by_name(
        choices.examine(config("runtime.device=cpu", "runtime.precision=bf16", "crops.global_crops_size=512"))
    )
    assert short["runtime.attention"].value == "explicit"
    assert whole["runtime.attention"].value == "sdpa"
    assert large["runtime.attention"].value == "sdpa and explicit"


def test_what_a_training_would_refuse_is_broken_with_its_own_words():
    found = by_name(choices.examine(config("runtime.device=cpu", "runtime.attention=xformers")))
    assert found["runtime.attention"].verdict == "broken"
    assert "runtime.attention=sdpa" in found["runtime.attention"].why


def test_half_a_launch_is_broken(monkeypatch):
    monkeypatch.setenv("RANK", "0")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    (finding,) = choices.examine(config())
    assert finding.verdict == "broken"
    assert "WORLD_SIZE" in finding.why


def test_partitions_are_those_that_sinfo_names(tmp_path, monkeypatch):
    program(tmp_path, "sinfo", "echo 'gpu*|up|4|64|gpu:a100:4|2-00:00:00'; echo 'cpu|up|9|32|(null)|infinite'")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    found = by_name(cluster.examine(config()))
    assert found["partition gpu*"].value == "4 machine(s) of 64 cores, gpu:a100:4, at most 2-00:00:00, up"
    assert found["partition cpu"].value == "9 machine(s) of 32 cores, at most infinite, up"


def test_a_cluster_that_does_not_answer_is_told_in_its_first_line(tmp_path, monkeypatch):
    program(tmp_path, "sinfo", "echo 'sinfo: error: no controller' >&2; echo more >&2; exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    finding = by_name(cluster.examine(config()))["SLURM"]
    assert (finding.verdict, finding.why) == ("note", "sinfo: error: no controller")


def test_limits_of_a_container_are_read(tmp_path):
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    (tmp_path / "memory.max").write_text("2147483648\n")
    assert devices.core_quota(tmp_path) == 1.5
    assert devices.memory_limit(tmp_path) == 2 * 2**30
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert (devices.core_quota(tmp_path), devices.memory_limit(tmp_path)) == (None, None)
    assert (devices.core_quota(tmp_path / "none"), devices.memory_limit(tmp_path / "none")) == (None, None)


def test_a_gpu_that_torch_cannot_use_is_broken_unless_it_was_hidden(tmp_path, monkeypatch):
    if devices.torch.cuda.is_available():
        pytest.skip("there is a GPU, and torch uses it")
    program(tmp_path, "nvidia-smi", "echo 'NVIDIA H200, 570.1'")
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert by_name(devices.examine(config()))["GPU"].verdict == "broken"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    hidden = by_name(devices.examine(config()))["GPU"]
    assert (hidden.verdict, hidden.mend) == ("note", "unset CUDA_VISIBLE_DEVICES")


def test_little_shared_memory_is_told_with_what_to_do(monkeypatch):
    monkeypatch.setattr(places.shutil, "disk_usage", lambda _: SimpleNamespace(free=64 * 2**20))
    finding = by_name(places.examine(config()))["shared memory"]
    assert finding.verdict == "note"
    assert "train.num_workers=0" in finding.mend


def test_a_topic_whose_library_does_not_load_hides_no_other(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.distributed", None)  # as a torch without its shared objects
    monkeypatch.delitem(sys.modules, "dinov2.doctor.devices")
    found = examine(config("runtime.device=cpu"), say=lambda _: None)
    (devices_,) = [one for one in found if one.topic == "devices"]
    assert (devices_.verdict, devices_.value) == ("broken", "cannot be looked at")
    assert "torch.distributed" in devices_.why
    assert list(dict.fromkeys(one.topic for one in found)) == list(TOPICS)
    assert by_name(found)["DICOM"].verdict == "good"


def test_a_folder_that_may_not_be_written_to_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(places.os, "access", lambda *_: False)  # root may write anywhere
    monkeypatch.chdir(tmp_path)
    finding = by_name(places.examine(config()))["this folder"]
    assert (finding.verdict, finding.why) == ("note", "nothing can be written there")


def test_without_slurm_that_is_said_and_is_no_fault(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    finding = by_name(cluster.examine(config()))["SLURM"]
    assert finding.verdict == "good"
    assert "not on this machine" in finding.value
