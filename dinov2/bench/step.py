"""Seconds and memory of the training step on random crops, ours and the plain form of it.

In: sizes, number formats, settings of ours. Out: seconds per step, FLOPs, the share of the machine's matrix-product
rate, peak memory, and where the time goes as a picture. The default is the case whose public figure is known: ViT-S/14,
8 pictures, 2x224 + 8x98 crops, 8,192 prototypes. All forms of a number format run in one process, taking turns, so that
their ratios hold on a busy machine too; memory is measured in a process per form.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from dinov2.batch import Views
from dinov2.bench.case import (
    FEWEST,
    Case,
    Form,
    add_case_arguments,
    add_ceiling_arguments,
    add_form_arguments,
    case_of,
    config_of,
    forms_of,
    plain_form,
    random_views,
)
from dinov2.bench.ceilings import MatrixRates, copy_rate, give_back, matrix_rates, settle
from dinov2.bench.forms import OUT_OF_MEMORY, Step, build_form, flops_left_out, flops_per_picture, peak_of
from dinov2.bench.machine import device_of, machine_facts
from dinov2.bench.profile_picture import draw_profiles
from dinov2.bench.profile_step import StepProfile, name_compiled_kernels, profile_step
from dinov2.bench.progress import Tell, announced
from dinov2.distributed import keep_freed_memory
from dinov2.errors import ConfigError, Dinov2Error
from dinov2.ssl.precision import DTYPES

NUM_WARM_UP = 2
SMALLER = 0.75  # what a batch that does not fit is multiplied by, for the plain form


@dataclass(kw_only=True)
class Runner:
    """One form on its way through the measurement."""

    form: Form
    case: Case
    step: Step | None = None  # None: it cannot run, and `reason` says why
    views: Views | None = None
    reason: str = ""
    seconds: list[float] = field(default_factory=list)
    core_seconds: list[float] = field(default_factory=list)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this measurement."""
    add_case_arguments(parser)
    add_form_arguments(parser, precision=["fp32", "bf16"])
    add_ceiling_arguments(parser)
    parser.add_argument("--against", choices=["plain"], help="also run the step as public code does it, in turns")
    parser.add_argument("--steps", type=int, default=3, help=f"measured steps, after {NUM_WARM_UP} that are not")
    parser.add_argument(
        "--memory", action=argparse.BooleanOptionalAction, default=True, help="measure it too, in a process per form"
    )
    parser.add_argument("--profile", type=Path, metavar="PNG", help="draw where the time of one step of each form goes")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """A row per number format and form."""
    if arguments.steps < 1:
        raise ConfigError(f"--steps {arguments.steps}: expected 1 or more.")
    device, case = device_of(arguments.device), case_of(arguments)
    kept = keep_freed_memory(device)  # as in a training, for every form
    per_format = {name: _forms(arguments, precision=name) for name in arguments.precision}
    num_forms = sum(map(len, per_format.values()))
    parts = 2 + len(per_format) * (arguments.steps + 1) + num_forms * (1 + arguments.memory)
    rows, profiles, rates = [], [], {}
    if arguments.profile:
        name_compiled_kernels()
    with announced("bench step", total=parts) as tell:
        tell("counting FLOPs")
        flops, left_out = flops_per_picture(case), flops_left_out(case)
        tell("copying memory")
        copied = copy_rate(device=device, seconds=arguments.ceiling_seconds)
        for precision, forms in per_format.items():
            measure_rate = partial(
                matrix_rates, device=device, dtype=DTYPES[precision], seconds=arguments.ceiling_seconds
            )
            runners, beside = _measure(
                case, forms, device=device, num_steps=arguments.steps, tell=tell, rate=measure_rate
            )
            rates[precision] = beside
            if arguments.profile:
                profiles += list(_profiles(runners, device=device))
            for runner in runners:
                runner.step = runner.views = None  # their memory is wanted by the processes that measure it
            rows += [
                _row(runner, flops=flops, rates=beside, runners=runners, on_cpu=device.type == "cpu")
                for runner in runners
            ]
        give_back(device)
        if arguments.memory:
            _add_memory(rows, case, [form for forms in per_format.values() for form in forms], device=device, tell=tell)
    if arguments.profile:
        draw_profiles(profiles, path=arguments.profile, title=f"One training step: {case}", device=_device_name(device))
    return {
        "machine": machine_facts(device),
        "ceilings": _ceilings(rates) | {"copy_bytes_per_second": copied},
        "settings": asdict(case)
        | {"preset": arguments.preset, "steps": arguments.steps, "device": device.type}
        | {"freed_memory_kept": kept},
        "flops_per_picture": flops,
        "flops_left_out_per_picture": left_out,
        "rows": rows,
        "profiles": [asdict(profile) for profile in profiles],
        "profile_picture": str(arguments.profile) if arguments.profile else None,
    }


