"""Linear heads on frozen features, from the files in which they are found.

In: a public `dinov2_*_linear_head.pth` (weight [K, F], bias [K]), or the `head.safetensors` of `dinov2 eval linear`
(weight [F, K], bias [K], and in its header what it sees and the names of its outputs). Out: a `LinearHead`.

Legend: K outputs, n blocks, D width of the backbone, F = (n + 1) x D features, or n x D without the mean patch token.
"""

import json
import pickle
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from dinov2.errors import WeightsError

PREFIXES = ("linear_head.", "linear.")  # of heads that were saved inside a classifier
INPUT = re.compile(r"cls of (?P<blocks>\d+) blocks?(?P<pooled> \+ mean patch)?")
STATES = ("absent", "present", "uncertain")  # of a head that was fitted with --uncertain own-class


@dataclass(frozen=True, kw_only=True)
class LinearHead:
    """A linear map, and what it is put to: CLS tokens of the last `layers` blocks, the last one's mean patch token."""

    linear: nn.Linear
    layers: int
    pooled: bool
    classes: tuple[str, ...]  # () where nothing says them


def random_head(*, width: int, layers: int, outputs: int) -> LinearHead:
    """As the public ones, untrained."""
    return LinearHead(linear=nn.Linear((1 + layers) * width, outputs), layers=layers, pooled=True, classes=())


def read_linear_head(path: Path, *, width: int, layers: int | None) -> LinearHead:
    """The head of a file for a backbone of a width; `layers` None: as the file says.

    Raises:
        WeightsError: no such file, no linear head in it, or one for another width or number of blocks.
    """
    state, said = _read(path)
    weight, bias = state["weight"], state["bias"]
    match = INPUT.fullmatch(said.get("input", ""))
    if match is not None:
        blocks, pooled = int(match["blocks"]), match["pooled"] is not None
        weight = weight.T
    else:
        blocks, pooled = weight.shape[1] // width - 1, True
    if blocks < 1 or weight.shape[1] != (blocks + pooled) * width or bias.shape != weight.shape[:1]:
        raise WeightsError(
            f"{path}: a head on {weight.shape[1]} features; a backbone of width {width} gives {2 * width} for one "
            f"block and {5 * width} for four. Give the backbone that it was fitted on."
        )
    if layers not in (None, blocks):
        raise WeightsError(f"{path}: sees {blocks} blocks, layers={layers} was asked for. Leave out layers.")
    return LinearHead(
        linear=_linear(weight, bias), layers=blocks, pooled=pooled, classes=_classes(said, outputs=len(bias))
    )


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Weight, bias, and the header of a safetensors file."""
    holder: Any
    said: dict[str, str] = {}
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                said = file.metadata() or {}
                holder = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dictionary
        else:
            holder = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise WeightsError(f"{path}: cannot be read as a linear head ({reason}).") from error
    state = {_bare(name): tensor for name, tensor in holder.items()} if isinstance(holder, dict) else {}
    if {name: getattr(tensor, "ndim", None) for name, tensor in state.items()} != {"weight": 2, "bias": 1}:
        raise WeightsError(
            f"{path}: no linear head, which is a weight and a bias. Give dinov2_*_linear_head.pth or the "
            "head.safetensors of `dinov2 eval linear`."
        )
    return state, said


def _bare(name: str) -> str:
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    return name


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0])
    linear.load_state_dict({"weight": weight, "bias": bias}, strict=True)
    return linear


def _classes(said: dict[str, str], *, outputs: int) -> tuple[str, ...]:
    names = tuple(json.loads(said.get("classes", "[]")))
    if len(names) != outputs and len(names) * len(STATES) == outputs:
        return tuple(f"{name}: {state}" for name in names for state in STATES)
    return names
