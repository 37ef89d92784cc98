"""How much memory a training step takes: by form, by what is computed again for the backward pass, by batch size.

In: sizes, number formats, settings of ours. Out: peak bytes, each measured in a process of its own; the ratio to the
plain form; and the largest batch that fits. On a GPU the peak is that of torch's allocator and the largest batch is
found by trying; on a CPU the peak is resident memory, Python and its libraries included, and the largest batch is drawn
from two measured ones and tried once.
"""

import argparse
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from rich.table import Table

from dinov2.bench.case import (
    FEWEST,
    Case,
    Form,
    add_case_arguments,
    add_form_arguments,
    case_of,
    config_of,
    forms_of,
    plain_form,
    random_views,
)
from dinov2.bench.ceilings import give_back, settle
from dinov2.bench.forms import OUT_OF_MEMORY, STEPS_FOR_MEMORY, Peak, alone, build_form, peak_of
from dinov2.bench.machine import device_of, machine_facts
from dinov2.bench.progress import Tell, announced
from dinov2.bench.resident import memory_available, resident_peak
from dinov2.errors import ConfigError

__all__ = ["add_arguments", "largest_that_fits", "resident_peak", "run", "table"]

SHARE_OF_FREE = 0.8  # of the memory that is free, where no limit is given
FINE = 16  # the largest batch is found to one part in so many
MOST = 4096  # pictures; no search goes beyond


