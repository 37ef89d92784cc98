"""One file of weights, read without running anything in it.

In: a `.safetensors`, or a `.pth` of tensors. Out: names and tensors on the CPU; or, without values, on the device meta.
"""

import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor
from torch.serialization import safe_globals

from dinov2.errors import WeightsError

PICKLES = (".pth", ".pt", ".bin", ".ckpt")
SUFFIXES = (".safetensors", *PICKLES)
SAFETENSORS_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
}
COPY_AGAIN = "Is the file whole? Copy it again."
TENSORS_ONLY = "Only files of tensors are opened: torch.save(model.state_dict(), PATH)."
POINTER = b"version https://git-lfs"
REFUSED = re.compile(r"GLOBAL (\S+)")  # what torch says of a class or function that a file would call
Allowed = list[Callable[..., Any] | tuple[Callable[..., Any], str]]


def read_file(path: Path, *, values: bool = True) -> Mapping[str, Any]:
    """What a file holds; without `values` only names, shapes and number formats are read.

    Raises:
        WeightsError: no weights by its ending, cut short, or a file that would have to run code to be read.
    """
    if path.suffix == ".safetensors":
        return guarded(path, lambda: load_file(path, device="cpu") if values else _headers(path))
    if path.suffix in PICKLES:
        return guarded(path, lambda: load_pickle(path, values=values))
    raise WeightsError(f"{path}: weights end in {', '.join(SUFFIXES)}; or give a Hugging Face folder.")


def load_pickle(path: Path, *, values: bool, allowed: Allowed | None = None) -> Any:
    """What `torch.load` gives with `weights_only`; `allowed` are stand-ins for classes that the file names.

    Newer files are mapped into memory, so that what nobody asks for is never read. Raises what torch raises.
    """
    where = "cpu" if values else "meta"
    with safe_globals(allowed or []):
        try:
            return torch.load(path, map_location=where, weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap" not in str(error):
                raise
            return torch.load(path, map_location=where, weights_only=True)  # of torch before 1.6


def guarded(path: Path, read: Callable[[], Any]) -> Mapping[str, Any]:
    """What `read` gives, a mapping; every way in which reading fails as a WeightsError of one line."""
    try:
        holder = read()
    except pickle.UnpicklingError as error:
        refused = REFUSED.search(str(error))
        if refused:
            raise WeightsError(
                f"{path}: cannot be read as weights: {refused.group(1)} would have to be called, and nothing of a file "
                f"is ever run. {TENSORS_ONLY}"
            ) from error
        raise WeightsError(f"{path}: cannot be read as weights{_pointer(path)}. {TENSORS_ONLY}") from error
    except (SafetensorError, RuntimeError, EOFError, ValueError, KeyError, TypeError, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].partition(". ")[0].rstrip(".")
        raise WeightsError(f"{path}: cannot be read as weights{_pointer(path)} ({reason}). {COPY_AGAIN}") from error
    if not isinstance(holder, Mapping):
        raise WeightsError(
            f"{path}: holds a {type(holder).__name__}, not a mapping of names to tensors. {TENSORS_ONLY}"
        )
    return holder


def _pointer(path: Path) -> str:
    """What is to be said of a file that only stands for another."""
    try:
        with path.open("rb") as file:
            found = file.read(len(POINTER)) == POINTER
    except OSError:
        return ""
    return ": it is a pointer of Git LFS, and the weights were not fetched (git lfs pull)" if found else ""


def _headers(path: Path) -> dict[str, Tensor]:
    with safe_open(path, framework="pt") as opened:
        slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
        return {
            name: torch.empty(
                part.get_shape(), dtype=SAFETENSORS_DTYPES.get(part.get_dtype(), torch.float32), device="meta"
            )
            for name, part in slices.items()
        }
