"""`dinov2 eval`: judge a backbone on labelled pictures.

In: words. Out: each probe's module adds its parser and runs it; the rooms are imported only then.
"""

import argparse
import importlib

from dinov2.cli import COMMANDS

EXAMPLES = """examples:
  dinov2 eval knn --backbone RUN/exports/400 --dataset pictures/manifest.parquet --labels Effusion --output-dir scores
  dinov2 eval linear --backbone RUN/exports/400 --dataset NIHChestXray:root=/data/nih --output-dir scores
  dinov2 eval compare scores/knn scores_before/knn"""
PROBES = {
    "knn": "nearest neighbours in feature space",
    "logreg": "logistic regression, its strength chosen on validation",
    "linear": "a grid of linear heads on the last blocks",
    "attentive": "a head that attends to the patch tokens",
    "fewshot": "a linear head from a few patients per class, over several draws",
    "finetune": "the whole backbone, or adapters (LoRA, BitFit)",
    "segment": "a decoder on the patch tokens",
    "zeroshot": "texts instead of labels, for backbones with a text tower",
    "retrieval": "whether the nearest pictures share a label",
    "floor": "what pixels alone, or metadata alone, can tell",
    "compare": "two results by a paired bootstrap",
}


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the sub-command; only the chosen probe's module is imported."""
    parser = commands.add_parser(
        "eval",
        help=COMMANDS["eval"],
        description="Judge a backbone on labelled pictures.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    probes = parser.add_subparsers(dest="probe", required=True, metavar="PROBE")
    for name in PROBES:
        importlib.import_module(f"dinov2.cli.eval.{name}").add_parser(probes)
