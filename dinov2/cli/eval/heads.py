"""What the commands that fit heads on features have in common: their options, opening, and the end.

In: a parser, later its arguments. Out: options; splits with features; a finished result.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dinov2.cli.console import progress_bar
from dinov2.cli.eval.feature_run import labelled_splits
from dinov2.cli.eval.floor import add_beside_option, beside_outcomes
from dinov2.cli.eval.options import (
    add_backbone_options,
    add_data_options,
    add_output_options,
    check_output,
    open_eval_data,
)
from dinov2.errors import ConfigError

if TYPE_CHECKING:
    from dinov2.eval.examples import EvalData
    from dinov2.eval.features import Labelled
    from dinov2.eval.outcome import Outcome
    from dinov2.eval.probes.judging import About

    Splits = tuple[Labelled, Labelled | None, Labelled | None]

METRIC = "macro_auroc"
UNCERTAIN = ("ignore", "zeros", "ones", "own-class", "smooth-zeros", "smooth-ones")


def add_head_options(parser: argparse.ArgumentParser) -> None:
    """Everything but the probe's own."""
    add_backbone_options(parser)
    add_data_options(parser)
    group = parser.add_argument_group("fitting and choosing")
    group.add_argument(
        "--metric",
        default=METRIC,
        metavar="SCORE",
        help=f"of validation, that chooses the settings (default: {METRIC})",
    )
    group.add_argument(
        "--no-refit", action="store_true", help="test the fit on train, do not fit again on train + validation"
    )
    group.add_argument(
        "--uncertain",
        choices=UNCERTAIN,
        default="ignore",
        help="what fitting does with labels of -1: leave them out, take them for 0 or 1, give them an output of their "
        "own, or draw a target in 0..0.3 or 0.55..0.85 (default: ignore). No score ever counts them",
    )
    group.add_argument(
        "--balance", action="store_true", help="positives of a class weigh as much as its negatives, classes the same"
    )
    add_beside_option(parser)
    add_output_options(parser)


def open_splits(arguments: argparse.Namespace, *, blocks: int, patches: bool = False) -> "tuple[EvalData, Splits]":
    """The data and its features; faults of the arguments first.  Raises ManifestError, ConfigError, WeightsError."""
    from dinov2.eval.probes.judging import metric_of

    check_output(arguments)
    metric_of(arguments.metric)
    data = open_eval_data(arguments)
    if data.train.task == "segmentation":
        raise ConfigError("--masks: this probe classifies pictures. Give --labels, or use `dinov2 eval segment`.")
    return data, labelled_splits(arguments, blocks=blocks, patches=patches, data=data)


def about(arguments: argparse.Namespace, *, probe: str, settings: Mapping[str, Any]) -> "About":
    """What the result says of itself."""
    from dinov2.eval.probes.judging import About

    common = {
        "size_px": arguments.size or "the backbone's own",
        "fit": arguments.fit,
        "precision": arguments.precision,
        "uncertain labels in fitting": arguments.uncertain,
        "balanced": arguments.balance,
        "seed": arguments.seed,
    }
    return About(probe=probe, backbone=arguments.backbone, settings={**common, **settings}, metric=arguments.metric)


def end(outcome: "Outcome", arguments: argparse.Namespace, *, data: "EvalData") -> int:
    """Floors where they are asked for, then files and the table."""
    from dinov2.cli.eval.ending import finish

    return finish(outcome, arguments, beside=beside_outcomes(arguments, data=data))


@contextmanager
def fitting_bar(total: int, *, what: str) -> Iterator[Callable[[int], None]]:
    """A bar; gives the function that advances it."""
    with progress_bar() as bar:
        line = bar.add_task(what, total=total)
        yield lambda count: bar.advance(line, count)


def pooling(values: list[str]) -> tuple[bool, ...]:
    """`true` and `false` as words, so that `--pooled false` is no."""
    return tuple(value == "true" for value in values)
