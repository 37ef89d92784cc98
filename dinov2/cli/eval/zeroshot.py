"""`dinov2 eval zeroshot`: texts instead of labels, for backbones with a text tower.

In: words. Out: a result folder.
"""

import argparse
from typing import TYPE_CHECKING

from dinov2.cli.console import progress_bar
from dinov2.cli.eval.floor import add_beside_option, beside_outcomes
from dinov2.cli.eval.options import (
    PROBE_FORMATTER,
    add_input_options,
    add_output_options,
    check_output,
    device_of,
    open_eval_data,
)
from dinov2.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from dinov2.eval.backbones import ImageText
    from dinov2.eval.examples import EvalData, Examples
    from dinov2.eval.outcome import Predictions
    from dinov2.eval.probes.zeroshot import ZeroShot

ENSEMBLES = ("embedding", "similarity", "max")
EXAMPLES = """examples:
  dinov2 eval zeroshot --backbone models/whyxrayclip --dataset NIHChestXray:root=nih --prompts zeroshot_findings \\
    --output-dir scores/zeroshot
  dinov2 eval zeroshot --backbone models/clip --test-dataset f.csv --labels view --prompts views.yaml --output-dir z

a file of prompts, YAML or JSON:
  Effusion:
    positive: [a pleural effusion, the costophrenic angle is blunted]
    negative: [no pleural effusion]
or, for one class of several, `PA: [a frontal film taken from behind]`"""


def add_parser(probes: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the probe."""
    parser = probes.add_parser(
        "zeroshot",
        help="texts instead of labels, for backbones with a text tower",
        description="How near a picture is to what is said of each class. One label per picture: softmax over classes. "
        "Several: positive against negative texts of each class. Nothing is fitted and nothing chosen.",
        epilog=EXAMPLES,
        formatter_class=PROBE_FORMATTER,
    )
    add_input_options(parser)
    group = parser.add_argument_group("texts")
    group.add_argument("--prompts", required=True, metavar="F.yaml", help="texts per class, or zeroshot_findings")
    group.add_argument(
        "--ensemble",
        choices=ENSEMBLES,
        default="embedding",
        help="texts of a class as one: mean embedding, mean cosine, or the largest cosine (default: embedding)",
    )
    group.add_argument("--logit-scale", type=float, metavar="X", help="of cosines in the softmax (the model's own)")
    group.add_argument("--no-val", action="store_true", help="do not also score the pictures of validation")
    add_beside_option(parser)
    add_output_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Encodes texts and pictures, compares them, writes the result."""
    import torch

    from dinov2.cli.eval.ending import finish
    from dinov2.cli.eval.feature_run import refuse_several_processes
    from dinov2.config.presets import find_config
    from dinov2.eval.backbones import open_image_text
    from dinov2.eval.outcome import Outcome
    from dinov2.eval.probes.zeroshot import ZeroShot
    from dinov2.eval.probes.zeroshot_prompts import prompts_of_classes, read_prompts

    check_output(arguments)
    refuse_several_processes("zeroshot")
    prompts = read_prompts(find_config(arguments.prompts, kind="eval"))
    data, split = _data(arguments)
    examples: Examples = getattr(data, split)
    if examples.task == "segmentation":
        raise ConfigError("--masks: zero-shot goes by labels. Give --labels.")
    chosen = prompts_of_classes(examples.classes, prompts, task=examples.task)
    device: torch.device = device_of(arguments)
    model = open_image_text(arguments.backbone).to(device)
    zeroshot = ZeroShot(
        model, chosen, task=examples.task, ensemble=arguments.ensemble, logit_scale=arguments.logit_scale
    )
    val = None if arguments.no_val or split != "test" or data.val is None else data.val
    said_of_val = None if val is None else _predict(arguments, model, zeroshot, val, name="val", device=device)
    outcome = Outcome(
        probe="zeroshot",
        backbone=arguments.backbone,
        dataset=examples.name,
        settings={
            "size_px": arguments.size or model.traits.input_size,
            "fit": arguments.fit,
            "precision": arguments.precision,
            "prompts": arguments.prompts,
            "texts": {
                name: len(one.positive) + len(one.negative) for name, one in zip(examples.classes, chosen, strict=True)
            },
            "ensemble": arguments.ensemble,
            "logit scale": zeroshot.logit_scale,
            "scores": _kind(zeroshot, task=examples.task),
        },
        metric="macro_auroc",
        chosen={},
        trail=(),
        fitted_on="nothing",
        counts={name: len(one) for name, one in data.splits() if one is examples or one is val},
        val=said_of_val,
        test=_predict(arguments, model, zeroshot, examples, name=split, device=device),
    )
    return finish(outcome, arguments, beside=beside_outcomes(arguments, data=data))


def _data(arguments: argparse.Namespace) -> "tuple[EvalData, str]":
    """The data, and the split that is judged: test, else val, else train.

    Texts need no pictures to fit on: pictures of test alone are opened as if they were those of train.
    """
    if arguments.dataset or arguments.train_dataset:
        data = open_eval_data(arguments)
        return data, next(name for name in ("test", "val", "train") if getattr(data, name) is not None)
    if not arguments.test_dataset:
        raise ConfigError("no pictures: give --dataset, or --test-dataset.")
    if arguments.beside:
        raise ConfigError("--beside: floors are fitted on pictures of train. Give --dataset, or --train-dataset.")
    alone = argparse.Namespace(**vars(arguments))
    alone.train_dataset, alone.test_dataset = arguments.test_dataset, None
    alone.train_split = arguments.test_split or "test"
    return open_eval_data(alone), "train"


def _predict(
    arguments: argparse.Namespace,
    model: "ImageText",
    zeroshot: "ZeroShot",
    examples: "Examples",
    *,
    name: str,
    device: "torch.device",
) -> "Predictions":
    from dinov2.eval.pictures import preparation_for
    from dinov2.eval.probes.zeroshot import embed_pictures, predict_by_text

    with progress_bar() as bar:
        line = bar.add_task(f"pictures of {name}", total=len(examples), status="")
        embeddings, cases = embed_pictures(
            model,
            examples,
            preparation=preparation_for(model.traits, size=arguments.size, fit=arguments.fit),
            batch_size=arguments.batch_size,
            workers=arguments.workers,
            device=device,
            precision=arguments.precision,
            advance=lambda count: bar.advance(line, count),
        )
    return predict_by_text(zeroshot, embeddings, cases, groups=arguments.groups)


def _kind(zeroshot: "ZeroShot", *, task: str) -> str:
    if task == "multiclass":
        return "softmax over classes of logit scale x cosine"
    if zeroshot.calibrated:
        return "softmax over positive and negative texts of each class"
    return "cosine to the positive texts, which is no probability"
