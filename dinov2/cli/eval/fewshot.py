"""`dinov2 eval fewshot`: a head from a few patients per class, over several draws.

In: words. Out: a result folder of a typical draw, with the learning curve as `fewshot.csv` and `fewshot.png`.
"""

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dinov2.cli.console import stdout
from dinov2.cli.eval.heads import about, add_head_options, check_numbers, fit_settings, fitting_bar, open_splits
from dinov2.cli.eval.options import PROBE_FORMATTER, device_of

if TYPE_CHECKING:
    from dinov2.eval.examples import EvalData
    from dinov2.eval.protocol import Settings

EXAMPLES = """examples:
  dinov2 eval fewshot --backbone RUN/exports/400 --dataset films.csv --labels Effusion Mass --output-dir scores/few
  dinov2 eval fewshot --backbone RUN/exports/400 --dataset films.csv --labels view --shots 1 4 16 --num-draws 20 \\
    --head linear --choose few --output-dir scores/few_linear"""
STEPS = 200  # of the linear head, however few the pictures are
FIXED_RATE = 0.1
BATCH_SIZE = 128


def add_parser(probes: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the probe."""
    parser = probes.add_parser(
        "fewshot",
        help="a linear head from a few patients per class, over several draws",
        description="A learning curve: n patients per class, drawn several times, each draw tested on the whole test "
        "split.",
        epilog=EXAMPLES,
        formatter_class=PROBE_FORMATTER,
    )
    add_head_options(parser)
    group = parser.add_argument_group("draws and head")
    group.add_argument(
        "--shots",
        type=int,
        nargs="+",
        default=[1, 2, 4, 8, 16],
        metavar="N",
        help="patients per class (default: 1..16)",
    )
    group.add_argument("--num-draws", type=int, default=5, metavar="N", help="of patients (default: 5)")
    group.add_argument("--head", choices=["logreg", "linear"], default="logreg", help="(default: logreg)")
    group.add_argument(
        "--choose",
        choices=["fixed", "few"],
        default="fixed",
        help="settings: one for all (C 1 on features of length 1, or a learning rate of 0.1), or chosen on as many "
        "patients of validation. Validation is never fitted on",
    )
    group.add_argument("--pooled", action="store_true", help="the mean patch token of the last block as well")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Draws, fits, tests; then the curve."""
    from dinov2.cli.eval.ending import finish
    from dinov2.cli.eval.floor import beside_outcomes
    from dinov2.eval.probes.fewshot import few_shot
    from dinov2.eval.probes.fewshot_curve import write_curve
    from dinov2.eval.probes.judging import metric_of

    check_numbers(arguments, ("num_draws",))
    data, splits = open_splits(arguments, blocks=1)
    candidates, probe_of = _logreg(arguments, data) if arguments.head == "logreg" else _linear(arguments)
    with fitting_bar(len(set(arguments.shots)) * arguments.num_draws, what="draws") as advance:
        found = few_shot(
            probe_of,
            about=about(
                arguments,
                probe="fewshot",
                settings={"head": arguments.head, "pooled": arguments.pooled, "draws": arguments.num_draws},
            ),
            candidates=candidates,
            splits=splits,
            shots=arguments.shots,
            draws=arguments.num_draws,
            choose=arguments.choose,
            seed=arguments.seed,
            advance=advance,
        )
    beside = beside_outcomes(arguments, data=data)
    code = finish(found.typical, arguments, beside=beside)
    score = metric_of(arguments.metric)
    floors = [(f"{one.backbone}, all patients", score(one.test)) for one in beside]  # type: ignore[arg-type]
    table, picture = write_curve(found.curve, arguments.output_dir, title=arguments.backbone, floors=floors)
    stdout.print(
        "\n".join([f"{arguments.metric} of test:", *found.curve.told(), f"curve: {picture}, {table}"]), markup=False
    )
    return code


def _logreg(arguments: argparse.Namespace, data: "EvalData") -> "tuple[list[Settings], Callable[[int], Any]]":
    from dinov2.eval.probes.linear_inputs import InputChoice
    from dinov2.eval.probes.logreg import LogregProbe, LogregSettings, strengths

    settings = LogregSettings(
        task=data.train.task,
        num_classes=len(data.train.classes),
        scaling="l2",  # a deviation over a handful of pictures says little
        **fit_settings(arguments),
    )
    probe = LogregProbe(settings=settings, choice=InputChoice(1, arguments.pooled), groups=arguments.groups)
    values = strengths() if arguments.choose == "few" else strengths(1)
    return [{"C": value} for value in values], lambda _: probe


def _linear(arguments: argparse.Namespace) -> "tuple[list[Settings], Callable[[int], Any]]":
    from dinov2.eval.probes.linear_probe import LEARNING_RATES, LinearProbe, LinearSettings, grid

    def probe_of(num_pictures: int) -> LinearProbe:
        settings = LinearSettings(
            epochs=max(1, STEPS // -(-num_pictures // BATCH_SIZE)),
            batch_size=BATCH_SIZE,
            **fit_settings(arguments),
        )
        return LinearProbe(settings=settings, groups=arguments.groups, device=device_of(arguments))

    rates = LEARNING_RATES if arguments.choose == "few" else (FIXED_RATE,)
    return grid(blocks=[1], pooled=[arguments.pooled], learning_rates=rates), probe_of