@dataclass(frozen=True, kw_only=True)
class Largest:
    """The largest batch of one form, in pictures."""

    pictures: int  # 0: not even the fewest that there can be
    confirmed: bool  # a step of that size was made and stayed within the limit
    peak_bytes: float | None  # of that step


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this measurement."""
    add_case_arguments(parser)
    add_form_arguments(parser, precision=["bf16"])
    parser.set_defaults(checkpointing=["none", "pointwise", "selective", "full"], compile=["never"])
    parser.add_argument("--batch-sizes", type=int, nargs="+", help="pictures (default: half the batch, and the batch)")
    parser.add_argument("--against", choices=["plain"], help="also the step as public code does it")
    parser.add_argument("--largest", action="store_true", help="also find the largest batch that fits, for each form")
    parser.add_argument(
        "--limit-gib", type=float, help="memory to fit in (default: a GPU's own; 80 %% of what is free)"
    )


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """A row per form and batch size, and one per form for the largest batch."""
    device, case = device_of(arguments.device), case_of(arguments)
    fewest = FEWEST["batch_size"]
    sizes = sorted(set(arguments.batch_sizes or (max(case.batch_size // 2, fewest), case.batch_size)))
    if sizes[0] < fewest:
        raise ConfigError(f"--batch-sizes {sizes[0]}: expected {fewest} or more.")
    if arguments.limit_gib is not None and arguments.limit_gib <= 0:
        raise ConfigError(f"--limit-gib {arguments.limit_gib}: expected a number above 0.")
    if arguments.largest and device.type == "cpu" and len(sizes) < 2:
        raise ConfigError("--largest on a CPU is drawn from two measured batches; give two to --batch-sizes.")
    limit = _limit(arguments.limit_gib, device=device)
    forms = [form for name in arguments.precision for form in _forms(arguments, precision=name)]
    rows, largest = [], []
    with announced("bench memory", total=len(forms) * (len(sizes) + arguments.largest)) as tell:
        for form in forms:
            peaks = {}
            for size in sizes:
                tell(f"{form}, {size} pictures")
                peaks[size] = peak_of(replace(case, batch_size=size), form, device=device)
            rows += [_row(form, size, peak) for size, peak in peaks.items()]
            if arguments.largest:
                found = _largest(case, form, peaks, device=device, limit=limit, tell=tell)
                largest.append(_about(form) | asdict(found))
    add_ratios(rows, to="peak_bytes", alike=("precision", "batch_size"))
    add_ratios(largest, to="pictures", alike=("precision",))
    return {
        "machine": machine_facts(device),
        "settings": asdict(case) | {"preset": arguments.preset, "batch_sizes": sizes, "device": device.type},
        "limit_bytes": limit,
        "rows": rows,
        "largest": largest,
    }


def table(result: dict[str, Any]) -> Table:
    """The rows as a table; the largest batch of a form behind its last row."""
    machine, settings = result["machine"], result["settings"]
    case = Case(**{name: settings[name] for name in asdict(Case()) if name != "batch_size"})
    what = "resident, Python included" if settings["device"] == "cpu" else "of torch's allocator"
    shown = Table(
        title=f"peak memory of a training step of {str(case).replace(f'{case.batch_size} pictures, ', '')}\n"
        f"on {machine['device']}, torch {machine['torch']}",
        caption=f"peak: {what}; ratio: to plain at the same batch; largest: the most pictures within "
        f"{result['limit_bytes'] / 2**30:.1f} GiB (~: computed, and a step of that size took more)",
    )
    for column in ("format", "form", "attention", "checkpointing", "batch", "peak GiB", "ratio", "largest"):
        shown.add_column(column, justify="left" if column in ("form", "attention", "checkpointing") else "right")
    largest = {_key(row): row for row in result["largest"]}
    last = {_key(row): row["batch_size"] for row in result["rows"]}
    for row in result["rows"]:
        found = largest.get(_key(row)) if row["batch_size"] == last[_key(row)] else None
        most = "" if found is None else f"{'' if found['confirmed'] else '~'}{found['pictures']}"
        names = (row["precision"], row["form"], row["attention"], row["checkpointing"], str(row["batch_size"]))
        peak = f"{row['peak_bytes'] / 2**30:.2f}" if row["peak_bytes"] else row["reason"]
        shown.add_row(*names, peak, f"{row['ratio_to_plain']:.2f}" if row["ratio_to_plain"] else "", most)
    return shown


def largest_that_fits(case: Case, form: Form, *, device: torch.device, limit: float) -> Largest:
    """By doubling and halving the interval, in this process, on a GPU."""
    if device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(min(limit / _installed(device), 1.0), device)
    do = build_form(form, config_of(case, form, device=device), device=device)
    fits = partial(_fits, do, case, form, device=device)
    low, high = 0, FEWEST["batch_size"]
    while high <= MOST and fits(high):
        low, high = high, 2 * high
    while high - low > max(low // FINE, 1):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return Largest(pictures=low, confirmed=low > 0, peak_bytes=None)


def _fits(do: Any, case: Case, form: Form, pictures: int, *, device: torch.device) -> bool:
    try:
        views = random_views(config_of(replace(case, batch_size=pictures), form, device=device), device=device)
        for step in range(STEPS_FOR_MEMORY):
            do(views, step)
        settle(device)
    except torch.OutOfMemoryError:
        fitted = False
    else:
        fitted = True
    give_back(device)
    return fitted


def _largest(
    case: Case, form: Form, peaks: dict[int, Peak], *, device: torch.device, limit: float, tell: Tell
) -> Largest:
    tell(f"{form}, the largest batch")
    nothing = Largest(pictures=0, confirmed=False, peak_bytes=None)
    if all(peak.bytes is None and peak.reason != OUT_OF_MEMORY for peak in peaks.values()):
        return nothing  # the form cannot run here at all
    if device.type == "cuda":
        found: Largest = alone(partial(largest_that_fits, device=device, limit=limit), case, form)
        return found
    (small, few), *_, (large, many) = ((size, peak.bytes) for size, peak in peaks.items())
    if few is None or many is None or many <= few:
        return nothing
    a_picture = (many - few) / (large - small)
    pictures = min(max(int(large + (limit - many) / a_picture), 0), MOST)
    if pictures < FEWEST["batch_size"]:
        return nothing
    peak = peak_of(replace(case, batch_size=pictures), form, device=device)
    return Largest(pictures=pictures, confirmed=(peak.bytes or limit + 1) <= limit, peak_bytes=peak.bytes)


def _forms(arguments: argparse.Namespace, *, precision: str) -> list[Form]:
    ours = forms_of(arguments, precision=precision)
    return [plain_form(precision), *ours] if arguments.against == "plain" else ours


def _limit(gib: float | None, *, device: torch.device) -> float:
    if gib is not None:
        return gib * 2**30
    return _installed(device) if device.type == "cuda" else SHARE_OF_FREE * memory_available()


def _installed(device: torch.device) -> float:
    return float(torch.cuda.get_device_properties(device).total_memory)


def _about(form: Form) -> dict[str, Any]:
    names = asdict(form)
    return {"form": names.pop("name")} | names


def _row(form: Form, size: int, peak: Peak) -> dict[str, Any]:
    measured = {"peak_bytes": peak.bytes, "before_bytes": peak.before, "reserved_bytes": peak.reserved}
    return _about(form) | {"batch_size": size} | measured | {"reason": peak.reason}


def add_ratios(rows: list[dict[str, Any]], *, to: str, alike: tuple[str, ...]) -> None:
    """Adds `ratio_to_plain` to every row: its value over that of the plain row that is alike."""
    plain = {tuple(row[key] for key in alike): row[to] for row in rows if row["form"] == "plain"}
    for row in rows:
        base = plain.get(tuple(row[key] for key in alike))
        row["ratio_to_plain"] = row[to] / base if base and row[to] and row["form"] != "plain" else None


def _key(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(row[key] for key in ("form", "precision", "attention", "compile", "checkpointing"))
