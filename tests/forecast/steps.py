"""Small steps for the tests: a configuration, a batch, and real steps whose memory is counted or measured."""

import weakref
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dinov2.batch import Batch
from dinov2.bench.memory import resident_peak
from dinov2.config.load import load_config
from dinov2.config.schema import Config
from dinov2.distributed import World
from dinov2.forecast.live import Label, LiveBytes, storages
from dinov2.optim import build_schedule, schedule_at
from dinov2.ssl.precision import Layouts, choose_precision
from dinov2.train.build import build_tools
from dinov2.train.start import start_weights
from dinov2.train.step import StepTools, train_step

SMALL = (
    "student.arch=vit_custom",
    "student.embed_dim=96",
    "student.depth=3",
    "student.num_heads=3",
    "student.patch_size=8",
    "crops.global_crops_size=64",
    "crops.local_crops_size=32",
    "crops.local_crops_number=3",
    "dino.head_n_prototypes=512",
    "dino.head_hidden_dim=128",
    "dino.head_bottleneck_dim=64",
    "data.mean=[0.5]",
    "data.std=[0.25]",
    "runtime.device=cpu",
    "optim.total_steps=10",
    "optim.warmup_steps=2",
    "optim.freeze_last_layer_steps=1",
    "teacher.warmup_teacher_temp_steps=2",
    "ibot.head_n_prototypes=256",
    "ibot.head_hidden_dim=128",
    "ibot.head_bottleneck_dim=64",
)


def small_config(*overrides: str) -> Config:
    return load_config(None, overrides=[*SMALL, *overrides]).config


def formats_of(config: Config) -> Layouts:
    parts = ("backbone", "dino_head", *(("ibot_head",) if config.ibot.separate_head else ()))
    return choose_precision(
        config.runtime.precision,
        config.compute_precision,
        parts=parts,
        device=torch.device("cpu"),
        sharded=False,
    ).layouts


def batch_of(config: Config) -> Batch:
    """Noise; every other global crop has its first third of patches hidden."""
    crops, count = config.crops, config.train.batch_size_per_gpu
    num_patches = (crops.global_crops_size // config.student.patch_size) ** 2
    masks = torch.zeros(2 * count, num_patches, dtype=torch.bool)
    masks[::2, : num_patches // 3] = True
    return Batch(
        global_crops=_noise(2 * count, crops.global_crops_size),
        local_crops=_noise(crops.local_crops_number * count, crops.local_crops_size),
        masks=masks,
        positions=torch.arange(count),
    )


def num_masked(config: Config) -> int:
    return int(batch_of(config).masks.sum()) if config.ibot.loss_weight else 0


def one_process(config: Config) -> StepTools:
    return build_tools(config, world=World(rank=0, size=1, local_rank=0, device=torch.device("cpu")))


def counted_step(config: Config) -> tuple[LiveBytes, int]:
    """What a real forward and backward pass of one process held, and the bytes it kept between the two."""
    tools, batch = one_process(config), batch_of(config)
    outside = [*tools.networks.parameters(), batch.global_crops, batch.local_crops]  # the batch in bytes is let go of
    with LiveBytes(weights=storages(iter(outside))) as live:
        views = replace(batch, masks=batch.masks.clone()).views(mean=config.data.mean, std=config.data.std)
        live.label = Label.LOSSES
        losses = tools.objective(tools.networks, views, teacher_temperature=0.05, formats=tools.precision.formats)
        kept = sum(live.now().values())
        torch.autograd.backward(losses.total)
    return live, kept


def held_on_rank(world: World, runs: list[list[str]]) -> list[int]:
    """The most bytes that a real second step of each run held on this rank, weights and optimiser with it."""
    return [_held(world, words) for words in runs]


def _held(world: World, words: list[str]) -> int:
    config = load_config(None, overrides=words).config
    tools, batch = build_tools(config, world=world), batch_of(config)
    list(start_weights(tools, config, world=world))
    step(tools, config, batch, number=0)
    lasting = [p.to_local() if hasattr(p, "to_local") else p for p in tools.networks.parameters()]
    for state in tools.optimizer.state.values():
        lasting += [v.to_local() if hasattr(v, "to_local") else v for v in state.values() if isinstance(v, Tensor)]
    sizes = {t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in lasting}
    with _Polled() as polled:
        step(tools, config, batch, number=1)
    return sum(sizes.values()) + polled.most


def resident_after_step(words: list[str]) -> int:
    """Peak resident bytes of a process of its own that does two real steps."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
        return alone.submit(_resident, words).result(timeout=300)


def step(tools: StepTools, config: Config, batch: Batch, *, number: int) -> None:
    schedule = build_schedule(config.optim, config.teacher, train=config.train, global_batch=8)
    views = (batch.views(mean=config.data.mean, std=config.data.std) for _ in range(1))
    train_step(tools, views, plan=schedule_at(number, schedule=schedule), num_micro_batches=1)


def _resident(words: list[str]) -> int:
    torch.set_num_threads(1)
    config = load_config(None, overrides=words).config
    tools, batch = one_process(config), batch_of(config)
    for number in range(2):
        step(tools, config, batch, number=number)
    return resident_peak()


def _noise(count: int, side: int) -> Tensor:
    return torch.randint(0, 256, (count, side, side), dtype=torch.uint8)


class _Polled(TorchDispatchMode):
    """Asks every storage for its size after every operation: sharded weights are let go of by shrinking theirs."""

    def __init__(self) -> None:
        super().__init__()
        self.most = 0
        self._known: dict[int, Any] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor) and not tensor.is_mkldnn:  # a weight in oneDNN's blocks is no storage
                storage = tensor.untyped_storage()
                key = storage._cdata
                if key not in self._known:
                    self._known[key] = weakref.ref(storage, lambda _, key=key: self._known.pop(key, None))
        alive = [reference() for reference in list(self._known.values())]
        self.most = max(self.most, sum(storage.nbytes() for storage in alive if storage is not None))
        return out
