"""Processes in words: ranks, and where they stand.

In: ranks, machines, what each does and for how long. Out: text for a person.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

NUM_HOSTS = 4  # machines that are named
NUM_GROUPS = 8  # groups of processes that are told apart


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What one process does."""

    host: str
    step: int
    phase: str
    seconds: float  # in this phase
    details: str = ""
    silent_seconds: float = 0.0  # since its last sign of life, where that is worth a word


def name_ranks(ranks: Iterable[int]) -> str:
    """`rank 3`, or `ranks 0-2, 4-63`."""
    ordered = sorted(set(ranks))
    runs: list[list[int]] = []
    for rank in ordered:
        if runs and rank == runs[-1][-1] + 1:
            runs[-1].append(rank)
        else:
            runs.append([rank])
    parts = [str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
    return f"rank{'s' * (len(ordered) > 1)} {', '.join(parts)}"


def name_places(ranks: Iterable[int], hosts: Mapping[int, str]) -> str:
    """`rank 3 (node7)`, or `ranks 4-7 (node2)`."""
    listed = list(ranks)
    machines = sorted({hosts[rank] for rank in listed})
    more = f" and {len(machines) - NUM_HOSTS} more" if len(machines) > NUM_HOSTS else ""
    return f"{name_ranks(listed)} ({', '.join(machines[:NUM_HOSTS])}{more})"


def tell_standings(standings: Mapping[int, Standing]) -> str:
    """Processes that do the same are told together; `ranks 0-2, 4-63: backward for 301 s; rank 3 (node7): data ...`."""
    groups: dict[tuple[int, str, str, bool], list[int]] = {}
    for rank, one in sorted(standings.items()):
        groups.setdefault((one.step, one.phase, one.details, one.silent_seconds > 0), []).append(rank)
    same_step = len({one.step for one in standings.values()}) == 1
    told = []
    for ranks in sorted(groups.values(), key=len, reverse=True)[:NUM_GROUPS]:
        members = [standings[rank] for rank in ranks]
        one = members[0]
        who = name_places(ranks, {ranks[0]: one.host}) if len(ranks) == 1 else name_ranks(ranks)
        text = f"{who}: {one.phase} for {max(member.seconds for member in members):.0f} s"
        text += "" if same_step else f" at step {one.step}"
        silent = max(member.silent_seconds for member in members)
        text += f", without a sign of life for {silent:.0f} s" if silent else ""
        told.append(text + (f": {one.details}" if one.details else ""))
    more = len(groups) - NUM_GROUPS
    return "; ".join(told) + (f"; and {more} more groups" if more > 0 else "")
