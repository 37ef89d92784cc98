import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dinov2.checkpoint import environment as module
from dinov2.checkpoint.environment import PACKAGE, environment


def test_the_environment_says_what_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "orig_argv", ["dinov2", "train", "train.seed=3"])
    said = environment()
    assert json.loads(json.dumps(said)) == said
    assert said["torch"] == torch.__version__
    assert {"torch", "numpy", "safetensors"} <= said["dependencies"].keys()
    assert "pytest" not in said["dependencies"], "what only the tests need is left out"
    assert said["processes"] == 1
    assert "train train.seed=3" in said["command"]


@pytest.mark.skipif(not (PACKAGE.parent / ".git").exists(), reason="needs a checkout")
def test_in_a_checkout_the_commit_is_named_and_whether_files_differ() -> None:
    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=PACKAGE, capture_output=True, text=True, check=True).stdout.strip()

    assert environment()["git"]["commit"] == git("rev-parse", "HEAD")
    assert isinstance(environment()["git"]["changed"], bool)


def test_a_job_and_its_restarts_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)
    assert environment()["slurm"]["job"] == "17"
    assert environment()["slurm"]["restarts"] == "0"
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    assert environment()["slurm"]["restarts"] == "2"


def test_an_installed_copy_inside_another_repository_does_not_take_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    copy = tmp_path / "site-packages" / "dinov2"
    copy.mkdir(parents=True)
    monkeypatch.setattr(module, "PACKAGE", copy)
    module._code.cache_clear()
    try:
        assert "git" not in environment()
    finally:
        module._code.cache_clear()
