"""Whether the weights to start from are there and fit, from the headers of their files alone.

In: a configuration, and networks whose tensors have no values. Out: faults in words. Names and shapes are compared by
the same code that loads them.
"""

import json
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dinov2.config.schema import Config
from dinov2.errors import WeightsError
from dinov2.forecast.rehearsal import Rehearsal
from dinov2.models.key_maps import PARTS, StateDict, split_parts
from dinov2.models.weights import PICKLES, Weights, load_part
from dinov2.ssl import Networks

NO_HEAD = "none"  # value of init_from.*_head that leaves a head as initialised
SAFETENSORS_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def weight_faults(config: Config, rehearsal: Rehearsal) -> Iterator[str]:
    """What would stop a run from starting from the files that it names."""
    headers: dict[Path, Weights] = {}
    networks = rehearsal.networks
    with rehearsal.no_values:
        for file in _files_named(config):
            try:
                headers[file] = _header(file)
            except WeightsError as error:
                yield str(error)
        for part, file in _sources(config, networks, headers):
            try:
                load_part(
                    networks.student[part],
                    headers[file].part(part),
                    source=f"{file} ({part})",
                    allow_missing=config.init_from.allow_missing,
                    allow_unexpected=config.init_from.allow_unexpected,
                )
            except WeightsError as error:
                yield str(error)


def _files_named(config: Config) -> list[Path]:
    named = (config.student.pretrained_weights, config.init_from.dino_head, config.init_from.ibot_head)
    return list(dict.fromkeys(Path(name) for name in named if name and name != NO_HEAD))


def _sources(config: Config, networks: Networks, headers: Mapping[Path, Weights]) -> Iterator[tuple[str, Path]]:
    """(part, file) of every part that a readable file fills: heads by `init_from`, else the backbone's own file."""
    main = Path(config.student.pretrained_weights)
    if main in headers:
        yield "backbone", main
    for head in ("dino_head", "ibot_head"):
        given = getattr(config.init_from, head)
        if head not in networks.student or given == NO_HEAD:
            continue
        if given and Path(given) in headers:
            yield head, Path(given)
        elif not given and main in headers and head in headers[main].parts:
            yield head, main


def _header(path: Path) -> Weights:
    """Names and shapes of a file or folder.  Raises WeightsError."""
    if not path.exists():
        raise WeightsError(f"{path}: no such file or folder. Give a .pth, a .safetensors or a Hugging Face folder.")
    files = _files(path) if path.is_dir() else [path]
    if not files:
        raise WeightsError(f"{path}: no backbone.safetensors, model.safetensors or pytorch_model.bin in it.")
    parts: dict[str, StateDict] = {}
    together: dict[str, Any] = {}
    for file in files:
        state = _read(file)
        if path.is_dir() and file.stem in PARTS:
            parts[file.stem] = next(iter(split_parts(state)[0].values()))
        else:
            together.update(state)
    ignored: tuple[str, ...] = ()
    if together:
        found, ignored = split_parts(together)
        parts |= found
    if not parts:
        raise WeightsError(f"{path}: holds no tensors under names of DINOv2 ({', '.join(PARTS)}). Is it another model?")
    return Weights(path=path, parts=parts, ignored=ignored)


def _files(folder: Path) -> list[Path]:
    exports = [folder / f"{part}.safetensors" for part in PARTS if (folder / f"{part}.safetensors").exists()]
    return exports or sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))


def _read(file: Path) -> Mapping[str, Any]:
    try:
        if file.suffix == ".safetensors":
            return _read_safetensors(file)
        if file.suffix in PICKLES:
            holder = torch.load(file, map_location="cpu", weights_only=True)  # inside: no value is read
            if isinstance(holder, Mapping):
                return holder
            raise WeightsError(f"{file}: holds a {type(holder).__name__}, not a mapping of names to tensors.")
    except (
        SafetensorError,
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
        ValueError,
        KeyError,
        OSError,
        json.JSONDecodeError,
    ) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise WeightsError(
            f"{file}: cannot be read as weights ({reason}). Is the file whole? Copy it again."
        ) from error
    raise WeightsError(f"{file}: weights end in .safetensors, {', '.join(PICKLES)}; or give a Hugging Face folder.")


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    with safe_open(file, framework="pt") as opened:
        slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
        return {
            name: torch.empty(part.get_shape(), dtype=SAFETENSORS_DTYPES.get(part.get_dtype(), torch.float32))
            for name, part in slices.items()
        }
