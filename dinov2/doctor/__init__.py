"""What this machine can do, what `auto` would choose on it, and what is missing with the command that brings it.

In: the configuration of a training. Out: a `Finding` for everything that was looked at. Nothing is downloaded and no
other machine is asked, but for SLURM's own commands.
"""

from collections.abc import Callable

from dinov2.config.schema import Config
from dinov2.doctor import choices, cluster, decoding, devices, places, versions
from dinov2.doctor.finding import Finding, Verdict

__all__ = ["Finding", "Verdict", "examine"]

TOPICS: dict[str, Callable[[Config], tuple[Finding, ...]]] = {
    "versions": lambda _: versions.examine(),
    "devices": lambda _: devices.examine(),
    "places": lambda _: places.examine(),
    "films": lambda _: decoding.examine(),
    "cluster": lambda _: cluster.examine(),
    "choices": choices.examine,
}
"""In the order in which they are told."""


def examine(config: Config, *, say: Callable[[str], None]) -> tuple[Finding, ...]:
    """Everything of `TOPICS`; `say` hears each topic first. Takes seconds: libraries are loaded."""
    found: list[Finding] = []
    for topic, look in TOPICS.items():
        say(topic)
        found += look(config)
    return tuple(found)
