"""`dinov2 eval attentive`: learnt queries that attend to the patch tokens.

In: words. Out: a result folder.
"""

import argparse
from functools import partial

from dinov2.cli.eval.heads import (
    add_head_options,
    add_step_options,
    check_numbers,
    end,
    fit_settings,
    judged_in_steps,
    open_splits,
)
from dinov2.cli.eval.options import PROBE_FORMATTER

EXAMPLES = """examples:
  dinov2 eval attentive --backbone RUN/exports/400 --dataset films.csv --labels Effusion --output-dir scores/attentive
  dinov2 eval attentive --backbone RUN/exports/400 --dataset films.csv --labels view --learning-rates 1e-3 \\
    --num-queries 4 --output-dir scores/attentive4"""


def add_parser(probes: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the probe."""
    parser = probes.add_parser(
        "attentive",
        help="a head that attends to the patch tokens",
        description="Learnt queries, one cross-attention to the patch tokens, one linear layer; AdamW.",
        epilog=EXAMPLES,
        formatter_class=PROBE_FORMATTER,
    )
    add_head_options(parser)
    group = parser.add_argument_group("the head")
    group.add_argument(
        "--learning-rates", type=float, nargs="+", metavar="X", help="of AdamW (default: 1e-4 3e-4 1e-3 3e-3)"
    )
    group.add_argument("--num-queries", type=int, default=1, metavar="N", help="(default: 1)")
    group.add_argument("--weight-decay", type=float, default=0.05, metavar="X", help="(default: 0.05)")
    add_step_options(group)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Trains a head per learning rate, chooses, trains again, tests."""
    from dinov2.eval.probes.attentive import LEARNING_RATES, AttentiveProbe, AttentiveSettings

    check_numbers(arguments, ("epochs", "head_batch_size", "num_queries"))
    data, splits = open_splits(arguments, blocks=1, patches=True)
    settings = AttentiveSettings(
        epochs=arguments.epochs,
        batch_size=arguments.head_batch_size,
        num_queries=arguments.num_queries,
        weight_decay=arguments.weight_decay,
        **fit_settings(arguments),
    )
    rates = dict.fromkeys(arguments.learning_rates or LEARNING_RATES)
    outcome, _ = judged_in_steps(
        partial(AttentiveProbe, settings=settings),
        arguments,
        name="attentive",
        settings=("epochs", "head_batch_size", "num_queries", "weight_decay"),
        candidates=[{"learning_rate": rate} for rate in rates],
        splits=splits,
    )
    return end(outcome, arguments, data=data)
