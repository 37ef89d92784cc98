"""Small runs of the real command for the tests."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from tests.distributed.processes import run_module, run_ranks

TINY = """
student: {arch: vit_custom, patch_size: 8, embed_dim: 32, depth: 2, num_heads: 2, layerscale: 1.0, drop_path_rate: 0.2}
crops: {global_crops_size: 32, local_crops_size: 16, local_crops_number: 2}
dino: {head_n_prototypes: 64, head_hidden_dim: 32, head_bottleneck_dim: 16}
ibot: {head_n_prototypes: 64, head_hidden_dim: 32, head_bottleneck_dim: 16}
train: {centering: sinkhorn_knopp, batch_size_per_gpu: 4, num_workers: 1}
optim: {total_steps: 12, warmup_steps: 2, freeze_last_layer_steps: 1, base_lr: 0.005}
teacher: {warmup_teacher_temp_steps: 4}
data: {mean: [0.53, 0.53, 0.53], std: [0.26, 0.26, 0.26]}
checkpoint: {every_steps: 4, asynchronous: false}
logging: {every_steps: 1}
evaluation: {eval_period_iterations: 0}
runtime: {precision: fp32, device: cpu}
"""


def write_pictures(folder: Path, *, count: int = 24) -> Path:
    """Grey pictures with a bright blob each, so that they can be told apart."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for i in range(count):
        picture = rng.normal(90, 12, (64, 56))
        picture = cv2.circle(
            picture, tuple(int(v) for v in rng.integers(10, 46, 2)), int(rng.integers(5, 15)), 200.0, -1
        )
        cv2.imwrite(str(folder / f"film_{i:02d}.png"), np.clip(picture, 0, 255).astype(np.uint8))
    return folder


def write_tiny_config(folder: Path) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(TINY)
    return path


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1"}


def train_words(config: Path, pictures: Path, run: Path, *overrides: str) -> list[str]:
    return [
        "train",
        "--config-file",
        str(config),
        "--output-dir",
        str(run),
        f"train.dataset_path={pictures}",
        *overrides,
    ]


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "dinov2", *words]


def torchrun(size: int, *words: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={size}",
        "-m",
        "dinov2",
        *words,
    ]


def finish(words: list[str], *, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Runs a `command` or `torchrun` to its end."""
    assert words[:2] == [sys.executable, "-m"]
    (done,) = run_module(words[2:], seconds=300, environs=[environment()])
    _check_code(done, code)
    return done


def finish_together(size: int, words: list[str], *, code: int = 0) -> list[subprocess.CompletedProcess[str]]:
    """Runs a `command` on so many processes to its end, as torchrun would; each must end with `code`."""
    assert words[:2] == [sys.executable, "-m"]
    ranks = run_ranks(words[2:], size=size, seconds=300)
    for done in ranks:
        _check_code(done, code)
    return ranks


def _check_code(done: subprocess.CompletedProcess[str], code: int) -> None:
    assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "training_metrics.json").read_text().splitlines()]
