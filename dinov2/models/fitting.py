"""Weights into a module, with an account of every name.

In: a state dict under public names, and a module. Out: the module filled, or nothing done; a `LoadReport`.

What may differ without being named, because it can be explained: the grid of the position table, the number of input
channels, the number format, registers and mask token that the file has not, and biases of queries, keys and values
where the file has none. Everything else is an error that names what would allow it.
"""

import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dinov2.errors import WeightsError
from dinov2.models.folders import listed
from dinov2.models.position_table import Grid, resample_position_table, square_grid
from dinov2.models.timm_names import StateDict
from dinov2.models.vision_transformer import DinoVisionTransformer

TABLE, REGISTERS, MASK, QKV_BIAS = "pos_embed", "register_tokens", "mask_token", ".attn.qkv.bias"
ALLOWED_BY = ("init_from.allow_missing", "init_from.allow_unexpected")
NO_TABLE = (
    "the file has no table of positions (those of DINOv3 are rotary): the model's own would stay as initialised, "
    "which is a start and not the same function"
)
LOST_REGISTERS = "give the model as many registers as the file has (student.num_register_tokens, --registers)"


@dataclass(frozen=True, kw_only=True)
class LoadReport:
    """What became of every name of a module and of the file."""

    source: str
    used: tuple[str, ...]  # as they were
    resized: tuple[str, ...]  # "name: how"
    missing: tuple[str, ...]  # in the module only; allowed, or explained in `notes`
    unexpected: tuple[str, ...]  # in the file only; allowed
    notes: tuple[str, ...] = ()  # sentences on what differs and why that may be

    def summary(self) -> str:
        """A few lines for a person."""
        lines = [f"{self.source}: {len(self.used) + len(self.resized)} tensors loaded"]
        lines += [f"  resized {entry}" for entry in self.resized]
        if self.missing:
            lines.append(f"  not in the file, left as initialised: {listed(list(self.missing))}")
        if self.unexpected:
            lines.append(f"  in the file, not used: {listed(list(self.unexpected))}")
        lines += [f"  {note}" for note in self.notes]
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class _Fit:
    """Tensors at the module's sizes."""

    tensors: StateDict
    resized: dict[str, str]  # name -> how
    zeros: tuple[str, ...]  # biases that the file has not
    faults: list[str]


def load_part(
    module: nn.Module,
    state: StateDict,
    *,
    source: str,
    grid: Grid | None = None,
    allow_missing: tuple[str, ...] = (),
    allow_unexpected: tuple[str, ...] = (),
    allowed_by: tuple[str, str] = ALLOWED_BY,
) -> LoadReport:
    """Copy `state` into `module`: everything, or nothing where a name or a shape is left unexplained.

    The position table is resampled to the module's grid in the module's own mode (`grid` says the file's where it is
    not square); a patch map of several channels is summed to one, and one of one channel is spread over several.
    `allow_missing` and `allow_unexpected` are globs; `allowed_by` is what the user calls them.

    Raises:
        WeightsError: every shape that differs, and every name that one side lacks and no pattern allows.
    """
    targets = module.state_dict()
    fit, report = _compare(
        module, state, targets, source=source, grid=grid, allowed=(allow_missing, allow_unexpected), by=allowed_by
    )
    with torch.no_grad():
        for name, tensor in fit.tensors.items():
            targets[name].copy_(tensor)
        for name in fit.zeros:
            targets[name].zero_()
    return report


def compare_part(
    module: nn.Module,
    state: StateDict,
    *,
    source: str,
    grid: Grid | None = None,
    allow_missing: tuple[str, ...] = (),
    allow_unexpected: tuple[str, ...] = (),
) -> LoadReport:
    """What `load_part` would say and raise, from shapes alone: neither side needs values, `state` may be on meta."""
    targets = {
        name: torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
        for name, tensor in module.state_dict().items()
    }
    shapes = {name: torch.empty(tensor.shape, dtype=tensor.dtype, device="meta") for name, tensor in state.items()}
    allowed = (allow_missing, allow_unexpected)
    return _compare(module, shapes, targets, source=source, grid=grid, allowed=allowed, by=ALLOWED_BY)[1]


