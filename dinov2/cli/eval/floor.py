"""`dinov2 eval floor`, and `--beside pixels metadata` of the other probes: what is told without a backbone.

In: words. Out: results of a logistic regression on thumbnails, and on columns of the manifest.
"""

import argparse
from typing import TYPE_CHECKING

from dinov2.cli.console import progress_bar
from dinov2.cli.eval.options import (
    PROBE_FORMATTER,
    add_data_options,
    add_output_options,
    check_output,
    open_eval_data,
)
from dinov2.errors import ConfigError

if TYPE_CHECKING:
    from dinov2.eval.examples import EvalData
    from dinov2.eval.outcome import Outcome

FLOORS = ("pixels", "metadata")
METADATA = ("view", "sex", "age", "site")
METRIC = "macro_auroc"
EXAMPLES = """examples:
  dinov2 eval floor --dataset films.csv --labels Effusion Cardiomegaly --output-dir scores/floor
  dinov2 eval floor --kind metadata --metadata view sex --dataset films.csv --labels Mass --output-dir scores/meta"""


def add_parser(probes: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the probe."""
    parser = probes.add_parser(
        "floor",
        help="what pixels alone, or metadata alone, can tell",
        description="Logistic regression on 50 principal components of 32 x 32 pixels; and on view, sex, age and site.",
        epilog=EXAMPLES,
        formatter_class=PROBE_FORMATTER,
    )
    add_data_options(parser)
    group = parser.add_argument_group("floor")
    group.add_argument(
        "--kind",
        nargs="+",
        choices=FLOORS,
        default=["pixels"],
        help="the first is the result, the second stands beside it (default: pixels)",
    )
    group.add_argument("--metadata", nargs="+", metavar="COLUMN", default=list(METADATA), help=_METADATA_HELP)
    group.add_argument("--metric", default=METRIC, metavar="SCORE", help=f"that chooses (default: {METRIC})")
    group.add_argument("--no-refit", action="store_true", help="do not fit again on train + validation")
    group.add_argument("--workers", type=int, default=2, metavar="N", help="processes that read pictures (default: 2)")
    add_output_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Fits what is asked for and writes it."""
    from dinov2.cli.eval.ending import finish

    check_output(arguments)
    first, *others = _outcomes(arguments, arguments.kind, data=open_eval_data(arguments))
    return finish(first, arguments, beside=others)


def add_beside_option(parser: argparse.ArgumentParser) -> None:
    """`--beside` and `--metadata`, for any probe of labels."""
    group = parser.add_argument_group("beside the result")
    group.add_argument(
        "--beside",
        nargs="+",
        choices=FLOORS,
        default=[],
        help="what pixels alone (32 x 32, 50 components) or metadata alone can tell, as further columns",
    )
    group.add_argument("--metadata", nargs="+", metavar="COLUMN", default=list(METADATA), help=_METADATA_HELP)


def beside_outcomes(arguments: argparse.Namespace, *, data: "EvalData | None" = None) -> "list[Outcome]":
    """Outcomes for `finish(..., beside=...)`; `data` as it was opened, or it is opened again."""
    if not arguments.beside:
        return []
    return _outcomes(arguments, arguments.beside, data=open_eval_data(arguments) if data is None else data)


def _outcomes(arguments: argparse.Namespace, kinds: list[str], *, data: "EvalData") -> "list[Outcome]":
    from dinov2.eval.probes.floor import metadata_control, pixel_floor

    if data.train.task == "segmentation":
        raise ConfigError("--beside: floors are of labels, and the data has masks. Leave it out.")
    metric = getattr(arguments, "metric", METRIC)
    outcomes = []
    for kind in dict.fromkeys(kinds):
        if kind == "metadata":
            # A column that is itself the label would tell everything.
            columns = [column for column in arguments.metadata if column not in arguments.labels]
            outcomes.append(
                metadata_control(
                    data,
                    columns=columns,
                    metric=metric,
                    groups=arguments.groups,
                    policy=getattr(arguments, "uncertain", "ignore"),
                    seed=arguments.seed,
                    refit=not getattr(arguments, "no_refit", False),
                )
            )
            continue
        with progress_bar() as bar:
            line = bar.add_task("pixels", total=sum(len(examples) for _, examples in data.splits()))
            outcomes.append(
                pixel_floor(
                    data,
                    metric=metric,
                    groups=arguments.groups,
                    policy=getattr(arguments, "uncertain", "ignore"),
                    seed=arguments.seed,
                    workers=arguments.workers,
                    refit=not getattr(arguments, "no_refit", False),
                    advance=lambda count, line=line, bar=bar: bar.advance(line, count),  # type: ignore[misc]
                )
            )
    return outcomes


_METADATA_HELP = f"columns of the metadata control (default: {' '.join(METADATA)}, where they are)"
