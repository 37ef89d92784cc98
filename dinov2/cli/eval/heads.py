"""What the commands that fit heads on features have in common: their options, opening, and the end.

In: a parser, later its arguments. Out: options; splits with features; a finished result.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dinov2.cli.console import progress_bar
from dinov2.cli.eval.feature_run import labelled_splits
from dinov2.cli.eval.floor import add_beside_option, beside_outcomes
from dinov2.cli.eval.options import (
    add_input_options,
    add_output_options,
    add_refit_option,
    check_output,
    device_of,
    open_eval_data,
    picture_settings,
)
from dinov2.errors import ConfigError

if TYPE_CHECKING:
    from dinov2.eval.examples import EvalData
    from dinov2.eval.features import Labelled
    from dinov2.eval.outcome import Outcome
    from dinov2.eval.probes.classification_loss import Balance
    from dinov2.eval.probes.judging import About
    from dinov2.eval.protocol import Settings

    Splits = tuple[Labelled, Labelled | None, Labelled | None]

METRIC = "macro_auroc"
UNCERTAIN = ("ignore", "zeros", "ones", "own-class", "smooth-zeros", "smooth-ones")


def add_head_options(parser: argparse.ArgumentParser) -> None:
    """Everything but the probe's own."""
    add_input_options(parser)
    group = parser.add_argument_group("fitting and choosing")
    group.add_argument(
        "--metric",
        default=METRIC,
        metavar="SCORE",
        help=f"of validation, that chooses the settings (default: {METRIC})",
    )
    add_refit_option(group)
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
        **picture_settings(arguments),
        "uncertain labels in fitting": arguments.uncertain,
        "balanced": arguments.balance,
        "seed": arguments.seed,
    }
    return About(probe=probe, backbone=arguments.backbone, settings={**common, **settings}, metric=arguments.metric)


def judged(
    probe: Any,
    arguments: argparse.Namespace,
    *,
    about: "About",
    candidates: "Sequence[Settings]",
    splits: "Splits",
    remarks: Callable[[Any], Mapping[str, Any]] = lambda _: {},
) -> "tuple[Outcome, Any]":
    """Chosen, fitted again and tested, as the options say.  -> the outcome and the final fit.  Raises ConfigError."""
    from dinov2.eval.features import Labelled
    from dinov2.eval.probes.judging import judge

    return judge(
        probe,
        about=about,
        candidates=candidates,
        splits=splits,
        join=Labelled.joined,
        refit=not arguments.no_refit,
        remarks=remarks,
    )


def fit_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """What every head on features is told of its fit."""
    return {"policy": arguments.uncertain, "balance": balance_of(arguments), "seed": arguments.seed}


def balance_of(arguments: argparse.Namespace) -> "Balance":
    """How classes weigh in the loss."""
    return "balanced" if arguments.balance else "none"


def add_step_options(group: "argparse._ArgumentGroup") -> None:
    """How long a head is trained in steps."""
    group.add_argument("--epochs", type=int, default=10, metavar="N", help="over the split (default: 10)")
    group.add_argument("--head-batch-size", type=int, default=128, metavar="N", help="of a step (default: 128)")


def judged_in_steps(
    probe_of: Callable[..., Any],
    arguments: argparse.Namespace,
    *,
    name: str,
    settings: Sequence[str],
    candidates: "Sequence[Settings]",
    splits: "Splits",
) -> "tuple[Outcome, Any]":
    """`judged` of heads that are trained in steps, with a bar; `settings` are the options that the result names."""
    said = about(arguments, probe=name, settings={option: getattr(arguments, option) for option in settings})
    with fitting_bar(_num_steps(arguments, splits), what=f"{len(candidates)} {name} heads, steps") as advance:
        probe = probe_of(groups=arguments.groups, device=device_of(arguments), advance=advance)
        return judged(probe, arguments, about=said, candidates=candidates, splits=splits)


def _num_steps(arguments: argparse.Namespace, splits: "Splits") -> int:
    """Of the fit on train, and of that on train + validation if there is one."""
    train, val, _ = splits
    sizes = [len(train)] if val is None or arguments.no_refit else [len(train), len(train) + len(val)]
    return sum(arguments.epochs * -(-size // arguments.head_batch_size) for size in sizes)


def check_numbers(arguments: argparse.Namespace, names: tuple[str, ...]) -> None:
    """Raises ConfigError where one of these is below 1."""
    for name in names:
        if getattr(arguments, name) < 1:
            raise ConfigError(f"--{name.replace('_', '-')} {getattr(arguments, name)}: give 1 or more.")


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
