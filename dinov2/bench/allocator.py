"""What it gains on a CPU that a process keeps freed memory (`dinov2.distributed.host_memory`): with it and without.

In: sizes of the step and of an encoding, number formats. Out: seconds, page faults and peak memory of processes that
keep what is freed and of processes that leave it to the C library, in turns.
"""

import argparse
import os
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from rich.table import Table

from dinov2.bench.case import Case, Form, add_case_arguments, case_of, config_of, random_views
from dinov2.bench.forms import alone, build_form
from dinov2.bench.machine import machine_facts
from dinov2.bench.progress import announced
from dinov2.bench.resident import resident_peak
from dinov2.distributed import keep_freed_memory
from dinov2.errors import ConfigError
from dinov2.layers.attention import use_attention
from dinov2.models.vision_transformer import SIZES, DinoVisionTransformer
from dinov2.ssl.precision import DTYPES

SUBJECTS = ("step", "encode")
FORMATS = ("fp32", "bf16")
CPU = torch.device("cpu")
NUM_WARM_UP = 2


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What a process does again and again."""

    name: str  # of SUBJECTS
    precision: str
    case: Case  # encoding: its architecture, batch and side of the global crops


@dataclass(frozen=True, kw_only=True)
class Told:
    """By one process."""

    seconds: list[float]
    page_faults: list[int]
    peak_bytes: float  # resident, Python included


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this measurement."""
    add_case_arguments(parser)
    parser.add_argument("--only", nargs="+", choices=SUBJECTS, default=list(SUBJECTS), help="(default: both)")
    parser.add_argument("--precision", nargs="+", choices=FORMATS, default=list(FORMATS), help="(default: both)")
    parser.add_argument("--encode-arch", choices=tuple(SIZES), default="vit_base", help="(default vit_base)")
    parser.add_argument("--encode-size", type=int, default=518, help="side of the pictures, pixels (default 518)")
    parser.add_argument("--encode-batch", type=int, default=4, help="pictures at a time (default 4)")
    parser.add_argument("--repeats", type=int, default=3, help=f"in a process, after {NUM_WARM_UP} that do not count")
    parser.add_argument("--turns", type=int, default=2, help="processes of either kind, in turns (default 2)")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """A row per subject and number format.  Raises ConfigError, also where the C library cannot be told."""
    step, encode = _cases(arguments)
    if not alone(keep_freed_memory, CPU):
        raise ConfigError("bench allocator: freed memory cannot be kept here: no glibc, or MALLOC_ variables are set.")
    subjects = [
        Subject(name=name, precision=precision, case={"step": step, "encode": encode}[name])
        for name in arguments.only
        for precision in arguments.precision
    ]
    busy, rows = os.getloadavg()[0], []
    with announced("bench allocator", total=2 * arguments.turns * len(subjects)) as tell:
        for subject in subjects:
            told: dict[bool, list[Told]] = {False: [], True: []}
            for turn in range(arguments.turns):
                for kept in (False, True) if turn % 2 == 0 else (True, False):
                    tell(f"{subject.name}, {subject.precision}, freed memory {'kept' if kept else 'given back'}")
                    told[kept].append(alone(_measure, subject, kept, arguments.repeats))
            rows.append(_row(subject, told))
    return {
        "machine": machine_facts(CPU) | {"load_before": busy},
        "settings": {"step": asdict(step), "encode": asdict(encode)}
        | {"repeats": arguments.repeats, "turns": arguments.turns},
        "rows": rows,
    }


