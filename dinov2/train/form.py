"""How the networks of a training compute: which of their parts are compiled, and what is computed again.

In: networks as they were built, the `runtime` section and the device. Out: the same networks in that form, and words
on it for the log. The numbers do not depend on it, beyond rounding.
"""

import os
import shutil
from dataclasses import dataclass
from importlib.util import find_spec

import torch

from dinov2.config.schema import Runtime
from dinov2.errors import ConfigError
from dinov2.layers import choose_attention
from dinov2.layers.block import compile_blocks, use_checkpointing
from dinov2.ssl.networks import Networks


@dataclass(frozen=True, kw_only=True)
class Form:
    """The chosen form."""

    compiled: bool
    reason: str  # why compiled or not, for the log
    checkpointing: str


def choose_form(runtime: Runtime, *, device: torch.device) -> Form:
    """What `runtime.compile` and `runtime.activation_checkpointing` come to on this device.  Raises ConfigError."""
    if device.type == "cpu":
        choose_attention(runtime.attention, device)  # refuses a kernel for GPUs before anything is built
    compiled, reason = _compiled(runtime, device=device)
    return Form(compiled=compiled, reason=reason, checkpointing=runtime.activation_checkpointing)


def apply_form(networks: Networks, form: Form, *, runtime: Runtime) -> None:
    """Puts the blocks of student and teacher into their form; before they are sharded."""
    use_checkpointing(networks.student, runtime.activation_checkpointing)
    if form.compiled:
        compile_blocks(networks.student)
        compile_blocks(networks.teacher)


def _compiled(runtime: Runtime, *, device: torch.device) -> tuple[bool, str]:
    if runtime.compile == "never":
        return False, "as configured"
    fault = _cannot_compile(runtime, device=device)
    if runtime.compile == "always":
        if fault:
            raise ConfigError(f"runtime.compile=always: {fault}. Set runtime.compile=never.")
        return True, "as configured"
    if device.type == "cpu":
        return False, "auto: on a CPU it gains too little for the minutes it takes"
    return not fault, f"auto: {fault or 'on a GPU'}"


def _cannot_compile(runtime: Runtime, *, device: torch.device) -> str:
    """Why nothing can be compiled here; empty where it can."""
    if runtime.attention == "xformers":
        return "the kernels of xformers cannot be part of a compiled block"
    if device.type == "cuda":
        return "" if find_spec("triton") else "Triton is not installed"
    compiler = os.environ.get("CXX") or "g++"
    return "" if shutil.which(compiler) or shutil.which("clang++") else f"no C++ compiler ({compiler}) is installed"
