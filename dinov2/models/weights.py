"""Weights from a file into a module, with an account of every name.

In: a `.pth`, a `.safetensors` or a folder (Hugging Face's, or one of exports). Out: `Weights`; a `LoadReport`.
"""

import fnmatch
import json
import pickle
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from dinov2.errors import WeightsError
from dinov2.models.key_maps import PARTS, StateDict, split_parts
from dinov2.models.position_table import resample_position_table, square_grid
from dinov2.models.vision_transformer import DinoVisionTransformer

PICKLES = (".pth", ".pt", ".bin", ".ckpt")
TRANSFORMERS_MODELS = ("dinov2", "dinov2_with_registers")
MAX_LISTED = 8
"""Names that a message lists before it only counts them."""


@dataclass(frozen=True, kw_only=True)
class Weights:
    """What a file or folder holds, under flat public names."""

    path: Path
    parts: dict[str, StateDict]  # "backbone", "dino_head", "ibot_head": those that are there
    ignored: tuple[str, ...]  # tensors of no part: the student beside a teacher, centres of losses

    def part(self, name: str) -> StateDict:
        """One part; a file of a single head serves as either head.

        Raises:
            WeightsError: the file does not hold it.
        """
        if name in self.parts:
            return self.parts[name]
        if name == "ibot_head" and set(self.parts) == {"dino_head"}:
            return self.parts["dino_head"]
        raise WeightsError(f"{self.path}: holds no {name}, only {', '.join(self.parts)}. Give a file that holds one.")


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """What became of every name of a module and of the file."""

    source: str
    used: tuple[str, ...]  # as they were
    resized: tuple[str, ...]  # "name: how"
    missing: tuple[str, ...]  # in the module only; allowed
    unexpected: tuple[str, ...]  # in the file only; allowed

    def summary(self) -> str:
        """A few lines for a person."""
        lines = [f"{self.source}: {len(self.used) + len(self.resized)} tensors loaded"]
        lines += [f"  resized {entry}" for entry in self.resized]
        if self.missing:
            lines.append(f"  not in the file, left as initialised: {_listed(self.missing)}")
        if self.unexpected:
            lines.append(f"  in the file, not used: {_listed(self.unexpected)}")
        return "\n".join(lines)


def read_weights(path: Path) -> Weights:
    """Read a file or folder of weights to the CPU; nothing in it is executed.

    Raises:
        WeightsError: it is not there, cannot be read, or holds no weights of this kind.
    """
    if not path.exists():
        raise WeightsError(f"{path}: no such file or folder. Give a .pth, a .safetensors or a Hugging Face folder.")
    if path.is_dir():
        parts, ignored = _read_folder(path)
    else:
        parts, ignored = split_parts(_read_file(path))
    if not parts:
        raise WeightsError(f"{path}: holds no tensors under names of DINOv2 ({', '.join(PARTS)}). Is it another model?")
    return Weights(path=path, parts=parts, ignored=ignored)


def _read_folder(folder: Path) -> tuple[dict[str, StateDict], tuple[str, ...]]:
    exports = {part: folder / f"{part}.safetensors" for part in PARTS if (folder / f"{part}.safetensors").exists()}
    if exports:
        return {part: next(iter(split_parts(_read_file(file))[0].values())) for part, file in exports.items()}, ()
    _check_model_type(folder / "config.json")
    shards = sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    if not shards:
        names = sorted(entry.name for entry in folder.iterdir())
        raise WeightsError(
            f"{folder}: no backbone.safetensors, model.safetensors or pytorch_model.bin in it, only {_listed(names)}."
        )
    state: dict[str, Any] = {}
    for shard in shards:
        state.update(_read_file(shard))
    return split_parts(state)


def _check_model_type(config: Path) -> None:
    if not config.exists():
        return
    try:
        model_type = json.loads(config.read_text()).get("model_type")
    except (ValueError, AttributeError) as error:
        raise WeightsError(f"{config}: not a Hugging Face config ({error}). Download the folder again.") from error
    if model_type not in TRANSFORMERS_MODELS:
        raise WeightsError(f"{config}: model_type is {model_type!r}; expected {' or '.join(TRANSFORMERS_MODELS)}.")


def _read_file(path: Path) -> Mapping[str, Any]:
    if path.suffix == ".safetensors":
        return _guarded(path, read=lambda: load_file(path, device="cpu"), hint="Is the file whole? Copy it again.")
    if path.suffix in PICKLES:
        return _guarded(
            path,
            read=lambda: torch.load(path, map_location="cpu", weights_only=True),
            hint="Only files of tensors are opened (`torch.save(model.state_dict(), path)`), and no shards of FSDP.",
        )
    raise WeightsError(f"{path}: weights end in .safetensors, {', '.join(PICKLES)}; or give a Hugging Face folder.")


