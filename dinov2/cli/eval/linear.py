"""`dinov2 eval linear`: a grid of linear heads on the last blocks, trained in one pass.

In: words. Out: a result folder, and the chosen head as `head.safetensors`.
"""

import argparse
import json
from functools import partial
from typing import TYPE_CHECKING

from dinov2.cli.eval.heads import (
    add_head_options,
    add_step_options,
    check_numbers,
    end,
    fit_settings,
    judged_in_steps,
    open_splits,
    pooling,
)
from dinov2.cli.eval.options import PROBE_FORMATTER
from dinov2.errors import ConfigError

if TYPE_CHECKING:
    from dinov2.eval.features import Features
    from dinov2.eval.probes.linear_probe import FittedHead

EXAMPLES = """examples:
  dinov2 eval linear --backbone RUN/exports/400 --dataset films.csv --labels Effusion Mass --output-dir scores/linear
  dinov2 eval linear --backbone RUN/exports/400 --dataset CheXpert:root=/data/chexpert --uncertain ones \\
    --blocks 1 --pooled true --learning-rates 0.05 0.1 --output-dir scores/chexpert"""
BLOCKS = (1, 4)
HEAD_NAME = "head.safetensors"


def add_parser(probes: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the probe."""
    parser = probes.add_parser(
        "linear",
        help="a grid of linear heads on the last blocks",
        description="Linear heads by SGD (momentum 0.9, cosine to 0) on frozen features, every setting in one pass.",
        epilog=EXAMPLES,
        formatter_class=PROBE_FORMATTER,
    )
    add_head_options(parser)
    group = parser.add_argument_group("the grid")
    group.add_argument(
        "--blocks", type=int, nargs="+", metavar="N", help="CLS tokens of the last N blocks (default: 1 4)"
    )
    group.add_argument(
        "--pooled",
        nargs="+",
        choices=["true", "false"],
        help="with or without the mean patch token of the last block (default: true false)",
    )
    group.add_argument(
        "--learning-rates",
        type=float,
        nargs="+",
        metavar="X",
        help="of losses that are means (default: 0.001 0.005 0.01 0.05 0.1 0.5)",
    )
    group.add_argument("--weight-decays", type=float, nargs="+", metavar="X", default=[0.0], help="(default: 0)")
    group.add_argument(
        "--scaling",
        choices=["none", "standard"],
        default="none",
        help="features as they are, as published, or each to mean 0 and deviation 1, where features are far "
        "from that (default: none)",
    )
    add_step_options(group)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Trains the grid, chooses, trains the chosen head again, tests."""
    from dinov2.eval.probes.linear_probe import LEARNING_RATES, LinearProbe, LinearSettings, grid

    check_numbers(arguments, ("epochs", "head_batch_size"))
    data, splits = open_splits(arguments, blocks=max(arguments.blocks or BLOCKS))
    candidates = grid(
        blocks=_blocks(arguments, splits[0].features),
        pooled=_pooled(arguments, splits[0].features),
        learning_rates=arguments.learning_rates or LEARNING_RATES,
        weight_decays=arguments.weight_decays,
    )
    settings = LinearSettings(
        epochs=arguments.epochs,
        batch_size=arguments.head_batch_size,
        scaling=arguments.scaling,
        **fit_settings(arguments),
    )
    outcome, final = judged_in_steps(
        partial(LinearProbe, settings=settings),
        arguments,
        name="linear",
        settings=("epochs", "head_batch_size", "scaling"),
        candidates=candidates,
        splits=splits,
    )
    code = end(outcome, arguments, data=data)
    _save(final, arguments, classes=data.train.classes)
    return code


def _blocks(arguments: argparse.Namespace, features: "Features") -> tuple[int, ...]:
    """As asked; by default 1 and 4, or as many as the backbone has."""
    given, kept = arguments.blocks, features.cls.shape[1]
    if given and (min(given) < 1 or max(given) > kept):
        raise ConfigError(f"--blocks {' '.join(map(str, given))}: the backbone gives 1 to {kept}.")
    return tuple(given or dict.fromkeys(min(blocks, kept) for blocks in BLOCKS))


def _pooled(arguments: argparse.Namespace, features: "Features") -> tuple[bool, ...]:
    """As asked; by default both, or without where there are no patch tokens."""
    if arguments.pooled:
        return pooling(arguments.pooled)
    return (True, False) if features.pooled is not None else (False,)


def _save(final: "FittedHead", arguments: argparse.Namespace, *, classes: tuple[str, ...]) -> None:
    from safetensors.torch import save_file

    card = {"input": final.choice.name, "classes": json.dumps(classes), "backbone": arguments.backbone}
    tensors = {"weight": final.head.weight.contiguous(), "bias": final.head.bias.contiguous()}
    save_file(tensors, arguments.output_dir / HEAD_NAME, metadata=card)
