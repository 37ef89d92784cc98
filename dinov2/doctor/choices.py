"""What `auto` comes to on this machine, and why: asked of the very functions that a training asks.

In: a configuration. Out: findings, each with the key that decides otherwise.
"""

import os
from collections.abc import Callable

import torch

from dinov2.config.schema import Config
from dinov2.distributed import World, read_world
from dinov2.doctor.finding import Finding, first_line
from dinov2.errors import Dinov2Error
from dinov2.layers import choose_attention
from dinov2.preprocess.work.pool import default_workers
from dinov2.ssl.precision import choose_precision
from dinov2.train.form import choose_form
from dinov2.train.run import num_workers

TOPIC = "choices"
WIDTH = 8  # of the head in the attention that is tried


def examine(config: Config) -> tuple[Finding, ...]:
    """Device, number formats, attention, compilation, workers; broken where a training would be refused."""
    try:
        world = read_world(os.environ, device=config.runtime.device)
    except Dinov2Error as error:
        return (Finding(topic=TOPIC, name="device", value="none", verdict="broken", why=first_line(error)),)
    looks: dict[str, Callable[[Config, World], tuple[str, str]]] = {
        "precision": _precision,
        "attention": _attention,
        "compile": _compile,
    }
    asked: dict[str, Finding] = {}
    for name, look in looks.items():
        finding = _asked(name, look, config=config, world=world)
        key = finding.why if finding.verdict == "broken" else name
        asked.setdefault(key, finding)  # one setting may be refused at several places with the same words
    return (
        _device(config, world),
        *asked.values(),
        _loader(config),
        Finding(
            topic=TOPIC,
            name="dinov2 preprocess",
            value=f"{default_workers()} processes",
            why="one for every core that may be used; --workers N decides otherwise",
        ),
    )


def _asked(name: str, look: Callable[[Config, World], tuple[str, str]], *, config: Config, world: World) -> Finding:
    try:
        value, why = look(config, world)
    except (Dinov2Error, RuntimeError) as error:  # a RuntimeError is torch's, of a GPU that does not compute
        return Finding(topic=TOPIC, name=f"runtime.{name}", value="refused", verdict="broken", why=str(error))
    return Finding(topic=TOPIC, name=f"runtime.{name}", value=value, why=why)


def _device(config: Config, world: World) -> Finding:
    asked, device = config.runtime.device, world.device
    why = "as configured" if asked != "auto" else "auto: a GPU is visible" if device.type == "cuda" else "auto: no GPU"
    count = torch.cuda.device_count() if device.type == "cuda" else 0
    if world.size > 1:
        why += f"; process {world.rank} of {world.size}"
    mend = (
        f"torchrun --nproc-per-node {count} -m dinov2 train ... uses all {count}"
        if count > 1 and world.size == 1
        else ""
    )
    return Finding(topic=TOPIC, name="runtime.device", value=str(device), why=why, mend=mend)


def _parts(config: Config) -> tuple[str, ...]:
    return ("backbone", "dino_head", "ibot_head") if config.ibot.separate_head else ("backbone", "dino_head")


def _precision(config: Config, world: World) -> tuple[str, str]:
    chosen = choose_precision(
        config.runtime.precision,
        config.compute_precision,
        parts=_parts(config),
        device=world.device,
        sharded=world.size > 1,
    )
    scaler = ", gradients scaled" if chosen.needs_scaler and config.compute_precision.grad_scaler else ""
    return f"{chosen.name}{scaler}", chosen.reason


def _attention(config: Config, world: World) -> tuple[str, str]:
    """`auto` decides at every call, so it is called once for each size of crop and its way back is looked at."""
    name = config.runtime.attention
    kernel = choose_attention(name, world.device)
    if name != "auto":
        return name, "as configured"
    formats = choose_precision(
        config.runtime.precision, config.compute_precision, parts=_parts(config), device=world.device, sharded=False
    )
    dtype = formats.layouts["student", "backbone"].param_dtype
    words = {}
    for crop, side in (("global", config.crops.global_crops_size), ("local", config.crops.local_crops_size)):
        tokens = 1 + config.student.num_register_tokens + (side // config.student.patch_size) ** 2
        qkv = torch.zeros(tokens, 3, 1, WIDTH, dtype=dtype, device=world.device, requires_grad=True)
        way_back = kernel(qkv, ((1, tokens),)).grad_fn
        explicit = way_back is not None and "_Explicit" in way_back.name()
        words[f"{crop} crops of {tokens:,} tokens"] = "explicit" if explicit else "sdpa"
    kinds = tuple(dict.fromkeys(words.values()))
    if len(kinds) == 1:
        return kinds[0], f"auto: the faster one for {' and '.join(words)} here"
    return " and ".join(kinds), "auto: " + ", ".join(f"{kind} for {what}" for what, kind in words.items())


def _compile(config: Config, world: World) -> tuple[str, str]:
    form = choose_form(config.runtime, device=world.device)
    return "compiled" if form.compiled else "not compiled", form.reason


def _loader(config: Config) -> Finding:
    workers, asked = num_workers(config), config.train.num_workers
    why = f"train.num_workers = {asked}"
    if workers < asked:
        why += f", but this process may use {workers} core(s)"
    return Finding(topic=TOPIC, name="loader", value=f"{workers} processes", why=why)