def table(result: dict[str, Any]) -> Table:
    """The rows as a table."""
    machine, settings, ceilings = result["machine"], result["settings"], result["ceilings"]
    torch_rates = ceilings["torch_flops_per_second"]
    flops, left_out = result["flops_per_picture"], result["flops_left_out_per_picture"]
    rates = ", ".join(
        f"{name} {rate / 1e12:.2f} (torch's own {torch_rates[name] / 1e12:.2f})"
        for name, rate in ceilings["matrix_flops_per_second"].items()
    )
    shown = Table(
        title=f"training step of {_case_in(settings)}\non {machine['device']}, {machine['threads']} threads, "
        f"torch {machine['torch']}",
        caption=f"{flops / 1e12:.3f} TFLOP a picture, of which ours leaves out {left_out / flops:.1%}; the machine's "
        f"matrix products: {rates} TFLOP/s; copies: {ceilings['copy_bytes_per_second'] / 1e9:.0f} GB/s. share: of the "
        "first rate beside each step (of torch's own), median; gain: films/s against plain" + _asides(result),
    )
    for column in ("format", "form", "s/step", "spread", "films/s", "share", "GiB", "gain"):
        is_words = column == "form"
        shown.add_column(column, justify="left" if is_words else "right", no_wrap=not is_words)
    for row in result["rows"]:
        shown.add_row(row["precision"], label_of(row), *_cells(row))
    return shown


def label_of(row: dict[str, Any]) -> str:
    """What makes this form different, in a few words."""
    if row["form"] == "plain":
        return "plain"
    words = [f"attention {row['attention']}"] if row["attention"] != "auto" else []
    words += {"always": ["compiled"], "never": ["eager"], "auto": []}[row["compile"]]
    words += [f"checkpointing {row['checkpointing']}"] if row["checkpointing"] != "pointwise" else []
    return "ours" + (f" ({', '.join(words)})" if words else "")


def _cells(row: dict[str, Any]) -> list[str]:
    if row["seconds_per_step"] is None:
        return ["cannot", "run", *[""] * 4]
    memory = row["peak_memory_bytes"]
    return [
        f"{row['seconds_per_step']:.3f}",
        f"{row['spread']:.1%}",
        f"{row['pictures_per_second']:.2f}",
        f"{row['share_of_matrix_rate']:.0%} ({row['share_of_torch_rate']:.0%})",
        f"{memory / 2**30:.2f}" if memory else "",
        f"{row['speed_up']:.2f}" if row["speed_up"] else "",
    ]


def _asides(result: dict[str, Any]) -> str:
    asides = [f"{row['precision']}, {label_of(row)}: {row['reason']}" for row in result["rows"] if row["reason"]]
    by_core = [row["speed_up_by_core"] for row in result["rows"] if row["speed_up_by_core"]]
    if by_core:
        asides.append("by processor time: " + ", ".join(f"{ratio:.2f}" for ratio in by_core))
    if result["profile_picture"]:
        asides.append(f"profile: {result['profile_picture']}")
    return "".join(f"\n{aside}" for aside in asides)


def _forms(arguments: argparse.Namespace, *, precision: str) -> list[Form]:
    ours = forms_of(arguments, precision=precision)
    return [*ours, plain_form(precision)] if arguments.against == "plain" else ours


def _measure(
    case: Case,
    forms: list[Form],
    *,
    device: torch.device,
    num_steps: int,
    tell: Tell,
    rate: Callable[[], MatrixRates],
) -> tuple[list[Runner], list[MatrixRates]]:
    """Every form built and warmed up, then all of them in turns; and the machine's rates beside each turn.

    The clock of a machine changes within minutes: a turn is held against the higher of the rates before and after it.
    """
    runners = []
    for form in forms:
        tell(f"warming up {form}")
        runners.append(_warm(form, case, device=device))
    tell(f"matrix products in {forms[0].precision}")
    rates = [rate()]
    for step in range(NUM_WARM_UP, NUM_WARM_UP + num_steps):
        tell(f"{forms[0].precision}, step {step - NUM_WARM_UP + 1} of each form")
        for runner in runners:
            if runner.step is not None and runner.views is not None:
                settle(device)
                clock, core = time.perf_counter(), time.process_time()
                runner.step(runner.views, step)
                settle(device)
                runner.seconds.append(time.perf_counter() - clock)
                runner.core_seconds.append(time.process_time() - core)
        rates.append(rate())
    return runners, [MatrixRates.highest(pair) for pair in pairwise(rates)]


def _warm(form: Form, case: Case, *, device: torch.device) -> Runner:
    """A form that has done its first steps. The plain one takes the largest part of the batch that fits."""
    asked = case.batch_size
    while True:
        runner = _try(form, case, device=device)
        give_back(device)
        smaller = int(case.batch_size * SMALLER)
        if runner.reason != OUT_OF_MEMORY or form.name != "plain" or smaller < FEWEST["batch_size"]:
            break
        case = replace(case, batch_size=smaller)
    if runner.step is not None and runner.case.batch_size != asked:
        runner.reason = f"plain does not fit at {asked} pictures; measured at {runner.case.batch_size}"
    return runner


