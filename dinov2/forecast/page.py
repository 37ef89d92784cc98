"""An `Outcome` for a person.

In: an `Outcome`. Out: rich tables and lines.
"""

from collections.abc import Iterator

from rich.table import Table

from dinov2.forecast.check import Outcome
from dinov2.forecast.data import DataReport
from dinov2.forecast.memory import GIB, HEADROOM, LARGEST_BATCH, MemoryReport, MemoryRow
from dinov2.forecast.plan import KNOWN_RATE, Plan
from dinov2.forecast.sharding import PARTS

NOT_COUNTED = "the GPU's context, communication buffers, workspaces of kernels and gaps between blocks"


def data_table(data: DataReport) -> Table:
    """What the pictures are."""
    table = _two_columns("data")
    table.add_row("pictures", f"{data.num_pictures:,}")
    for name, counts in data.groups.items():
        if counts:
            table.add_row(
                f"{name}s", ", ".join(f"{value or '(not said)'} {count:,}" for value, count in counts.items())
            )
    table.add_row("decoded", f"{data.num_sampled - len(data.unreadable):,} of {data.num_sampled:,} at random")
    for path, reason in list(data.unreadable.items())[:5]:
        table.add_row("  unreadable", f"{path}: {reason}")
    if data.kinds:
        table.add_row("kinds", ", ".join(f"{kind} {count:,}" for kind, count in data.kinds.items()))
    if data.sizes:
        sizes = data.sizes
        table.add_row("short side", f"{sizes.smallest} to {sizes.largest} px, median {sizes.median}")
    table.add_row("copies", _copies(data))
    table.add_row("patients in several splits", f"{data.num_split_patients:,}")
    for text in data.split_patients:
        table.add_row("", text)
    if data.pictures_per_core_second:
        table.add_row("prepared by a core", f"{data.pictures_per_core_second:.1f} pictures/s, crops and masks included")
    return table


def memory_table(memory: MemoryReport) -> Table:
    """GiB of one process at its worst moment, a column a way to lay it out; narrow enough for 80 characters."""
    unit = "GPU" if memory.on_gpu else "process"
    table = Table(
        title=f"GiB per {unit} at its worst moment, {memory.batch_size} picture(s), {memory.formats}",
        title_justify="left",
    )
    rows = _apart(memory.rows)
    table.add_column("")
    for row in rows:
        table.add_column(row.strategy, justify="right", style="bold" if row.name == "configured" else None)
    shown = [name for name in PARTS if any(row.peak.parts[name] for row in rows)]
    if len(rows) > 1:
        table.add_row("", *("configured" if row.name == "configured" else "" for row in rows))
    table.add_row("peak", *(f"{row.peak.total / GIB:.2f}" for row in rows))
    for name in shown:
        table.add_row(f"  {name}", *(f"{row.peak.parts[name] / GIB:.2f}" for row in rows))
    table.add_row("largest batch", *(_largest(row) for row in rows))
    return table


def _apart(rows: tuple[MemoryRow, ...]) -> list[MemoryRow]:
    """The configured one, and those that differ from it."""
    configured, *others = rows
    return [configured, *(row for row in others if row.strategy != configured.strategy)]


def memory_lines(memory: MemoryReport) -> Iterator[str]:
    """What the numbers are and are not."""
    saved = ", ".join(f"{name} {size / GIB:.2f}" for name, size in memory.saved.items() if size >= GIB / 200)
    yield f"kept for the backward pass: {saved or 'less than 0.01'} GiB; {memory.num_masked:,} masked patches."
    yield (
        "counted by going through one step without its values: activations, logits and gradients are what the code "
        "makes of this batch (on a CPU to the byte); what an exchange between processes holds is an upper bound."
    )
    if memory.on_gpu:
        yield (
            f"not counted: {NOT_COUNTED}; the largest batch leaves {HEADROOM:.0%} of "
            f"{memory.capacity / GIB:.0f} GiB for them. Not yet compared with a GPU."
        )


def plan_table(plan: Plan, *, processes: int) -> Table:
    """What the run will do."""
    table = _two_columns("plan")
    table.add_row("batch", f"{plan.global_batch:,} pictures a step on {processes} process(es)")
    table.add_row("steps", f"{plan.total_steps:,}, that is {plan.num_pictures_seen:,} pictures")
    if plan.passes is not None:
        table.add_row("passes over the data", f"{plan.passes:.1f}")
    table.add_row(
        "learning rate",
        f"{plan.peak_lr:.3g} at its peak, step {plan.peak_step:,} (warm-up of {plan.warmup_steps:,}), then down to "
        f"{plan.final_lr:.3g}",
    )
    table.add_row(
        "teacher temperature",
        f"{plan.temperature_at_end:g} at the end, warm-up of {plan.temperature_steps:,} steps",
    )
    table.add_row("prototypes frozen", f"{plan.freeze_last_layer_steps:,} steps")
    if plan.freeze_backbone_steps:
        table.add_row(
            "backbone frozen",
            f"{plan.freeze_backbone_steps:,} steps, in which the heads learn at up to {plan.frozen_head_lr:.3g}",
        )
    if plan.days is not None:
        table.add_row("time", f"{plan.days:.2f} days at the given rate")
    else:
        table.add_row(
            "time",
            f"{plan.num_pictures_seen:,} pictures / (R x {processes}) seconds; --rate R tells days. RAD-DINO's "
            f"ViT-B/14 on 518 pixels made R = {KNOWN_RATE} pictures/s on an A100",
        )
    table.add_row(
        "checkpoints",
        f"{plan.num_checkpoints:,} of {plan.checkpoint_bytes / GIB:.2f} GiB, {plan.num_kept:,} kept; "
        f"{plan.num_exports:,} export(s) of {plan.export_bytes / GIB:.2f} GiB",
    )
    free = "" if plan.disk_free is None else f", {plan.disk_free / GIB:.1f} free"
    table.add_row("disk", f"{plan.disk_bytes / GIB:.2f} GiB at the end{free}")
    return table


def judgement_lines(outcome: Outcome) -> Iterator[tuple[str, str]]:
    """(style, line) of notes, doubts and faults."""
    for text in outcome.notes:
        yield "", f"note: {text}"
    for text in outcome.doubts:
        yield "yellow", f"doubt: {text}"
    for text in outcome.stops:
        yield "bold red", f"stops the run: {text}"
    if not outcome.doubts and not outcome.stops:
        yield "green", "no doubts."


def _largest(row: MemoryRow) -> str:
    if row.largest_batch is None:
        return ""
    if row.largest_batch == LARGEST_BATCH:
        return f"{LARGEST_BATCH:,} or more"
    return f"{row.largest_batch:,}" if row.is_exact else f"about {row.largest_batch:,}"


def _copies(data: DataReport) -> str:
    if data.copies is None:
        return "not known: a folder has no hashes; dinov2 manifest build makes them"
    found = {
        "of the same bytes": data.copies.same_file,
        "of the same look": data.copies.same_look,
        "named in duplicate_of": data.copies.named,
    }
    known = [f"{count:,} {words}" for words, count in found.items() if count is not None]
    return ", ".join(known) or "not known: the manifest has no hashes"


def _two_columns(title: str) -> Table:
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    return table
