"""The folder of a long run that never was: as many logged steps, looks and films as are asked for.

In: counts. Out: a folder with everything that `dinov2 report` reads: numbers that look like a training's, with spikes,
looks at films whose patches come apart, a configuration and a log. Only for measuring and testing the page.

Legend: F films, h x w grid of patches, K neighbours.
"""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import yaml  # type: ignore[import-untyped]
from numpy.typing import NDArray

from dinov2.config import Config
from dinov2.looks import Films, Look, write_films, write_look

PROTOTYPES = 65_536
NEIGHBOURS = 5
MONITORED = 64  # pictures that films and neighbours are of
THUMBNAIL = 128
SPIKES = 12
LABELS = ("", "Effusion", "Nodule", "Cardiomegaly")


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much there is of everything."""

    num_steps: int = 100_000
    every: int = 1  # steps from line to line
    num_looks: int = 64
    num_films: int = 12
    grid: int = 37  # patches a side: 518 px of patch 14
    seed: int = 0


def write_run(folder: Path, *, size: Size) -> Path:
    """Writes the folder; gives it back."""
    rng = np.random.default_rng(size.seed)
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    config = asdict(Config())
    config["optim"]["total_steps"] = size.num_steps
    config["monitors"]["every_steps"] = max(1, size.num_steps // max(1, size.num_looks))
    (folder / "config.yaml").write_text(yaml.safe_dump(_plain(config), sort_keys=False))
    steps = np.arange(size.every, size.num_steps + 1, size.every)
    looks = np.unique(
        np.linspace(0, size.num_steps, size.num_looks + 1).round().astype(int)[1:] // size.every * size.every
    )
    _write_lines(folder / "training_metrics.json", steps, _metrics(steps, rng), seldom=_monitored(looks, size, rng))
    _write_lines(folder / "logs" / "timing.json", steps, _timing(steps, rng), seldom={})
    _write_looks(folder, looks, size=size, rng=rng)
    return folder


def _metrics(steps: NDArray[np.int64], rng: np.random.Generator) -> dict[str, NDArray[np.float64]]:
    share, uniform = steps / steps[-1], math.log(PROTOTYPES)
    noise = rng.normal(0, 0.05, (4, len(steps)))
    spikes = np.zeros(len(steps))
    spikes[rng.choice(len(steps), min(SPIKES, len(steps)), replace=False)] = 30.0
    fall = np.exp(-6 * share)
    numbers = {
        "dino_global_cross_entropy": uniform * (0.55 + 0.45 * fall) + noise[0],
        "dino_local_cross_entropy": uniform * (0.6 + 0.4 * fall) + noise[1],
        "ibot_cross_entropy": uniform * (0.4 + 0.6 * fall) + noise[2],
        "koleo_loss": -0.8 + fall + noise[3] / 5,
        "teacher_entropy": uniform * (0.3 + 0.6 * fall) + noise[3],
        "teacher_marginal_entropy": uniform * (0.97 - 0.05 * fall) + noise[0] / 5,
        "grad_norm_backbone": 0.4 + fall + np.abs(noise[1]) + spikes,
        "grad_norm_dino_head": 0.2 + fall / 2 + np.abs(noise[2]),
        "lr": 2e-4 * np.minimum(1, share / 0.1) * (1 + np.cos(math.pi * share)) + 1e-6,
        "last_layer_lr": 2e-4 * np.minimum(1, share / 0.1) * (1 + np.cos(math.pi * share)) + 1e-6,
        "wd": 0.4 - 0.18 * (1 + np.cos(math.pi * share)),
        "mom": 1 - 0.004 * (1 + np.cos(math.pi * share)),
        "teacher_temp": np.minimum(0.07, 0.04 + 0.1 * share),
        "loss_scale": np.full(len(steps), 1.0),
        "skipped": np.zeros(len(steps)),
        "nonfinite_steps": (spikes > 0).cumsum() // 4,
        "pictures_seen": steps * 640.0,
        "unreadable_files": np.zeros(len(steps)),
    }
    entropies = [numbers[name] for name in list(numbers)[:3]]
    return {"total_loss": np.sum(entropies, axis=0) * 0.8} | numbers


def _timing(steps: NDArray[np.int64], rng: np.random.Generator) -> dict[str, NDArray[np.float64]]:
    seconds = 0.9 + 0.05 * np.abs(rng.normal(size=len(steps)))
    wait = 0.02 * np.abs(rng.normal(size=len(steps)))
    return {
        "seconds_per_step": seconds,
        "data_wait_seconds": wait,
        "pictures_per_second": 640 / seconds,
        "seconds_left": (steps[-1] - steps) * seconds,
    }


def _monitored(looks: NDArray[np.int64], size: Size, rng: np.random.Generator) -> dict[int, dict[str, float]]:
    found = {}
    for step in looks.tolist():
        rise, noise = 1 - math.exp(-5 * step / size.num_steps), rng.normal(0, 0.004, 4)
        found[step] = {
            "knn/val/macro_auroc": 0.6 + 0.22 * rise + noise[0],
            "linear/val/macro_auroc": 0.63 + 0.23 * rise + noise[1],
            **{f"linear/val/auroc/{name}": 0.6 + 0.25 * rise + noise[2] for name in LABELS[1:]},
            "monitor/rankme": 40 + 420 * rise + 100 * noise[3],
            "monitor/effective_dimension": 8 + 60 * rise,
            "monitor/mean_cosine": 0.7 - 0.45 * rise,
            "monitor/patch_smoothness": 0.1 + 0.4 * rise,
            "monitor/teacher_entropy": math.log(PROTOTYPES) * (0.9 - 0.5 * rise),
            "monitor/teacher_marginal_entropy": 7.0 + 0.5 * rise,
        }
    return found


def _write_lines(
    path: Path,
    steps: NDArray[np.int64],
    numbers: dict[str, NDArray[np.float64]],
    *,
    seldom: dict[int, dict[str, float]],
) -> None:
    names, rows = list(numbers), np.stack(list(numbers.values()), axis=1)
    with path.open("w") as stream:
        for step, row in zip(steps.tolist(), rows.tolist(), strict=True):
            line = {"step": step} | dict(zip(names, row, strict=True)) | seldom.get(step, {})
            stream.write(json.dumps(line) + "\n")


def _write_looks(folder: Path, looks: NDArray[np.int64], *, size: Size, rng: np.random.Generator) -> None:
    if not size.num_films or not len(looks):
        return
    films, thumbnails = size.num_films, [_film(rng) for _ in range(MONITORED)]
    labels = tuple(LABELS[row % len(LABELS)] for row in range(MONITORED))
    names = tuple(f"{row:016x}" for row in range(MONITORED))
    write_films(
        folder,
        Films(
            thumbnails=np.stack(thumbnails[:films]),
            image_ids=names[:films],
            rows=np.arange(films, dtype=np.int32),
            monitored_ids=names,
            monitored_labels=labels,
        ),
    )
    masks = rng.random((films, size.grid, size.grid)) < 0.35
    for step in looks.tolist():
        rise = 1 - math.exp(-5 * step / size.num_steps)
        rows = rng.integers(films, MONITORED, (films, NEIGHBOURS)).astype(np.int32)
        write_look(
            folder,
            Look(
                step=step,
                grid=(size.grid, size.grid),
                colours=_colours(films, size.grid, rise=rise, rng=rng),
                attention=_levels(rng.random((films, size.grid, size.grid)) ** (1 + 4 * rise)),
                masks=masks,
                agreement=np.where(masks, _levels(rise * rng.random(masks.shape) ** 0.5), 0).astype(np.uint8),
                neighbours=rows,
                similarity=np.sort(rng.random((films, NEIGHBOURS)).astype(np.float32))[:, ::-1],
            ),
            pictures={row: thumbnails[row] for row in np.unique(rows).tolist()},
        )


def _film(rng: np.random.Generator) -> NDArray[np.uint8]:
    y, x = np.mgrid[-1 : 1 : THUMBNAIL * 1j, -1 : 1 : THUMBNAIL * 1j]
    shift = rng.normal(0, 0.05, 2)
    lungs = sum(np.exp(-(((x - side + shift[0]) / 0.3) ** 2 + ((y + shift[1]) / 0.55) ** 2)) for side in (-0.42, 0.42))
    return _levels(np.clip(0.85 - 0.6 * lungs - 0.2 * y**2 + rng.normal(0, 0.02, x.shape), 0, 1))


def _colours(films: int, grid: int, *, rise: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Noise in the beginning, three smooth maps in the end.  -> [F, h, w, 3]"""
    y, x = np.mgrid[-1 : 1 : grid * 1j, -1 : 1 : grid * 1j]
    smooth = np.stack([0.5 + 0.5 * np.sin(3 * x), 0.5 + 0.5 * np.cos(2.5 * y), 1 - np.hypot(x, y) / 1.5], axis=-1)
    return _levels(np.clip(rise * smooth + (1.2 - rise) * 0.5 * rng.random((films, grid, grid, 3)), 0, 1))


def _levels(share: NDArray[np.float64]) -> NDArray[np.uint8]:
    levels: NDArray[np.uint8] = (255 * share).astype(np.uint8)
    return levels


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, tuple | list) else value
