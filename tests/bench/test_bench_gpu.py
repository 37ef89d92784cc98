"""The script for a GPU: that it runs without one, that what it would say to a GPU is understood, and its table."""

import argparse
import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dinov2.bench import table
from dinov2.errors import ConfigError

SCRIPT = Path(__file__).parents[2] / "scripts" / "bench_gpu.sh"
PARTS = ("kernels", "step", "memory", "small", "large", "attention", "loader", "feed")
NINE_MINUTES = 540
RECORDER = '#!/usr/bin/env bash\n[ "$1" = -c ] || printf "%s\\n" "$*" >> "$RECORD"\n'


def start(*words: str, python: str = sys.executable, **more: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHON": python, "OMP_NUM_THREADS": "1"} | more
    return subprocess.run(["bash", SCRIPT, *words], env=environment, capture_output=True, text=True, check=False)


def test_a_dry_run_measures_on_the_cpu_and_ends_with_a_table(tmp_path: Path) -> None:
    ran = start("--dry-run", str(tmp_path / "out"), "attention", "feed")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    markdown = (tmp_path / "out" / "table.md").read_text()
    assert markdown.strip() in ran.stdout
    assert "| attention | vit_small, batch 2, bf16, ours (attention sdpa, eager) |" in markdown
    assert "| feed | a training of 2 steps fed by 1 workers |" in markdown
    assert "waits for data" in markdown
    assert "cannot run: runtime.attention=varlen has no kernel for the CPU |" in markdown
    assert json.loads((tmp_path / "out" / "feed.json").read_text())["machine"]["torch"]


@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_every_part_says_words_that_its_benchmark_understands(tmp_path: Path, dry: list[str]) -> None:
    recorder = tmp_path / "python"
    recorder.write_text(RECORDER)
    recorder.chmod(0o755)
    ran = start(*dry, str(tmp_path / "out"), python=str(recorder), RECORD=str(tmp_path / "said"))
    assert ran.returncode == 0, ran.stderr
    said = [line.split() for line in (tmp_path / "said").read_text().splitlines()]
    assert [Path(words[-1]).stem for words in said[:-1]] == list(PARTS)
    for flag, package, bench, subject, *words in said:
        assert (flag, package, bench) == ("-m", "dinov2", "bench")
        parser = argparse.ArgumentParser()
        parser.add_argument("--json", type=Path)
        importlib.import_module(f"dinov2.bench.{subject}").add_arguments(parser)
        parser.parse_args(words)
    limits = [int(number) for number in re.findall(r"\(at most (\d+) s\)", ran.stdout)]
    assert len(limits) == len(PARTS)
    if not dry:
        assert sum(limits) < NINE_MINUTES


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dry"], "unknown option --dry"),
        (["--dry-run", "OUT", "nonsense"], "there is no part nonsense; expected some of: kernels step"),
        ([], "torch finds no GPU here"),
    ],
)
def test_a_mistake_is_told_before_anything_is_written(tmp_path: Path, words: list[str], message: str) -> None:
    ran = start(*(str(tmp_path / "out") if word == "OUT" else word for word in words), CUDA_VISIBLE_DEVICES="")
    assert ran.returncode == 2
    assert message in ran.stderr
    assert not (tmp_path / "out").exists()


def test_a_part_that_failed_is_a_row_that_says_why(tmp_path: Path) -> None:
    (tmp_path / "step.status").write_text("124 120 120\n")
    (tmp_path / "loader.status").write_text("2 3 35\n")
    (tmp_path / "loader.log").write_text("drawing\ndinov2 bench: no such folder | anywhere\n")
    result = table.run(argparse.Namespace(folder=tmp_path))
    assert "| step | not measured | stopped at its limit of 120 s |  |  |" in result["markdown"]
    assert (
        "| loader | not measured | exit code 2 after 3 s: dinov2 bench: no such folder / anywhere |"
        in result["markdown"]
    )
    assert (tmp_path / "table.md").read_text() == result["markdown"]


def test_a_folder_without_measurements_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"run `bash scripts/bench_gpu\.sh"):
        table.run(argparse.Namespace(folder=tmp_path))
