"""How many processes a run will have, and what each of them does in a step.

In: a configuration, `--processes` and `--processes-per-node`. Out: a `Launch`, and the command that starts it; or
faults, each with what to do.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from dinov2.config.lengths import pictures_per_process
from dinov2.config.schema import Config
from dinov2.errors import ConfigError

MOST_PER_NODE = 8  # GPUs of a usual machine, where nobody says how many


@dataclass(frozen=True, kw_only=True)
class Launch:
    """The processes of a run, one a GPU."""

    processes: int
    per_node: int
    batch_size: int  # pictures of one process and forward pass
    accumulation_steps: int
    group_size: int  # processes that share a copy under HYBRID_SHARD

    @property
    def global_batch(self) -> int:
        """Pictures per step over all processes and forward passes."""
        return self.batch_size * self.processes * self.accumulation_steps

    @property
    def nodes(self) -> int:
        """Machines."""
        return -(-self.processes // self.per_node)


def plan_launch(config: Config, *, processes: int, per_node: int | None) -> tuple[Launch, tuple[str, ...]]:
    """The launch, and faults that would stop it; where the batch does not divide, what is nearest to it."""
    faults = []
    per_node = min(processes, MOST_PER_NODE) if per_node is None else min(per_node, processes)
    if processes % per_node:
        faults.append(
            f"--processes {processes}: not a multiple of --processes-per-node {per_node}. torchrun starts equally many "
            "on every machine."
        )
    try:
        batch_size = pictures_per_process(config, num_processes=processes)
    except ConfigError as error:
        faults.append(str(error))
        batch_size = max(1, (config.train.global_batch_size or 1) // processes)
    group = min(config.runtime.shard_group_size or per_node, processes)
    uses_groups = any(strategy == "HYBRID_SHARD" for strategy in strategies(config).values())
    if processes > 1 and uses_groups and processes % group:
        faults.append(
            f"runtime.shard_group_size = {group}: {processes} processes cannot be split into groups of so many. Take a "
            "number that divides them, or FULL_SHARD."
        )
    launch = Launch(
        processes=processes,
        per_node=per_node,
        batch_size=batch_size,
        accumulation_steps=config.runtime.gradient_accumulation_steps,
        group_size=group if processes % group == 0 else processes,
    )
    return launch, tuple(faults)


def strategies(config: Config) -> dict[str, str]:
    """`compute_precision.*.sharding_strategy` by its full key."""
    return {
        f"compute_precision.{side}.{part}.sharding_strategy": getattr(
            getattr(config.compute_precision, side), part
        ).sharding_strategy
        for side in ("student", "teacher")
        for part in ("backbone", "dino_head", "ibot_head")
    }


def start_command(launch: Launch, *, config_file: str, output_dir: str | None, overrides: Sequence[str]) -> str:
    """The line that starts the run."""
    words = ["train", "--config-file", config_file, "--output-dir", output_dir or "RUN", *overrides]
    command = shlex.join(words)
    if launch.processes == 1:
        return f"dinov2 {command}"
    if launch.nodes == 1:
        return f"torchrun --standalone --nproc-per-node {launch.processes} -m dinov2 {command}"
    return (
        f"torchrun --nnodes {launch.nodes} --nproc-per-node {launch.per_node} --rdzv-backend c10d "
        f"--rdzv-endpoint HOST:29500 -m dinov2 {command}"
    )
