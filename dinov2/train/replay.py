"""A step that could not be made, made again.

In: a dump of `train.nonfinite`, on as many processes as wrote it, or on one for the batches of a single rank. Out:
sentences: where the first value that is not finite appears, and what the step found this time.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dinov2.batch import Batch, Views
from dinov2.checkpoint.store import read_facts
from dinov2.config.load import from_plain
from dinov2.config.schema import Config
from dinov2.distributed import World
from dinov2.errors import LaunchError
from dinov2.optim import build_schedule, schedule_at
from dinov2.ssl import Networks
from dinov2.train.build import build_tools
from dinov2.train.nonfinite import read_batches, read_dump
from dinov2.train.seeds import step_seed
from dinov2.train.state import restore_scaler, restore_tensors
from dinov2.train.step import train_step


def replay(folder: Path, *, world: World, rank: int | None) -> Iterator[str]:
    """Makes the dumped step again; `rank` is whose batches one process takes (default: the first that was found).

    Raises CheckpointError where the folder is no dump, LaunchError for another number of processes.
    """
    checkpoint, found = read_dump(folder)
    if world.size not in (1, found["world_size"]):
        raise LaunchError(
            f"{folder}: was written by {found['world_size']} processes and can be replayed by as many, or by one; "
            f"there are {world.size}."
        )
    facts = read_facts(checkpoint)
    config = from_plain(Config, facts["config"])
    chosen = world.rank if world.size == found["world_size"] else _rank_to_take(found, rank)
    if world.size != found["world_size"]:
        yield (
            f"one process, with the batches of rank {chosen}: targets are balanced over them alone, so numbers differ "
            f"a little from those of {found['world_size']} processes"
        )
    tools = build_tools(config, world=world)
    restore_tensors(tools, checkpoint)
    restore_scaler(tools.scaler, facts["scaler"])
    batches = read_batches(folder, rank=chosen)
    schedule = build_schedule(
        config.optim,
        config.teacher,
        train=config.train,
        global_batch=facts["global_batch"],
        init_from=config.init_from,
    )
    torch.manual_seed(step_seed(config.train.seed, step=facts["step"], rank=chosen))
    broken: list[str] = []
    _watch(tools.networks, broken)
    result = train_step(
        tools,
        _views(batches, config=config, device=world.device),
        plan=schedule_at(facts["step"], schedule=schedule),
        num_micro_batches=len(batches),
    )
    yield f"step {facts['step'] + 1}, batches of rank {chosen}"
    yield from _unsound_weights(tools.networks)
    yield f"first output that is not finite: {broken[0]}" if broken else "every output of every module is finite"
    for finding in result.findings:
        where = "gradient" if finding.micro_batch is None else f"rank {finding.rank}"
        yield f"  {where}: {finding.name} = {finding.value:g}"
    yield "the step fails again." if result.skipped else "the step went well this time."


def _rank_to_take(found: dict[str, Any], rank: int | None) -> int:
    if rank is not None:
        return rank
    return int(found["findings"][0]["rank"]) if found["findings"] else 0


def _views(batches: Iterable[Batch], *, config: Config, device: torch.device) -> Iterator[Views]:
    for batch in batches:
        yield batch.to(device).views(mean=config.data.mean, std=config.data.std)


def _watch(networks: Networks, broken: list[str]) -> None:
    """Notes the names of modules, in the order in which they compute, whose output is not finite."""
    names = {module: name for name, module in networks.named_modules()}

    def look(module: nn.Module, _inputs: Any, output: Any) -> None:
        if any(not tensor.isfinite().all() for tensor in _tensors(output)):
            broken.append(names[module])

    for module in names:
        module.register_forward_hook(look)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor) and value.is_floating_point():
        yield value
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


def _unsound_weights(networks: Networks) -> Iterator[str]:
    names = [name for name, parameter in networks.named_parameters() if not bool(parameter.isfinite().all())]
    if names:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        yield f"the weights themselves are not finite before this step: {names[0]}{more}"