def table(result: dict[str, Any]) -> Table:
    """Kept beside given back."""
    machine = result["machine"]
    step, encode = (Case(**result["settings"][name]) for name in SUBJECTS)
    shown = Table(
        title=f"freed memory kept by the process, against given back by the C library\non {machine['device']}, "
        f"{machine['threads']} threads, torch {machine['torch']}; load before: {machine['load_before']:.1f}",
        caption=f"step: {step}; encode: {encode.batch_size} pictures of {encode.global_size} pixels, {encode.arch}/"
        f"{encode.patch_size}. Medians; GiB: most resident, Python included",
    )
    for column in ("what", "s", "given back", "ratio", "page faults", "given back", "GiB", "given back"):
        shown.add_column(column, justify="left" if column == "what" else "right")
    for row in result["rows"]:
        kept, given = row["kept"], row["given_back"]
        shown.add_row(
            f"{row['subject']}, {row['precision']}",
            *(f"{side['seconds']:.2f}" for side in (kept, given)),
            f"{row['speed_up']:.2f}",
            *(f"{side['page_faults']:,.0f}" for side in (kept, given)),
            *(f"{side['peak_bytes'] / 2**30:.2f}" for side in (kept, given)),
        )
    return shown


def _cases(arguments: argparse.Namespace) -> tuple[Case, Case]:
    """Of the step, and of the encoding."""
    for name in ("encode_size", "encode_batch", "repeats", "turns"):
        if getattr(arguments, name) < 1:
            raise ConfigError(f"--{name.replace('_', '-')} {getattr(arguments, name)}: expected 1 or more.")
    if arguments.device == "cuda":
        raise ConfigError("--device cuda: this measures a CPU. Leave the option out.")
    step = case_of(arguments)
    size, patch = arguments.encode_size, step.patch_size
    if size % patch:
        raise ConfigError(f"--encode-size {size}: no multiple of the patch, {patch}. Give {size // patch * patch}.")
    encode = Case(
        arch=arguments.encode_arch, patch_size=patch, batch_size=arguments.encode_batch, global_size=size, local_crops=0
    )
    return step, encode


def _measure(subject: Subject, kept: bool, repeats: int) -> Told:
    """In a process of its own."""
    if kept:
        keep_freed_memory(CPU)
    do = (_step if subject.name == "step" else _encoding)(subject)
    for _ in range(NUM_WARM_UP):
        do()
    seconds, faults = [], []
    for _ in range(repeats):
        before, started = _page_faults(), time.perf_counter()
        do()
        seconds.append(time.perf_counter() - started)
        faults.append(_page_faults() - before)
    return Told(seconds=seconds, page_faults=faults, peak_bytes=resident_peak())


def _step(subject: Subject) -> Callable[[], Any]:
    form = Form(precision=subject.precision, compile="never")
    config = config_of(subject.case, form, device=CPU)
    return partial(build_form(form, config, device=CPU), random_views(config, device=CPU), 1)


def _encoding(subject: Subject) -> Callable[[], Any]:
    case, dtype = subject.case, DTYPES[subject.precision]
    torch.manual_seed(0)
    sizes = SIZES[case.arch] | {"img_size": case.global_size, "patch_size": case.patch_size}
    vit = DinoVisionTransformer(**sizes).eval().to(dtype)
    use_attention(vit, "auto")
    pixels = torch.randn(case.batch_size, 3, case.global_size, case.global_size).to(dtype)

    def encode() -> None:
        with torch.inference_mode():
            vit.forward_features(pixels)

    return encode


def _page_faults() -> int:
    """Of this process so far: pages that the system had to find and fill."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def _row(subject: Subject, told: dict[bool, list[Told]]) -> dict[str, Any]:
    row: dict[str, Any] = {"subject": subject.name, "precision": subject.precision}
    for name, one in (("kept", told[True]), ("given_back", told[False])):
        seconds = [took for process in one for took in process.seconds]
        faults = [count for process in one for count in process.page_faults]
        row[name] = {
            "seconds": statistics.median(seconds),
            "seconds_all": seconds,
            "page_faults": statistics.median(faults),
            "page_faults_all": faults,
            "peak_bytes": max(process.peak_bytes for process in one),
        }
    row["speed_up"] = row["given_back"]["seconds"] / row["kept"]["seconds"]
    return row
