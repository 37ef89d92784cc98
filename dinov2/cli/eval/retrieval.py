"""`dinov2 eval retrieval`: whether the nearest pictures share a label, or are of the same patient.

In: words. Out: a result folder; R@k and P@k with intervals in its settings, and on standard output.
"""

import argparse
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from dinov2.cli.console import print_table, stdout
from dinov2.cli.eval.knn import add_tokens_option
from dinov2.cli.eval.options import (
    PROBE_FORMATTER,
    add_input_options,
    add_output_options,
    check_output,
    device_of,
    open_eval_data,
    picture_settings,
)
from dinov2.errors import ConfigError

if TYPE_CHECKING:
    from dinov2.eval.features import Labelled
    from dinov2.eval.probes.retrieval import Found

KS = (1, 5, 10)
EXAMPLES = """examples:
  dinov2 eval retrieval --backbone RUN/exports/400 --dataset films.parquet --labels Effusion Mass --output-dir scores/r
  dinov2 eval retrieval --backbone RUN/exports/400 --dataset films.parquet --labels view --by patient --output-dir r"""


def add_parser(probes: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the probe."""
    parser = probes.add_parser(
        "retrieval",
        help="whether the nearest pictures share a label",
        description="R@k: the share of pictures that find a relevant one among their k nearest; P@k: the mean share of "
        "relevant ones among them. Pictures that have nothing to find are left out and counted.",
        epilog=EXAMPLES,
        formatter_class=PROBE_FORMATTER,
    )
    add_input_options(parser)
    group = parser.add_argument_group("retrieval")
    group.add_argument("--k", type=int, nargs="+", metavar="N", default=list(KS), help="how many nearest (1 5 10)")
    group.add_argument(
        "--by",
        choices=["label", "patient"],
        default="label",
        help="relevant is what shares a positive label, or the class; or another picture of the patient (label)",
    )
    group.add_argument(
        "--gallery",
        choices=["train", "others"],
        help="pictures of test look among those of train, or among the others of test (default: train; by patient: "
        "others, since no patient is in two splits)",
    )
    add_tokens_option(group)
    add_output_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Finds the nearest of every picture, and counts what is relevant."""
    from dinov2.cli.eval.ending import finish
    from dinov2.cli.eval.feature_run import labelled_splits
    from dinov2.eval.outcome import Outcome
    from dinov2.eval.probes.retrieval import retrieve, told

    check_output(arguments)
    if min(arguments.k) < 1:
        raise ConfigError(f"--k {min(arguments.k)}: give 1 or more.")
    if arguments.by == "patient" and arguments.gallery == "train":
        raise ConfigError("--by patient --gallery train: no patient of test is in train. Leave --gallery out.")
    ks, most = sorted(set(arguments.k)), max(arguments.k)
    data = open_eval_data(arguments)
    if data.train.task == "segmentation":
        raise ConfigError("--masks: retrieval goes by labels. Give --labels.")
    train, val, test = labelled_splits(arguments, blocks=1, data=data)
    queries, gallery, where = _sides(arguments, train=train, test=test)
    found = retrieve(queries, gallery, most=most, by=arguments.by, tokens=arguments.tokens, device=device_of(arguments))
    scores = told(found.scores(ks, draws=arguments.draws, seed=arguments.seed))
    outcome = Outcome(
        probe="retrieval",
        backbone=arguments.backbone,
        dataset=train.examples.name,
        settings={
            **picture_settings(arguments),
            "tokens": arguments.tokens,
            "relevant by": arguments.by,
            "gallery": where,
            "queries": int(found.findable.sum()),
            "queries with nothing to find, left out": int((~found.findable).sum()),
            **{f"{name}: value, low, high": _rounded(one.values()) for name, one in scores.items()},
            **{f"queries that show {name}": _told(values) for name, values in found.by_class(ks).items()},
            "scores of this result": f"of the vote of the {most} nearest, as of the probe knn",
        },
        metric=f"R@{ks[0]}",
        chosen={"k": most},
        trail=(),
        fitted_on="train" if gallery is not None else "nothing",
        counts={name: len(split) for name, split in (("train", train), ("val", val), ("test", test)) if split},
        val=None,
        test=found.predictions(k=most, groups=arguments.groups),
    )
    _show(found, ks, scores=scores, where=where)
    return finish(outcome, arguments)


def _sides(
    arguments: argparse.Namespace, *, train: "Labelled", test: "Labelled | None"
) -> "tuple[Labelled, Labelled | None, str]":
    """Queries, gallery (None: the other queries), and the gallery in words."""
    others = arguments.gallery == "others" or arguments.by == "patient" or test is None
    if arguments.gallery == "train" and test is None:
        raise ConfigError("--gallery train: there are no pictures of test to look for. Give --test-dataset.")
    queries = train if test is None else test
    where = f"the others of {'train' if test is None else 'test'}" if others else "train"
    return queries, None if others else train, where


def _rounded(values: Iterable[float]) -> list[float]:
    return [round(value, 4) for value in values]


def _told(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, 4) if "@" in name else int(value) for name, value in values.items()}


def _show(found: "Found", ks: list[int], *, scores: dict[str, dict[str, float]], where: str) -> None:
    from rich.markup import escape
    from rich.table import Table

    left_out = int((~found.findable).sum())
    stdout.print(
        f"{int(found.findable.sum()):,} pictures look among {where} ({left_out:,} with nothing to find left out):",
        ", ".join(f"{name} {one['value']:.3f} ({one['low']:.3f} to {one['high']:.3f})" for name, one in scores.items()),
    )
    table = Table()
    table.add_column("class of the picture")
    for name in ("pictures", *scores):
        table.add_column(name, justify="right")
    for name, values in found.by_class(ks).items():
        numbers = (values.get(score) for score in scores)
        told = ("-" if value is None else f"{value:.3f}" for value in numbers)
        table.add_row(escape(name), f"{values['queries']:,.0f}", *told)
    print_table(table)
