"""A `CostReport` for a person.

In: a `CostReport`. Out: rich tables and lines, 80 characters wide.
"""

from collections.abc import Iterator

from rich.table import Table

from dinov2.forecast.communication import KINDS
from dinov2.forecast.cost import CostReport, MachineCost
from dinov2.forecast.flops import PARTS, PASSES, total
from dinov2.forecast.memory import GIB
from dinov2.forecast.plan import KNOWN_RATE
from dinov2.forecast.scaling import LEAST_EFFICIENCY, LOOKED_AT, SHOWN, WEAK, Curve
from dinov2.forecast.traffic import UPDATE

GIGA, TERA = 1e9, 1e12
BAR_CELLS = 40
KNOWN_PEAK = 312e12  # FLOP/s of the A100
LEAST_SHOWN = 1e4  # bytes of a kind of exchange
EIGHTHS = " ▏▎▍▌▋▊▉█"
HEIGHTS = "▁▂▃▄▅▆▇█"


def cost_tables(report: CostReport) -> Iterator[Table]:
    """FLOPs, bytes, exchanges, then each machine: its step and how it grows."""
    yield flops_table(report)
    yield bytes_table(report)
    yield exchange_table(report)
    for machine in report.machines:
        yield step_table(report, machine)
        yield scaling_table(report, machine, kind=WEAK)
        yield scaling_table(report, machine, kind="strong")
    if report.measured:
        yield measured_table(report)


def flops_table(report: CostReport) -> Table:
    """GFLOP of one picture, a row a part, a column a pass."""
    nominal = f" ({_tera(report.flops_nominal)} if every token went through every branch)"
    table = _table(
        f"GFLOP a picture with {report.masked:.0f} masked patches: {_tera(report.flops_per_picture)} TFLOP"
        + (nominal if report.flops_nominal != report.flops_per_picture else "")
    )
    table.add_column("", no_wrap=True)
    for name in (*PASSES, "share"):
        table.add_column(name, justify="right")
    table.add_column("")
    whole = total(report.flops)
    for part in PARTS:
        mine = total({part: report.flops[part]})
        if mine:
            cells = (report.flops[part][name] / report.pictures / GIGA for name in PASSES)
            shares = (f"{mine / whole:.1%}", bar(mine / whole, cells=7))
            table.add_row(part, *(f"{cell:,.1f}" if cell else "" for cell in cells), *shares)
    sums = (total(report.flops, passes=[name]) / report.pictures / GIGA for name in PASSES)
    table.add_row("together", *(f"{cell:,.1f}" if cell else "" for cell in sums), "", "")
    return table


