"""`dinov2 eval compare`: two results on the same pictures by a paired bootstrap; any number of results in one table.

In: folders that `dinov2 eval` wrote. Out: differences with intervals and p, and in words which is better; JSON.
"""

import argparse
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dinov2.cli.console import progress_bar, stdout
from dinov2.cli.eval.options import PROBE_FORMATTER

if TYPE_CHECKING:
    from dinov2.eval.scores import Difference
    from dinov2.eval.tables import Result, Sheet

EXAMPLES = """examples:
  dinov2 eval compare scores/linear scores_before/linear
  dinov2 eval compare scores/segment scores_before/segment --metric hausdorff95
  dinov2 eval compare scores/* --output-dir table"""
FILE = "comparison.json"


def add_parser(probes: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the sub-command."""
    parser = probes.add_parser(
        "compare",
        help="two results by a paired bootstrap",
        description="Compare results on the same pictures. Two: by a paired bootstrap over patients. More: one table.",
        epilog=EXAMPLES,
        formatter_class=PROBE_FORMATTER,
    )
    parser.add_argument("results", nargs="+", type=Path, metavar="DIR", help="folders that hold a result.json")
    parser.add_argument(
        "--metric", metavar="M", help="such as macro_auroc, auprc, dice, hausdorff95 (default: the first's)"
    )
    parser.add_argument("--split", choices=["val", "test"], help="which predictions (default: test where it is there)")
    parser.add_argument("--output-dir", type=Path, metavar="DIR", help=f"where {FILE} goes")
    parser.add_argument("--overwrite", action="store_true", help=f"replace a {FILE} that is there")
    parser.add_argument("--draws", type=int, default=1000, metavar="N", help="of the bootstrap (default: 1000)")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default: 0)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Reads, compares, shows.  Raises ConfigError."""
    from dinov2.cli.eval.ending import show
    from dinov2.errors import ConfigError
    from dinov2.eval.tables import read_result

    folders: Sequence[Path] = arguments.results
    if len(folders) < 2:
        raise ConfigError("one result is nothing to compare. Name two folders that `dinov2 eval` wrote, or more.")
    target = None if arguments.output_dir is None else arguments.output_dir / FILE
    if target is not None and target.exists() and not arguments.overwrite:
        raise ConfigError(f"{target} is there already. Give another --output-dir, or --overwrite.")
    results = [read_result(folder) for folder in folders]
    name = _metric(results[0], arguments.metric)
    if len(results) == 2:
        record = _compare_two(results, name=name, arguments=arguments)
    else:
        record = _rank(results, name=name, arguments=arguments)
    sheet: Sheet = record.pop("sheet")
    show(sheet)
    if target is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        stdout.print(f"written: {target}", markup=False)
    stdout.print(f"next: {_next_of(record, results)}", markup=False)
    return 0


def _next_of(record: dict[str, Any], results: "Sequence[Result]") -> str:
    """Of several the two best, by the bootstrap; of two what the better backbone sees; a floor has none."""
    if "results" in record:
        return shlex.join(["dinov2", "eval", "compare", *(row["result"] for row in record["results"][:2])])
    best = results[1] if record["better"] == "second" else results[0]
    backbones = [one.outcome.backbone for one in (best, *results) if not one.outcome.probe.startswith("floor")]
    if not backbones:
        return f"dinov2 eval compare {shlex.quote(record['first'])} RESULT_OF_A_BACKBONE"
    return f"dinov2 preview features --backbone {shlex.quote(backbones[0])} --dataset FILMS --output features.html"


def _metric(result: "Result", asked: str | None) -> str:
    from dinov2.errors import ConfigError

    name = result.main if asked is None else asked.removeprefix("macro_").removeprefix("mean_")
    if name not in result.card.names():
        raise ConfigError(f"--metric {asked}: not among the scores, which are {', '.join(result.card.names())}.")
    return name


def _compare_two(results: "Sequence[Result]", *, name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    from dinov2.errors import ConfigError
    from dinov2.eval.scores import MACRO, compare

    split = arguments.split or ("test" if all("test" in one.cards for one in results) else "val")
    sides = [_side(result, split, str(folder)) for result, folder in zip(results, arguments.results, strict=True)]
    with progress_bar() as bar:
        bar.add_task("paired bootstrap", total=None)
        found = compare(sides[0], sides[1], draws=arguments.draws, seed=arguments.seed)
    shown = [one for one in found if one.name == name]
    if not shown:
        raise ConfigError(f"no class has a value of {name} in both results, so there is nothing to compare.")
    names = [f"{side.name} ({result.outcome.probe})" for side, result in zip(sides, results, strict=True)]
    first = next((one for one in shown if one.class_name == MACRO), shown[0])
    verdict = _verdict(first, names)
    few = [remark for remark in results[0].cards[split].remarks if remark.startswith("too few")]
    drawn = (
        f"paired over {arguments.draws:,} draws of patients; p is two-sided, not corrected for the number of classes."
    )
    return {
        "sheet": _sheet(shown, names, split=split, remarks=(verdict, *few, drawn)),
        "first": str(arguments.results[0]),
        "second": str(arguments.results[1]),
        "split": split,
        "metric": name,
        "verdict": verdict,
        "better": {1: "first", -1: "second", 0: None}[first.better],
        "draws": arguments.draws,
        "seed": arguments.seed,
        "differences": [_plain(one) for one in found],
    }


def _side(result: "Result", split: str, name: str) -> Any:
    from dinov2.errors import ConfigError
    from dinov2.eval.scores import Side

    said = result.outcome.test if split == "test" else result.outcome.val
    if said is None:
        raise ConfigError(f"{name}: holds no predictions of {split}. Give another --split, or evaluate with it.")
    return Side(name, said, validation=result.outcome.val)


def _plain(one: "Difference") -> dict[str, Any]:
    from dataclasses import asdict

    from dinov2.eval.tables.plain import plain

    value, low, high = one.value
    better = {1: "first", -1: "second", 0: None}[one.better]
    return dict(plain({**asdict(one), "value": value, "low": low, "high": high, "better": better}))


def _verdict(one: "Difference", names: Sequence[str]) -> str:
    from dinov2.eval.scores.comparison import ALPHA
    from dinov2.eval.tables.sheet import WORDS, figure

    value, low, high = (figure(number, one.name) for number in one.value)
    numbers = f"difference {value} ({low} to {high}), p = {one.p:.3g}"
    if one.better == 0:
        return f"they cannot be told apart by {WORDS[one.name]} at p < {ALPHA:g}: {numbers}"
    return f"{names[0 if one.better > 0 else 1]} is better by {WORDS[one.name]}: {numbers}"


def _sheet(shown: "Sequence[Difference]", names: Sequence[str], *, split: str, remarks: tuple[str, ...]) -> "Sheet":
    from dinov2.eval.scores import MACRO
    from dinov2.eval.tables import Sheet
    from dinov2.eval.tables.sheet import WORDS, figure

    name = shown[0].name
    rows = []
    for one in sorted(shown, key=lambda one: one.class_name == MACRO):  # as elsewhere, the mean comes last
        value, low, high = (figure(number, name) for number in one.value)
        label = "mean of classes" if one.class_name == MACRO else one.class_name
        better = {1: "first", -1: "second", 0: ""}[one.better]
        cells = (figure(one.first, name), figure(one.second, name), value, f"{low} to {high}", f"{one.p:.3g}", better)
        rows.append((label, *cells))
    return Sheet(
        f"{WORDS[name]} on {split}; first: {names[0]}, second: {names[1]}",
        ("class", "first", "second", "difference", "95 %", "p", "better"),
        tuple(rows),
        remarks,
    )


def _rank(results: "Sequence[Result]", *, name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    from dinov2.errors import ConfigError
    from dinov2.eval.tables import ranked

    if arguments.split is not None:
        raise ConfigError("--split is for two results; of several the table shows the split that counts.")
    sheet = ranked(results, folders=[str(folder) for folder in arguments.results], name=name)
    rows = [dict(zip(sheet.header[:-1], row[:-1], strict=True)) for row in sheet.rows]
    by_folder = {str(folder): result for folder, result in zip(arguments.results, results, strict=True)}
    for row in rows:
        row["scores"] = _scores(by_folder[row["result"]])
    return {"sheet": sheet, "metric": name, "results": rows}


def _scores(result: "Result") -> Any:
    """Over all classes."""
    from dinov2.eval.scores import MACRO
    from dinov2.eval.tables.plain import plain

    whole = [one for one in result.card.scores if one.class_name == MACRO and not one.column]
    return plain({one.name: list(one.interval) for one in whole if one.name in result.card.names()})
