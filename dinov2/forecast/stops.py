"""What would stop a run, found before it is started.

In: what is known of a run. Out: faults in words, all of them, each with what to do.
"""

import math
import os
from collections.abc import Iterator
from pathlib import Path

from dinov2.forecast.doubts import Facts
from dinov2.forecast.memory import GIB
from dinov2.forecast.plan import existing

CONFIDENCE = 1.96  # standard deviations of a share's lower bound


def stops(facts: Facts, *, output_dir: Path | None) -> tuple[str, ...]:
    """Beside what could not be opened at all: pictures, memory and the disk."""
    return (*_unreadable(facts), *_memory(facts), *_disk(facts, output_dir))


def _unreadable(facts: Facts) -> Iterator[str]:
    data = facts.data
    if not data or not data.unreadable:
        return
    bad, sampled = len(data.unreadable), data.num_sampled
    allowed = facts.config.data.max_unreadable_share
    surely = bad / sampled if sampled == data.num_pictures else lower_bound(bad, of=sampled)
    if surely > allowed:
        named = "; ".join(f"{path}: {reason}" for path, reason in list(data.unreadable.items())[:3])
        yield (
            f"{bad} of {sampled} pictures cannot be read, more than data.max_unreadable_share = {allowed:g} allows: "
            f"{named}. Repair or exclude them (data.exclude=FILES.csv), or raise the share."
        )


def lower_bound(count: int, *, of: int) -> float:
    """The share that is surely there when `count` of a random sample are: Wilson's lower bound at 95%."""
    share, z = count / of, CONFIDENCE
    spread = z * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    return max(0.0, (share + z * z / (2 * of) - spread) / (1 + z * z / of))


def _memory(facts: Facts) -> Iterator[str]:
    memory = facts.memory
    if not memory or not memory.on_gpu or memory.rows[0].peak.total <= memory.capacity:
        return
    configured, *others = memory.rows
    advice = [f"train.batch_size_per_gpu={configured.largest_batch}"] if configured.largest_batch else []
    fitting = [row for row in others if row.peak.total <= memory.limit]
    if fitting:
        advice.append(f"compute_precision.*.sharding_strategy={min(fitting, key=lambda r: r.peak.total).strategy}")
    if facts.launch.batch_size > 1:
        advice.append("a smaller batch with runtime.gradient_accumulation_steps")
    yield (
        f"memory: {configured.peak.total / GIB:.1f} GiB are needed per GPU, and it has {memory.capacity / GIB:.0f} "
        f"(--gpu-memory-gb). Take {', '.join(advice) or 'smaller crops or a smaller network'}."
    )


def _disk(facts: Facts, output_dir: Path | None) -> Iterator[str]:
    plan = facts.plan
    if output_dir is None:
        return
    place = existing(output_dir)
    if not os.access(place, os.W_OK):
        yield f"{place}: cannot be written to. Choose another --output-dir."
    elif plan.disk_free is not None and plan.disk_free < 2 * plan.checkpoint_bytes:
        yield (
            f"{place}: {plan.disk_free / GIB:.1f} GiB are free, and two checkpoints of "
            f"{plan.checkpoint_bytes / GIB:.1f} GiB must fit, because the new one is whole before the "
            "old one goes. Choose another --output-dir."
        )
