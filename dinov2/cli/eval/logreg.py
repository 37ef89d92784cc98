"""`dinov2 eval logreg`: logistic regression on features, its strength chosen on validation.

In: words. Out: a result folder.
"""

import argparse

from dinov2.cli.eval.heads import about, add_head_options, end, fit_settings, fitting_bar, judged, open_splits
from dinov2.cli.eval.options import PROBE_FORMATTER

EXAMPLES = """examples:
  dinov2 eval logreg --backbone RUN/exports/400 --dataset films.csv --labels Effusion Mass --output-dir scores/logreg
  dinov2 eval logreg --backbone RUN/exports/400 --dataset films.csv --labels view --num-c 45 --output-dir scores/view"""
NUM_C = 12


def add_parser(probes: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the probe."""
    parser = probes.add_parser(
        "logreg",
        help="logistic regression, its strength chosen on validation",
        description="Logistic regression (scikit-learn, L-BFGS) on features; C from 10^-6 to 10^5.",
        epilog=EXAMPLES,
        formatter_class=PROBE_FORMATTER,
    )
    add_head_options(parser)
    group = parser.add_argument_group("logistic regression")
    group.add_argument(
        "--num-c", type=int, default=NUM_C, metavar="N", help=f"values of C (default: {NUM_C}; the public sweep: 45)"
    )
    group.add_argument("--c", type=float, nargs="+", metavar="C", help="these values of C instead")
    group.add_argument(
        "--scaling",
        choices=["standard", "l2", "none"],
        default="standard",
        help="every feature to mean 0 and deviation 1, or every picture to length 1 (default: standard)",
    )
    group.add_argument(
        "--blocks", type=int, default=1, metavar="N", help="CLS tokens of the last N blocks (default: 1)"
    )
    group.add_argument("--pooled", action="store_true", help="the mean patch token of the last block as well")
    group.add_argument("--max-iterations", type=int, default=1000, metavar="N", help="of L-BFGS (default: 1000)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Fits every strength, chooses, fits again, tests."""
    from dinov2.eval.probes.linear_inputs import InputChoice
    from dinov2.eval.probes.logreg import LogregProbe, LogregSettings, remarks, strengths

    values = tuple(arguments.c or strengths(arguments.num_c))
    data, splits = open_splits(arguments, blocks=arguments.blocks)
    classes = data.train.classes
    num_models = len(classes) if data.train.task == "multilabel" else 1
    refit = data.val is not None and not arguments.no_refit
    with fitting_bar((len(values) + refit) * num_models, what="logistic regressions") as advance:
        probe = LogregProbe(
            settings=LogregSettings(
                task=data.train.task,
                num_classes=len(classes),
                scaling=arguments.scaling,
                max_iterations=arguments.max_iterations,
                **fit_settings(arguments),
            ),
            choice=InputChoice(arguments.blocks, arguments.pooled),
            groups=arguments.groups,
            advance=advance,
        )
        outcome, _ = judged(
            probe,
            arguments,
            about=about(
                arguments,
                probe="logreg",
                settings={
                    "scaling": arguments.scaling,
                    "blocks": arguments.blocks,
                    "pooled": arguments.pooled,
                    "C tried": len(values),
                },
            ),
            candidates=[{"C": value} for value in values],
            splits=splits,
            remarks=lambda fitted: remarks(fitted, classes=classes),
        )
    return end(outcome, arguments, data=data)