def bytes_table(report: CostReport) -> Table:
    """GiB that one process reads and writes beside its products, and what it keeps."""
    form = "compiled" if report.compiled else "eager"
    table = _table(
        f"GiB a GPU: {report.pictures} pictures, {report.formats}, {form}, {report.checkpointing} checkpointing"
    )
    table.add_column("")
    table.add_column("", justify="right")
    table.add_column("")
    names = (*PASSES, UPDATE)
    sums = {part: sum(by_pass.get(name, 0.0) for name in names) for part, by_pass in report.bytes.items()}
    whole = sum(sums.values())
    for part, size in sums.items():
        if size:
            table.add_row(f"moved: {part}", f"{size / GIB:,.2f}", bar(size / whole, cells=BAR_CELLS // 2))
    kept = report.activations
    for name, size in (("blocks", kept.blocks), ("before and behind them", kept.backbone_ends), ("heads", kept.heads)):
        table.add_row(f"kept: {name}", f"{size / GIB:,.2f}", bar(size / kept.total, cells=BAR_CELLS // 2))
    table.add_row("kept: losses", f"{kept.losses / GIB:,.2f}", bar(kept.losses / kept.total, cells=BAR_CELLS // 2))
    table.add_row("kept in all, by formula", f"{kept.total / GIB:,.2f}", "")
    if report.activations_counted:
        error = kept.total / report.activations_counted - 1
        table.add_row(
            "kept in all, counted", f"{report.activations_counted / GIB:,.2f}", f"the formula is {error:+.1%} off"
        )
    return table


def exchange_table(report: CostReport) -> Table:
    """MB that one process sends in a step, a row a strategy."""
    table = _table(f"MB that a GPU sends in a step, and receives: {report.gpus} GPUs, {report.passes} pass(es)")
    shown = [kind for kind in KINDS if any(by_kind[kind] >= LEAST_SHOWN for by_kind in report.sent.values())]
    table.add_column("", no_wrap=True)
    for name in (*shown, "together"):
        table.add_column(name, justify="right")
    table.add_column("")
    most = max(sum(by_kind.values()) for by_kind in report.sent.values())
    for strategy, by_kind in report.sent.items():
        whole = sum(by_kind.values())
        cells = (f"{by_kind[kind] / 1e6:,.1f}" for kind in shown)
        table.add_row(strategy, *cells, f"{whole / 1e6:,.0f}", bar(whole / most, cells=9))
    return table


def step_table(report: CostReport, machine: MachineCost) -> Table:
    """Milliseconds of one step on one machine."""
    line, known = machine.timeline, machine.assumptions
    table = _table(
        f"{machine.machine}: a step of {report.pictures * report.passes} pictures a GPU on {machine.gpus}, "
        f"{machine.rate:.1f} pictures/s a GPU"
    )
    table.add_column("")
    table.add_column("ms", justify="right")
    table.add_column("")
    parts = {"products of matrices, attention": line.products, "reading and writing": line.memory}
    for name, seconds in {**parts, "waiting for exchanges": line.waiting}.items():
        table.add_row(name, f"{1e3 * seconds:,.1f}", bar(seconds / line.total))
    table.add_row(
        "a step", f"{1e3 * line.total:,.1f}", f"exchanges take {1e3 * line.exchanged:,.1f}, the rest of it hidden"
    )
    table.caption_justify = "left"
    table.caption = _assumed(known)
    return table


def scaling_table(report: CostReport, machine: MachineCost, *, kind: str) -> Table:
    """Pictures/s and efficiency by number of GPUs, a pair of rows a strategy."""
    batch = f"{report.pictures} pictures a GPU" if kind == WEAK else f"{report.global_batch:,} pictures in all"
    table = _table(f"{machine.machine}: pictures/s by number of GPUs, {batch} ({kind} scaling)")
    table.add_column("", no_wrap=True)
    for gpus in SHOWN:
        table.add_column(str(gpus), justify="right")
    for curve in machine.curves:
        if curve.kind == kind:
            points = {point.gpus: point for point in curve.points}
            table.add_row(curve.strategy, *(f"{points[n].rate:.0f}" if n in points else "" for n in SHOWN))
            line = sparkline([point.efficiency for point in curve.points if point.gpus > 1])
            shares = (f"{points[n].efficiency:.0%}" if n in points and n > 1 else "" for n in SHOWN)
            table.add_row(f"  {line}", *shares)
    table.caption_justify = "left"
    table.caption = "\n".join(stop_line(curve) for curve in machine.curves if curve.kind == kind)
    return table


def stop_line(curve: Curve) -> str:
    """Where a strategy stops growing, in words."""
    looked_at = [point.gpus for point in curve.points] or [LOOKED_AT[0]]
    below = f"above {LEAST_EFFICIENCY:.0%} up to {max(looked_at):,} GPUs, as far as was looked"
    if curve.inefficient_from is not None:
        below = f"below {LEAST_EFFICIENCY:.0%} from {curve.inefficient_from:,} GPUs"
    waits = "" if curve.exposed_from is None else f"; exchanges no longer hidden from {curve.exposed_from:,}"
    return f"{curve.strategy}: {below}{waits}"


def measured_table(report: CostReport) -> Table:
    """Predicted against measured."""
    first = report.measured[0]
    table = _table(f"predicted and measured on {first.device}")
    for name in ("format", "form", "batch", "predicted s", "measured s", "ratio", "share reached"):
        table.add_column(name, justify="left" if name == "form" else "right", overflow="fold")
    for row in report.measured:
        reached = "above 100%" if row.reached is None else f"{row.reached:.0%}"
        table.add_row(
            row.precision,
            row.form,
            str(row.batch),
            f"{row.predicted:.3f}",
            f"{row.measured:.3f}",
            f"{row.predicted / row.measured:.2f}",
            reached,
        )
    table.caption_justify = "left"
    table.caption = (
        f"predicted at {first.efficiency:.0%} of the machine's own matrix rate and its own copy rate, "
        f"{first.memory_rate / GIGA:.0f} GB/s;\nshare reached: at which both would be equal"
    )
    return table


def cost_lines(report: CostReport) -> Iterator[str]:
    """What the numbers are and are not."""
    yield (
        "on paper and by simulation, not run. Bars behind a strategy: efficiency from 2 to 1,024 GPUs, against as many "
        "GPUs that never wait; one GPU alone keeps its tokens in float32 (autocast) and is slower than one of many."
    )
    if report.compiled:
        yield (
            "compiled: bytes moved are those of fused operations; what is kept is that of eager blocks that make "
            "norms and activation functions again."
        )
    if report.known is not None:
        of_peak = KNOWN_RATE * report.flops_nominal / KNOWN_PEAK
        yield (
            f"RAD-DINO's model card: {KNOWN_RATE} pictures/s on each of 64 A100. The model gives that where products "
            f"reach {report.known:.0%} of the peak. {_tera(report.flops_nominal)} TFLOP a picture, every "
            f"token through every branch, at that rate are {of_peak:.0%} of it over the whole step."
        )
    yield "known better? --efficiency 0.4, --link-gbit 100, or --measured F with F from: dinov2 bench step --json F"


def _assumed(known: dict[str, float]) -> str:
    of_memory = f"{known['memory_share']:.0%} of {known['memory_bytes_per_second'] / TERA:.2f} TB/s"
    in_node = f"{known['nvlink_bytes_per_second'] / GIGA:,.0f} GB/s in a node"
    out_of_node = f"{known['node_link_bytes_per_second'] / GIGA:,.0f} GB/s out of a node of {known['per_node']:.0f}"
    return (
        f"assumed: {known['efficiency']:.0%} of {known['peak_flops'] / TERA:,.0f} TFLOP/s, {of_memory},\n"
        f"{known['link_share']:.0%} of {in_node} and of {out_of_node}, each way"
    )


def bar(share: float, *, cells: int = BAR_CELLS) -> str:
    """A bar of at most `cells` characters, to an eighth of one."""
    eighths = round(max(0.0, min(1.0, share)) * cells * 8)
    whole, rest = divmod(eighths, 8)
    return "█" * whole + (EIGHTHS[rest] if rest else "")


def sparkline(shares: list[float]) -> str:
    """A character a value, its height from 0.5 to 1."""
    places = (round((min(1.0, max(0.5, share)) - 0.5) * 2 * (len(HEIGHTS) - 1)) for share in shares)
    return "".join(HEIGHTS[place] for place in places)


def _tera(flops: float) -> str:
    return f"{flops / TERA:.2f}" if flops >= TERA else f"{flops / TERA:.3g}"


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left")
