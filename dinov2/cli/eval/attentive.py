"""`dinov2 eval attentive`: learnt queries that attend to the patch tokens.

In: words. Out: a result folder.
"""

import argparse

from dinov2.cli.eval.heads import about, add_head_options, end, fitting_bar, open_splits
from dinov2.cli.eval.linear import check_numbers
from dinov2.cli.eval.options import PROBE_FORMATTER, device_of

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
    group.add_argument("--epochs", type=int, default=10, metavar="N", help="over the split (default: 10)")
    group.add_argument("--head-batch-size", type=int, default=128, metavar="N", help="of a step (default: 128)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Trains a head per learning rate, chooses, trains again, tests."""
    from dinov2.eval.features import Labelled
    from dinov2.eval.probes.attentive import LEARNING_RATES, AttentiveProbe, AttentiveSettings
    from dinov2.eval.probes.judging import judge

    check_numbers(arguments, ("epochs", "head_batch_size", "num_queries"))
    data, splits = open_splits(arguments, blocks=1, patches=True)
    refit = splits[1] is not None and not arguments.no_refit
    sizes = [len(splits[0]), *([len(splits[0]) + len(splits[1])] if splits[1] is not None and refit else [])]
    rates = arguments.learning_rates or LEARNING_RATES
    total = sum(arguments.epochs * -(-size // arguments.head_batch_size) for size in sizes)
    with fitting_bar(total, what=f"{len(rates)} attentive heads, steps") as advance:
        outcome, _ = judge(
            AttentiveProbe(
                settings=AttentiveSettings(
                    epochs=arguments.epochs,
                    batch_size=arguments.head_batch_size,
                    num_queries=arguments.num_queries,
                    weight_decay=arguments.weight_decay,
                    policy=arguments.uncertain,
                    balance="balanced" if arguments.balance else "none",
                    seed=arguments.seed,
                ),
                groups=arguments.groups,
                device=device_of(arguments),
                advance=advance,
            ),
            about=about(
                arguments,
                probe="attentive",
                settings={
                    "epochs": arguments.epochs,
                    "head_batch_size": arguments.head_batch_size,
                    "num_queries": arguments.num_queries,
                    "weight_decay": arguments.weight_decay,
                },
            ),
            candidates=[{"learning_rate": rate} for rate in dict.fromkeys(rates)],
            splits=splits,
            join=Labelled.joined,
            refit=not arguments.no_refit,
        )
    return end(outcome, arguments, data=data)
