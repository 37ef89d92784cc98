"""What `scripts/bench_gpu.sh` measured, as one Markdown table.

In: its folder, with a PART.json and a PART.status ("exit code, seconds, limit") for every part. Out: a row for every
measurement, and for every part without one a row that says why; also written to FOLDER/table.md.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.text import Text

from dinov2.bench.step import label_of
from dinov2.errors import ConfigError

TIMED_OUT = (124, 137)  # exit codes of `timeout`
HEADINGS = ("part", "what", "result", "share of the ceiling", "against plain")
Row = tuple[str, str, str, str]
"""Behind the part's name: what was measured, the result, its share, its ratio."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this table."""
    parser.add_argument("folder", type=Path, help="that scripts/bench_gpu.sh wrote")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Reads the parts and writes the table.  Raises ConfigError where the folder holds none."""
    folder: Path = arguments.folder
    statuses = sorted(folder.glob("*.status"), key=lambda path: path.stat().st_mtime_ns)
    if not statuses:
        raise ConfigError(f"{folder} holds no *.status of a part; run `bash scripts/bench_gpu.sh {folder}` first.")
    results = {path.stem: _result(path) for path in statuses}
    facts: dict[str, Any] = next((result["machine"] for result in results.values() if "machine" in result), {})
    lines = [_about(facts), "", f"| {' | '.join(HEADINGS)} |", "|" + "---|" * len(HEADINGS)]
    for part, result in results.items():
        lines += [f"| {part} | {' | '.join(row)} |" for row in _rows(part, result)]
    markdown = "\n".join(lines) + "\n"
    (folder / "table.md").write_text(markdown)
    return {"machine": facts, "parts": list(results), "markdown": markdown, "file": str(folder / "table.md")}


def table(result: dict[str, Any]) -> Text:
    """The Markdown as it is."""
    return Text(f"{result['markdown']}\nwritten: {result['file']}")


def _result(status: Path) -> dict[str, Any]:
    """The numbers of a part, or {"failed": why}."""
    code, seconds, limit = map(int, status.read_text().split())
    numbers = status.with_suffix(".json")
    if code == 0 and numbers.is_file():
        loaded: dict[str, Any] = json.loads(numbers.read_text())
        return loaded
    if code in TIMED_OUT:
        return {"failed": f"stopped at its limit of {limit} s"}
    log = status.with_suffix(".log")
    words = log.read_text(errors="replace").strip().splitlines() if log.is_file() else []
    return {"failed": f"exit code {code} after {seconds} s: {words[-1] if words else 'it said nothing'}"}


def _about(facts: dict[str, Any]) -> str:
    if not facts:
        return "No part ran."
    words = [facts["device"], f"driver {facts['driver']}" if facts.get("driver") else "", f"{facts['cores']} cores"]
    words += [
        f"{name} {facts[name]}"
        for name in ("torch", "cuda", "cudnn", "xformers", "opencv", "python")
        if facts.get(name)
    ]
    return ", ".join(word for word in [*words, facts["date"]] if word) + "."


def _rows(part: str, result: dict[str, Any]) -> Iterator[Row]:
    if "failed" in result:
        yield "not measured", result["failed"].replace("|", "/"), "", ""
        return
    yield from ROWS.get(part, _step)(result)


def _step(result: dict[str, Any]) -> Iterator[Row]:
    settings = result["settings"]
    for row in result["rows"]:
        what = f"{settings['arch']}, batch {row['batch_size']}, {row['precision']}, {label_of(row)}"
        if row["seconds_per_step"] is None:
            yield what, f"cannot run: {_first_words(row['reason'])}", "", ""
            continue
        result_words = f"{row['pictures_per_second']:.1f} films/s, {1000 * row['seconds_per_step']:.0f} ms a step"
        aside = f" ({row['reason']})" if row["reason"] else ""
        ratio = f"{row['speed_up']:.2f} times" if row["speed_up"] else ""
        rate = row["matrix_rate"] / 1e12
        yield what, result_words + aside, f"{row['share_of_matrix_rate']:.0%} of {rate:.3g} TFLOP/s", ratio


def _memory(result: dict[str, Any]) -> Iterator[Row]:
    for row in result["rows"]:
        what = f"peak, batch {row['batch_size']}, {_memory_form(row)}"
        peak = f"{row['peak_bytes'] / 2**30:.1f} GiB" if row["peak_bytes"] else row["reason"]
        yield what, peak, "", f"{row['ratio_to_plain']:.0%}" if row["ratio_to_plain"] else ""
    for row in result["largest"]:
        what = f"largest batch in {result['limit_bytes'] / 2**30:.3g} GiB, {_memory_form(row)}"
        ratio = f"{row['ratio_to_plain']:.2f} times" if row["ratio_to_plain"] else ""
        yield what, f"{row['pictures']} films" + ("" if row["confirmed"] else " (not confirmed)"), "", ratio


def _memory_form(row: dict[str, Any]) -> str:
    checkpointing = "" if row["form"] == "plain" else f", checkpointing {row['checkpointing']}"
    return f"{row['precision']}, {row['form']}{checkpointing}"


def _kernels(result: dict[str, Any]) -> Iterator[Row]:
    for row in result["rows"]:
        what = f"{row['subject']}: {row['shape']}, {row['precision']}: {row['kernel']}, {row['passes']}"
        if row["seconds"] is None:
            yield what, f"cannot run: {_first_words(row['reason'])}", "", ""
            continue
        held = f", {row['peak_bytes'] / 2**20:.0f} MiB" if row["subject"] in ("prototypes", "sinkhorn") else ""
        ceiling = "matrix products" if row["flops"] else "copies"
        yield what, f"{1000 * row['seconds']:.2f} ms{held}", f"{row['share_of_ceiling']:.0%} of {ceiling}", ""


def _loader(result: dict[str, Any]) -> Iterator[Row]:
    for name, row in result.get("pipelines", {}).items():
        ours = name == "ours"
        share = f"{result['share_of_decode_rate']:.0%} of decoding alone" if ours else ""
        ratio = f"{result['ratio_to_pillow']:.1f} times Pillow" if ours else ""
        yield f"loader, {name}", f"{row['pictures_per_core_second']:.0f} films/s per core", share, ratio


def _feed(result: dict[str, Any]) -> Iterator[Row]:
    what = f"a training of {result['num_steps']} steps fed by {result['settings']['workers']} workers"
    waits = f"waits for data {result['data_wait_share']:.1%} of the time"
    yield what, f"{result['pictures_per_second']:.1f} films/s, {waits}", "", ""


def _first_words(reason: str) -> str:
    """Without the advice behind it, and without what would end a cell."""
    return reason.partition(";")[0].partition(". ")[0].replace("\n", " ").replace("|", "/")


ROWS: dict[str, Callable[[dict[str, Any]], Iterator[Row]]] = {
    "memory": _memory,
    "kernels": _kernels,
    "loader": _loader,
    "feed": _feed,
}
