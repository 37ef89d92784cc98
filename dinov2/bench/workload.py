"""What a step of a run computes, and how fast this machine's device could: for the share that a run reaches.

In: a configuration and this process's world. Out: a `Workload`, FLOPs by closed formulas and a rate measured in a
fraction of a second; None where neither is known, which is no fault.
"""

import torch

from dinov2.bench.ceilings import matrix_rate
from dinov2.config.lengths import pictures_per_process
from dinov2.config.schema import Config
from dinov2.distributed import World
from dinov2.errors import ConfigError
from dinov2.forecast.dimensions import dimensions_of
from dinov2.forecast.flops import step_flops, total
from dinov2.train.loggers.system import Workload

USEFUL = ("teacher", "student forward", "student backward")  # without what is computed again to save memory
SECONDS = 0.1
SIDE = {"cpu": 768, "cuda": 8192}  # of the matrices; a CPU is at its rate long before it


def workload_of(config: Config, *, world: World) -> Workload | None:
    """Of the main process, which alone tells it; the others go on at once."""
    if not world.is_main:
        return None
    try:
        pictures = pictures_per_process(config, num_processes=world.size)
        dims = dimensions_of(config, pictures=pictures, processes=world.size, on_gpu=world.device.type == "cuda")
    except ConfigError:
        return None  # the run itself says what is wrong, and better
    flops = total(step_flops(dims), passes=USEFUL) * config.runtime.gradient_accumulation_steps
    rate = matrix_rate(device=world.device, dtype=dims.compute_dtype, seconds=SECONDS, side=SIDE[world.device.type])
    if world.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(world.device)
    return Workload(flops=flops, rate=rate)
