"""The model of cost held against a measurement.

In: the JSON of `dinov2 bench step`. Out: for each of its rows seconds as predicted and as measured, and the share of
the machine's own matrix rate that would make them equal.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dinov2.config.load import load_config
from dinov2.errors import ConfigError, Dinov2Error
from dinov2.forecast.dimensions import dimensions_of, is_compiled
from dinov2.forecast.machines import EFFICIENCY, Machine
from dinov2.forecast.schedule import simulate_step
from dinov2.forecast.sharding import Processes
from dinov2.ssl.precision import DTYPES

ALONE = Processes(size=1, group_size=1, accumulation_steps=1)
OURS = "ours"
KEYS = {
    "student.arch": "arch",
    "student.patch_size": "patch_size",
    "student.drop_path_rate": "drop_path",
    "crops.global_crops_size": "global_size",
    "crops.local_crops_size": "local_size",
    "crops.local_crops_number": "local_crops",
    "dino.head_n_prototypes": "prototypes",
}


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One row."""

    device: str
    on_gpu: bool
    form: str
    precision: str
    batch: int
    measured: float  # seconds a step
    predicted: float  # at `efficiency`
    efficiency: float  # assumed, of the machine's own matrix rate
    reached: float | None  # that makes both equal; None: reading and writing alone would take longer than was measured
    matrix_rate: float  # FLOP/s of the machine's own large products
    memory_rate: float  # bytes/s of the machine's own copies


def compare(path: Path, *, efficiency: float | None = None) -> tuple[Comparison, ...]:
    """Every row of ours that was measured.

    Raises ConfigError: no file, or not what `dinov2 bench step --json` writes.
    """
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        found = tuple(_rows(result, efficiency=EFFICIENCY if efficiency is None else efficiency))
    except OSError as error:
        raise ConfigError(f"--measured {path}: {error.strerror}. Make it with: dinov2 bench step --json F") from error
    except (ValueError, KeyError, TypeError, AttributeError, Dinov2Error) as error:
        raise ConfigError(
            f"--measured {path}: is not what dinov2 bench step --json writes ({error!r}). Make it "
            "with: dinov2 bench step --json F"
        ) from error
    if not found:
        raise ConfigError(f"--measured {path}: none of its rows is a step of this package that ran.")
    return found


def _rows(result: Mapping[str, Any], *, efficiency: float) -> Iterator[Comparison]:
    settings, ceilings = result["settings"], result["ceilings"]
    on_gpu = settings["device"] == "cuda"
    for row in result["rows"]:
        if row["form"] != OURS or not row["seconds_per_step"]:
            continue
        own = Machine(
            name=str(result["machine"]["device"]),
            peak=dict.fromkeys(DTYPES.values(), float(row["matrix_rate"])),
            memory_bandwidth=float(ceilings["copy_bytes_per_second"]),
            memory_gib=0.0,
            nvlink=1.0,
            link=1.0,
            links_per_node=None,
            per_node=1,
            source="measured",
            efficiency=1.0,
            memory_share=1.0,
        )
        words = [f"{key}={settings[name]}" for key, name in KEYS.items()]
        words += [f"runtime.{key}={row[key]}" for key in ("precision", "attention", "compile")]
        words += [f"runtime.activation_checkpointing={row['checkpointing']}", "train.centering=sinkhorn_knopp"]
        config = load_config(None, overrides=words).config
        dims = dimensions_of(config, pictures=int(row["batch_size"]), processes=1, on_gpu=on_gpu)
        compiled = is_compiled(config.runtime, on_gpu=on_gpu)
        line = simulate_step(dims, machine=own, processes=ALONE, compiled=compiled)
        measured = float(row["seconds_per_step"])
        left = measured - line.memory
        yield Comparison(
            device=own.name,
            on_gpu=on_gpu,
            form=f"compile {row['compile']}, checkpointing {row['checkpointing']}, attention {row['attention']}",
            precision=row["precision"],
            batch=dims.pictures,
            measured=measured,
            predicted=line.products / efficiency + line.memory,
            efficiency=efficiency,
            reached=line.products / left if left > 0 else None,
            matrix_rate=float(row["matrix_rate"]),
            memory_rate=own.memory_bandwidth,
        )
