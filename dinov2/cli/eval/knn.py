"""`dinov2 eval knn`: nearest neighbours in feature space, their number chosen on validation.

In: words. Out: a result folder.
"""

import argparse

from dinov2.cli.eval.floor import add_beside_option
from dinov2.cli.eval.heads import METRIC, end, judged, open_splits
from dinov2.cli.eval.options import (
    PROBE_FORMATTER,
    add_input_options,
    add_output_options,
    device_of,
    picture_settings,
)

EXAMPLES = """examples:
  dinov2 eval knn --backbone RUN/exports/400 --dataset films.parquet --labels Effusion Mass --output-dir scores/knn
  dinov2 eval knn --backbone random:vit_small --dataset films.parquet --labels view --k 20 --output-dir scores/view"""
KS = (5, 10, 20, 50, 100, 200)
TEMPERATURE = 0.07


def add_parser(probes: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the probe."""
    parser = probes.add_parser(
        "knn",
        help="nearest neighbours in feature space",
        description="The k nearest training pictures by cosine vote, or give the mean of their labels. Labels of -1 "
        "are not counted.",
        epilog=EXAMPLES,
        formatter_class=PROBE_FORMATTER,
    )
    add_input_options(parser)
    group = parser.add_argument_group("neighbours")
    listed = " ".join(map(str, KS))
    group.add_argument("--k", type=int, nargs="+", metavar="N", default=list(KS), help=f"to choose from ({listed})")
    group.add_argument(
        "--temperature",
        type=float,
        nargs="+",
        metavar="T",
        default=[TEMPERATURE],
        help=f"of the weights exp(cosine / T), to choose from (default: {TEMPERATURE})",
    )
    add_tokens_option(group)
    group.add_argument("--metric", default=METRIC, metavar="SCORE", help=f"that chooses (default: {METRIC})")
    group.add_argument("--no-refit", action="store_true", help="the pictures of validation do not join the neighbours")
    add_beside_option(parser)
    add_output_options(parser)
    parser.set_defaults(run=run)


def add_tokens_option(group: "argparse._ArgumentGroup") -> None:
    """By what pictures are near."""
    group.add_argument(
        "--tokens",
        choices=["cls", "pooled", "both"],
        default="cls",
        help="by the CLS token of the last block, its mean patch token, or both (default: cls)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Finds neighbours, chooses their number, tests."""
    from dinov2.eval.probes.judging import About
    from dinov2.eval.probes.knn import KnnProbe, candidates_for

    candidates_for(max(arguments.k), ks=arguments.k, temperatures=arguments.temperature)  # faults before any work
    data, splits = open_splits(arguments, blocks=1)
    candidates = candidates_for(len(splits[0]), ks=arguments.k, temperatures=arguments.temperature)
    outcome, _ = judged(
        KnnProbe(tokens=arguments.tokens, groups=arguments.groups, device=device_of(arguments)),
        arguments,
        about=About(
            probe="knn",
            backbone=arguments.backbone,
            settings={
                **picture_settings(arguments),
                "tokens": arguments.tokens,
                "weights": "exp(cosine / temperature), summing to 1",
            },
            metric=arguments.metric,
        ),
        candidates=candidates,
        splits=splits,
    )
    return end(outcome, arguments, data=data)
