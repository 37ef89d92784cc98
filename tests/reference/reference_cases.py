"""The reference cases: what the public DINOv2 code computed, by kind.

In: the folder named by DINOV2_REFERENCE_DIR (default: `data` beside this file). Out: cases, tensors, tables.
"""

import json
import os
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

OURS = Path(__file__).parent / "data"
REFERENCE_DIR = Path(os.environ.get("DINOV2_REFERENCE_DIR", OURS))


def cases(kind: str) -> list[dict[str, Any]]:
    """Every case of a kind that `index.json` lists."""
    return [case for case in json.loads((REFERENCE_DIR / "index.json").read_text()) if case["kind"] == kind]


def case_name(case: dict[str, Any]) -> str:
    """What a test report calls a case."""
    return Path(case["file"]).stem


def load_case(case: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors of a case, by name."""
    return load_file(REFERENCE_DIR / case["file"])


def is_known(case: dict[str, Any]) -> bool:
    """Whether the start of a trajectory was found before and committed, for these very tensors."""
    return (
        _start_file(case).is_file()
        and (REFERENCE_DIR / case["file"]).read_bytes() == (OURS / case["file"]).read_bytes()
    )


def load_start(case: dict[str, Any]) -> dict[str, Tensor]:
    """The start that was found for a trajectory, by name."""
    return load_file(_start_file(case))


def _start_file(case: dict[str, Any]) -> Path:
    return OURS / f"{case_name(case)}.start.safetensors"


def table(name: str) -> dict[str, Any]:
    """The entries of `schedules.json` or `param_groups.json`, by name."""
    return json.loads((REFERENCE_DIR / name).read_text())


def under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries whose names start with `prefix` and a dot, without it."""
    return {name.removeprefix(f"{prefix}."): value for name, value in tensors.items() if name.startswith(f"{prefix}.")}