def _compare(
    module: nn.Module,
    state: StateDict,
    targets: Mapping[str, Tensor],
    *,
    source: str,
    grid: Grid | None,
    allowed: tuple[tuple[str, ...], tuple[str, ...]],
    by: tuple[str, str],
) -> tuple[_Fit, LoadReport]:
    fit = _fit(state, targets, module=module, grid=grid)
    missing, unexpected = sorted(set(targets) - set(state)), sorted(set(state) - set(targets))
    explained = {**_explained(missing, state, targets=targets, zeros=fit.zeros)}
    faults = [*fit.faults]
    faults += _unexplained(
        [name for name in missing if name not in explained], allowed[0], "missing from the file", by[0]
    )
    faults += _unexplained(unexpected, allowed[1], "not in the model", by[1])
    if faults:
        raise WeightsError(
            f"{source} does not fit this model; nothing was loaded:\n" + "\n".join(f"  {fault}" for fault in faults)
        )
    notes = [*dict.fromkeys(explained.values()), *_formats(fit.tensors, targets)]
    if TABLE in missing:
        notes.append(f"{TABLE}: {NO_TABLE}")
    return fit, LoadReport(
        source=source,
        used=tuple(name for name in fit.tensors if name not in fit.resized),
        resized=tuple(f"{name}: {how}" for name, how in fit.resized.items()),
        missing=tuple(missing),
        unexpected=tuple(unexpected),
        notes=tuple(notes),
    )


def _fit(state: StateDict, targets: Mapping[str, Tensor], *, module: nn.Module, grid: Grid | None) -> _Fit:
    """Of the names that both sides have; and the biases that may be zeros."""
    fitted: StateDict = {}
    resized: dict[str, str] = {}
    faults: list[str] = []
    for name, target in targets.items():
        if name not in state:
            continue
        fitted[name] = state[name]
        if state[name].shape == target.shape:
            continue
        change = _resize(name, state[name], target=target, module=module, grid=grid)
        if change is None:
            hint = f"; {LOST_REGISTERS}" if name == REGISTERS else ""
            faults.append(f"{name}: {list(state[name].shape)} in the file, {list(target.shape)} in the model{hint}")
        else:
            fitted[name], resized[name] = change
    zeros = tuple(
        name for name in targets if name.endswith(QKV_BIAS) and name not in state and f"{name[:-4]}weight" in state
    )
    return _Fit(tensors=fitted, resized=resized, zeros=zeros, faults=faults)


def _explained(
    missing: list[str], state: StateDict, *, targets: Mapping[str, Tensor], zeros: tuple[str, ...]
) -> dict[str, str]:
    """Names that the file may lack -> why."""
    if "cls_token" not in state:
        return {}  # no backbone at all
    found = dict.fromkeys(zeros, f"{len(zeros)} biases of queries, keys and values: zeros, as the file has none")
    if REGISTERS in missing:
        found[REGISTERS] = f"{REGISTERS}: {targets[REGISTERS].shape[1]} added to a model without, as initialised"
    if MASK in missing:
        found[MASK] = f"{MASK}: the file has none, left as initialised; only training uses it"
    return found


def _formats(tensors: StateDict, targets: Mapping[str, Tensor]) -> list[str]:
    changes = {(tensor.dtype, targets[name].dtype) for name, tensor in tensors.items()}
    return [
        f"values: {str(given).removeprefix('torch.')} in the file, {str(wanted).removeprefix('torch.')} in the model"
        for given, wanted in sorted(changes, key=str)
        if given != wanted
    ]


def _unexplained(names: Iterable[str], allowed: tuple[str, ...], what: str, key: str) -> list[str]:
    left = [name for name in names if not any(fnmatch.fnmatchcase(name, pattern) for pattern in allowed)]
    if not left:
        return []
    why = {TABLE: NO_TABLE} if what.startswith("missing") else {REGISTERS: LOST_REGISTERS}
    reasons = "".join(f"; {name}: {reason}" for name, reason in why.items() if name in left)
    return [f"{what}: {listed(left)} (if that is meant, name them in {key}){reasons}"]


def _resize(
    name: str, tensor: Tensor, *, target: Tensor, module: nn.Module, grid: Grid | None
) -> tuple[Tensor, str] | None:
    """The tensor at the module's size, and how it came there; None where there is no meaningful way."""
    if not isinstance(module, DinoVisionTransformer):
        return None
    if name == TABLE:
        return _resized_table(tensor, module=module, grid=grid)
    if name == "patch_embed.proj.weight":
        return _resized_channels(tensor, target=target)
    if name == REGISTERS:
        return _more_registers(tensor, target=target)
    return None


def _resized_table(table: Tensor, *, module: DinoVisionTransformer, grid: Grid | None) -> tuple[Tensor, str] | None:
    if table.ndim != 3 or table.shape[2] != module.embed_dim:
        return None
    if grid is None or 1 + grid[0] * grid[1] != table.shape[1]:
        grid = square_grid(table.shape[1] - 1)
    if grid is None:
        return None
    target = module.patch_embed.patches_resolution
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


def _more_registers(registers: Tensor, *, target: Tensor) -> tuple[Tensor, str] | None:
    given, wanted = registers.shape[1], target.shape[1]
    if registers.shape[2] != target.shape[2] or given > wanted:
        return None
    more = target.detach()[:, given:].to(registers.dtype)
    return torch.cat([registers, more], dim=1), f"{given} of the file, {wanted - given} more as initialised"
