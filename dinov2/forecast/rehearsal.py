"""One training step on tensors without memory.

In: a configuration, the number formats of its parts, a batch size. Out: a `Course`: the bytes that were alive after
every operation of the forward and the backward pass. The networks, the losses and their order are those of the
training; only the values are missing, so that a step of any size takes seconds and no memory.

The blocks run eagerly, whatever `runtime.compile` says: in the place of a compiled block stands one that makes
norms and activation functions again, which keeps about as much.

Weights, optimiser and their exchange between processes are not in it: they depend on the sharding and are added by
`dinov2.forecast.sharding`.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_map

from dinov2.batch import NUM_GLOBAL_CROPS, Batch
from dinov2.config.schema import Config
from dinov2.forecast.dimensions import checkpointing_of
from dinov2.forecast.live import Label, LiveBytes, storages
from dinov2.forecast.on_gpu import GpuAutocast, fused_attention
from dinov2.layers import Attention
from dinov2.layers.block import use_checkpointing
from dinov2.layers.kernels import ON_GPU_ONLY, size_by_size
from dinov2.loss import Reductions
from dinov2.ssl import Networks, build_networks, build_objective
from dinov2.ssl.networks import backbone_of, needed_heads
from dinov2.ssl.precision import SIDES, Layouts

TEMPERATURE = 0.05  # of the teacher; no shape depends on it


@dataclass(frozen=True, kw_only=True)
class Unit:
    """Parameters that are gathered together: one block, or what else a part has."""

    number: int
    side: str
    part: str
    block: int | None  # None: the part without its blocks
    shapes: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Course:
    """What one step held from operation to operation."""

    bytes_alive: NDArray[np.int64]  # [operations, labels]
    marks: tuple[tuple[int, str, int], ...]  # (operation, "open", "close", "done" or "backward", unit)
    saved: dict[Label, int]  # bytes that the forward pass left to the backward pass; weights in use are not among them


class Rehearsal:
    """The networks of a configuration without their values; `step` may be called for any batch size.

    Of the tensors in `networks` only shapes and number formats mean something; they can be used inside `no_values`.
    """

    def __init__(self, config: Config, *, formats: Layouts, num_processes: int, on_gpu: bool) -> None:
        self.config, self.formats = config, formats
        self.sharded, self.on_gpu = num_processes > 1, on_gpu
        self._reductions = _exchange(num_processes) if self.sharded else None
        self.no_values = FakeTensorMode(allow_non_fake_inputs=True)
        self.networks = self._build()
        self._objective = build_objective(
            dino=config.dino, ibot=config.ibot, centering=config.train.centering, reductions=self._reductions
        )
        self.units = tuple(_units(self.networks))
        self._live = LiveBytes()
        self._left: dict[int, list[nn.Parameter]] = {}
        self._listen()

    def step(self, *, batch_size: int, num_masked: int) -> Course:
        """A forward and a backward pass over `batch_size` pictures with `num_masked` hidden patches in all."""
        heads = needed_heads(dino=self.config.dino, ibot=self.config.ibot).values()
        self._live = LiveBytes(
            num_masked=num_masked,
            prototypes=frozenset(head.head_n_prototypes for head in heads),
            weights=storages(self.networks.parameters()),
        )
        self._left = {}
        # What is computed again in the backward pass has the formats that it had in the forward pass.
        with self.no_values, GpuAutocast() if self.on_gpu else nullcontext(), self._live as live:
            views = _blank_batch(self.config, batch_size=batch_size).views(
                mean=self.config.data.mean, std=self.config.data.std
            )
            live.label = Label.LOSSES
            losses = self._objective(self.networks, views, teacher_temperature=TEMPERATURE, formats=self._contexts)
            live.label = Label.BACKWARD
            live.mark("backward", -1)
            saved = live.now()
            torch.autograd.backward(losses.total)
        for parameter in self.networks.parameters():
            parameter.grad = None
        return Course(bytes_alive=live.timeline(), marks=tuple(live.marks), saved=saved)

    def _build(self) -> Networks:
        config, attention = self.config, self.config.runtime.attention
        with torch.device("meta"):
            networks = build_networks(
                student=config.student,
                dino=config.dino,
                ibot=config.ibot,
                img_size=config.crops.global_crops_size,
                attention="sdpa" if attention in ON_GPU_ONLY else attention,
                reductions=self._reductions,
            )
        with self.no_values:
            for side in SIDES:
                for name, part in networks.parts(side).items():
                    dtype = self.formats[side, name].param_dtype if self.sharded else torch.float32
                    _forget_values(part, dtype=dtype)
            _forget_values(networks.dino_loss, dtype=torch.float32)
            _forget_values(networks.ibot_patch_loss, dtype=torch.float32)
        for layer in networks.modules():
            if isinstance(layer, Attention) and self.on_gpu and attention != "explicit":
                layer.kernel = size_by_size(fused_attention)
        use_checkpointing(networks.student, checkpointing_of(config.runtime, on_gpu=self.on_gpu))
        return networks.train()

    def _contexts(self, side: str, part: str) -> AbstractContextManager[None]:
        dtype = self.formats[side, part].param_dtype
        return self._inside(side, part, dtype=torch.float32 if self.sharded else dtype)

    @contextmanager
    def _inside(self, side: str, part: str, *, dtype: torch.dtype) -> Iterator[None]:
        label = Label.BACKBONE if part == "backbone" else Label.HEADS
        with ExitStack() as stack:
            stack.enter_context(self._live.labelled(Label.TEACHER if side == "teacher" else label))
            stack.enter_context(
                torch.autocast("cpu", dtype=dtype) if dtype != torch.float32 else nullcontext()  # the device of these
            )
            yield

    def _listen(self) -> None:
        """Marks where each unit computes, and gives its gradients away where a sharded training does."""
        for unit in self.units:
            module = _module_of(unit, self.networks)
            module.register_forward_pre_hook(partial(self._opens, unit), with_kwargs=True)
            module.register_forward_hook(lambda *_, unit=unit: self._live.mark("close", unit.number))
            for parameter in _parameters_of(unit, self.networks):
                if parameter.requires_grad:
                    hook = partial(self._has_gradient, unit)
                    parameter.register_post_accumulate_grad_hook(hook)  # type: ignore[no-untyped-call]

    def _opens(self, unit: Unit, _: nn.Module, args: Any, kwargs: Any) -> Any:
        self._live.mark("open", unit.number)
        dtype = self.formats[unit.side, unit.part].param_dtype

        def cast(value: Any) -> Any:
            return value.to(dtype) if isinstance(value, Tensor) and value.is_floating_point() else value

        return tree_map(cast, (args, kwargs)) if self.sharded else None

    def _has_gradient(self, unit: Unit, parameter: Tensor) -> None:
        assert parameter.grad is not None
        self._live.relabel(parameter.grad, Label.GRADIENTS)
        if not self.sharded:
            return
        parameters = _parameters_of(unit, self.networks)
        if all(one.grad is not None for one in parameters if one.requires_grad):
            self._live.mark("done", unit.number)
            for one in parameters:
                one.grad = None


def _units(networks: Networks) -> Iterator[Unit]:
    number = 0
    for side in SIDES:
        for part, module in networks.parts(side).items():
            blocks = len(backbone_of({"backbone": module}).blocks) if part == "backbone" else 0
            for block in (None, *range(blocks)):
                unit = Unit(number=number, side=side, part=part, block=block, shapes=())
                shapes = tuple(tuple(parameter.shape) for parameter in _parameters_of(unit, networks))
                yield Unit(number=number, side=side, part=part, block=block, shapes=shapes)
                number += 1


def _module_of(unit: Unit, networks: Networks) -> nn.Module:
    part = networks.parts(unit.side)[unit.part]
    return part if unit.block is None else backbone_of({"backbone": part}).blocks[unit.block]


def _parameters_of(unit: Unit, networks: Networks) -> list[nn.Parameter]:
    named = _module_of(unit, networks).named_parameters()
    return [parameter for name, parameter in named if unit.block is not None or not name.startswith("blocks.")]


def _forget_values(module: nn.Module, *, dtype: torch.dtype) -> None:
    """Puts a tensor without memory in the place of every parameter and buffer."""
    for layer in module.modules():
        for name, parameter in list(layer.named_parameters(recurse=False)):
            empty = torch.empty(parameter.shape, dtype=dtype)
            setattr(layer, name, nn.Parameter(empty, requires_grad=parameter.requires_grad))
        for name, buffer in list(layer.named_buffers(recurse=False)):
            setattr(layer, name, torch.empty(buffer.shape, dtype=buffer.dtype))


def _blank_batch(config: Config, *, batch_size: int) -> Batch:
    crops = config.crops
    sides = ((NUM_GLOBAL_CROPS, crops.global_crops_size), (crops.local_crops_number, crops.local_crops_size))
    global_crops, local_crops = (
        torch.empty((number * batch_size, side, side), dtype=torch.uint8) for number, side in sides
    )
    num_patches = (crops.global_crops_size // config.student.patch_size) ** 2
    return Batch(
        global_crops=global_crops,
        local_crops=local_crops,
        masks=torch.empty((NUM_GLOBAL_CROPS * batch_size, num_patches), dtype=torch.bool),
        positions=torch.empty(batch_size, dtype=torch.int64),
    )


def _exchange(num_processes: int) -> Reductions:
    """What the losses hold while they exchange; the rows of all processes are copies of this one's."""
    return Reductions(
        sum=lambda tensor: tensor.clone(),
        max=lambda tensor: tensor.clone(),
        gather=lambda tensor: tensor.repeat(num_processes, 1),
        rank=0,
    )
