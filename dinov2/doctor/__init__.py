"""What this machine can do, what `auto` would choose on it, and what is missing with the command that brings it.

In: the configuration of a training. Out: a `Finding` for everything that was looked at. Nothing is downloaded and no
other machine is asked, but for SLURM's own commands.
"""

import importlib
from collections.abc import Callable

from dinov2.config.schema import Config
from dinov2.doctor.finding import Finding, Verdict, first_line

__all__ = ["TOPICS", "Finding", "Verdict", "examine"]

TOPICS = {
    "versions": "versions",
    "devices": "devices",
    "places": "places",
    "films": "decoding",
    "cluster": "cluster",
    "choices": "choices",
}
"""What is told, in its order -> the module that looks. Each is imported when its turn comes, for a library that does
not load shall hide what it is needed for and nothing else."""


def examine(config: Config, *, say: Callable[[str], None]) -> tuple[Finding, ...]:
    """Everything of `TOPICS`; `say` hears each topic first. Takes seconds: libraries are loaded."""
    found: list[Finding] = []
    for topic in TOPICS:
        say(topic)
        found += _look(topic, config)
    return tuple(found)


def _look(topic: str, config: Config) -> tuple[Finding, ...]:
    try:
        room = importlib.import_module(f"dinov2.doctor.{TOPICS[topic]}")
        findings: tuple[Finding, ...] = room.examine(config)
    except Exception as error:  # whatever a library that does not load raises; the versions say which one it is
        kind = type(error).__name__
        why = f"{kind}: {first_line(error)}"
        return (Finding(topic=topic, name=topic, value="cannot be looked at", verdict="broken", why=why),)
    return findings