def _try(form: Form, case: Case, *, device: torch.device) -> Runner:
    try:
        config = config_of(case, form, device=device)
        do, views = build_form(form, config, device=device), random_views(config, device=device)
        for step in range(NUM_WARM_UP):
            do(views, step)
        settle(device)
    except torch.OutOfMemoryError:
        reason = OUT_OF_MEMORY
    except Dinov2Error as error:
        reason = str(error)
    else:
        return Runner(form=form, case=case, step=do, views=views)
    return Runner(form=form, case=case, reason=reason)


def _row(
    runner: Runner, *, flops: float, rates: list[MatrixRates], runners: list[Runner], on_cpu: bool
) -> dict[str, Any]:
    form, count = runner.form, runner.case.batch_size
    about = {"precision": form.precision, "form": form.name, "attention": form.attention, "compile": form.compile}
    about |= {"checkpointing": form.checkpointing, "reason": runner.reason}
    row: dict[str, Any] = about | {
        "batch_size": count,
        "seconds_per_step": None,
        "seconds_all": runner.seconds,
        "core_seconds_all": runner.core_seconds,
        "spread": None,
        "pictures_per_second": None,
        "flops_per_step": flops * count,
        "matrix_rate": statistics.median(one.best for one in rates),
        "share_of_matrix_rate": None,
        "share_of_torch_rate": None,
        "peak_memory_bytes": None,
        "memory_before_bytes": None,
        "speed_up": None,
        "speed_up_by_core": None,
    }
    if not runner.seconds:
        return row
    median = statistics.median(runner.seconds)
    row["seconds_per_step"], row["pictures_per_second"] = median, count / median
    row["spread"] = (max(runner.seconds) - min(runner.seconds)) / median
    reached = [flops * count / took for took in runner.seconds]
    for name, ceilings in (("matrix", [one.best for one in rates]), ("torch", [one.torch for one in rates])):
        shares = (rate / most for rate, most in zip(reached, ceilings, strict=True))
        row[f"share_of_{name}_rate"] = statistics.median(shares)
    plain = next((other for other in runners if other.form.name == "plain" and other.seconds), None)
    if form.name == "ours" and plain is not None:
        per_picture = statistics.median(plain.seconds) / plain.case.batch_size
        row["speed_up"] = per_picture / (median / count)
        if on_cpu and plain.case == runner.case:
            row["speed_up_by_core"] = statistics.median(plain.core_seconds) / statistics.median(runner.core_seconds)
    return row


def _ceilings(rates: dict[str, list[MatrixRates]]) -> dict[str, Any]:
    """By number format: the median over the turns, and the rates beside each of them."""
    kinds: dict[str, Callable[[MatrixRates], float]] = {"matrix": lambda one: one.best, "torch": lambda one: one.torch}
    found: dict[str, Any] = {}
    for kind, of in kinds.items():
        beside = {precision: [of(one) for one in turns] for precision, turns in rates.items()}
        medians = {precision: statistics.median(turns) for precision, turns in beside.items()}
        found |= {f"{kind}_flops_per_second": medians, f"{kind}_flops_per_second_beside": beside}
    return found


def _profiles(runners: list[Runner], *, device: torch.device) -> Iterator[StepProfile]:
    """The plain form before, the first of ours after."""
    able = [runner for runner in runners if runner.seconds]
    chosen = [r for r in able if r.form.name == "plain"] + [r for r in able if r.form.name == "ours"][:1]
    for runner in chosen:
        step, views = runner.step, runner.views
        assert step is not None
        assert views is not None
        yield profile_step(
            partial(step, views, NUM_WARM_UP),
            label=f"{'before' if runner.form.name == 'plain' else 'after'}: {runner.form}",
            seconds=statistics.median(runner.seconds),
            prototypes=runner.case.prototypes,
            device=device,
        )


def _add_memory(rows: list[dict[str, Any]], case: Case, forms: list[Form], *, device: torch.device, tell: Tell) -> None:
    for row, form in zip(rows, forms, strict=True):
        tell(f"memory of {form}")
        if row["seconds_per_step"] is None:
            continue
        peak = peak_of(replace(case, batch_size=row["batch_size"]), form, device=device)
        row["peak_memory_bytes"], row["memory_before_bytes"] = peak.bytes, peak.before


def _case_in(settings: dict[str, Any]) -> str:
    return str(Case(**{name: settings[name] for name in asdict(Case())}))


def _device_name(device: torch.device) -> str:
    facts = machine_facts(device)
    return f"{facts['device']}, torch {facts['torch']}"