def _guarded(path: Path, *, read: Callable[[], Any], hint: str) -> Mapping[str, Any]:
    try:
        holder = read()
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise WeightsError(f"{path}: cannot be read as weights ({reason}). {hint}") from error
    if not isinstance(holder, Mapping):
        raise WeightsError(f"{path}: holds a {type(holder).__name__}, not a mapping of names to tensors. {hint}")
    return holder


def load_part(
    module: nn.Module,
    state: StateDict,
    *,
    source: str,
    allow_missing: tuple[str, ...] = (),
    allow_unexpected: tuple[str, ...] = (),
) -> LoadReport:
    """Copy `state` into `module`: everything, or nothing where a name or a shape is left unexplained.

    The position table is resampled to the module's grid in the module's own mode; a patch map of three channels is
    summed to one, and one of one channel is spread over several. `allow_missing` and `allow_unexpected` are globs.

    Raises:
        WeightsError: every shape that differs, and every name that one side lacks and no pattern allows.
    """
    targets = module.state_dict()
    fitted, resized, faults = _fit(state, module=module)
    missing, unexpected = sorted(set(targets) - set(state)), sorted(set(state) - set(targets))
    faults += _unexplained(missing, allow_missing, "missing from the file", "init_from.allow_missing")
    faults += _unexplained(unexpected, allow_unexpected, "not in the model", "init_from.allow_unexpected")
    if faults:
        raise WeightsError(
            f"{source} does not fit this model; nothing was loaded:\n" + "\n".join(f"  {f}" for f in faults)
        )
    _copy(fitted, into=targets)
    return LoadReport(
        source=source,
        used=tuple(name for name in fitted if name not in resized),
        resized=tuple(f"{name}: {how}" for name, how in resized.items()),
        missing=tuple(missing),
        unexpected=tuple(unexpected),
    )


def _fit(state: StateDict, *, module: nn.Module) -> tuple[StateDict, dict[str, str], list[str]]:
    """Tensors at the module's sizes, how the resized ones came there, and those that cannot; of shared names."""
    fitted: StateDict = {}
    resized: dict[str, str] = {}
    faults: list[str] = []
    for name, target in module.state_dict().items():
        if name not in state:
            continue
        fitted[name] = state[name]
        if state[name].shape == target.shape:
            continue
        change = _resize(name, state[name], module=module)
        if change is None:
            faults.append(f"{name}: {list(state[name].shape)} in the file, {list(target.shape)} in the model")
        else:
            fitted[name], resized[name] = change
    return fitted, resized, faults


@torch.no_grad()
def _copy(fitted: StateDict, *, into: Mapping[str, Tensor]) -> None:
    for name, tensor in fitted.items():
        into[name].copy_(tensor)


def _unexplained(names: Iterable[str], allowed: tuple[str, ...], what: str, key: str) -> list[str]:
    left = [name for name in names if not any(fnmatch.fnmatchcase(name, pattern) for pattern in allowed)]
    return [f"{what}: {_listed(left)} (if that is meant, name them in {key})"] if left else []


def _resize(name: str, tensor: Tensor, *, module: nn.Module) -> tuple[Tensor, str] | None:
    """The tensor at the module's size, and how it came there; None where there is no meaningful way."""
    if not isinstance(module, DinoVisionTransformer):
        return None
    if name == "pos_embed":
        return _resized_table(tensor, module=module)
    if name == "patch_embed.proj.weight":
        return _resized_channels(tensor, target=module.patch_embed.proj.weight)
    return None


def _resized_table(table: Tensor, *, module: DinoVisionTransformer) -> tuple[Tensor, str] | None:
    grid = square_grid(table.shape[1] - 1) if table.ndim == 3 else None
    target = module.patch_embed.patches_resolution
    if grid is None or table.shape[2] != module.embed_dim:
        return None
    resampled = resample_position_table(
        table, grid=grid, target=target, offset=module.interpolate_offset, antialias=module.interpolate_antialias
    )
    return resampled, f"{grid[0]} x {grid[1]} patches resampled to {target[0]} x {target[1]}"


def _resized_channels(weight: Tensor, *, target: Tensor) -> tuple[Tensor, str] | None:
    """A grey picture copied to all channels gives the same tokens before and after."""
    if weight.ndim != 4 or weight.shape[0] != target.shape[0] or weight.shape[2:] != target.shape[2:]:
        return None
    given, wanted = weight.shape[1], target.shape[1]
    if wanted == 1:
        return weight.sum(dim=1, keepdim=True), f"{given} channels summed to 1"
    if given == 1:
        return (weight / wanted).expand(-1, wanted, -1, -1), f"1 channel spread over {wanted}"
    return None


def _listed(names: Iterable[str]) -> str:
    every = list(names)
    more = f" and {len(every) - MAX_LISTED} more" if len(every) > MAX_LISTED else ""
    return ", ".join(every[:MAX_LISTED]) + more
