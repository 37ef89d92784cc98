"""`dinov2 bench`: how fast the step, the loader and all around them are on this machine, against its own ceilings."""

import argparse
import importlib
import json
from pathlib import Path

from dinov2.cli import COMMANDS, CommandParser
from dinov2.cli.console import stdout

EXAMPLES = """examples:
  dinov2 bench step --precision fp32 bf16 --against plain
  dinov2 bench step --preset raddino --precision fp16 --compile always never --against plain --profile step.png
  dinov2 bench memory --against plain --largest
  dinov2 bench kernels --only attention prototypes
  dinov2 bench allocator --only encode
  dinov2 bench feed --preset raddino --workers 12
  dinov2 bench loader --json loader.json
  dinov2 bench preprocess --films 32
  dinov2 bench encoder --precision fp32 --batch 1
  dinov2 bench manifest --rows 2000000
  dinov2 bench checkpoint --arch vit_base --folder runs
  dinov2 bench logging --loggers tensorboard mlflow
  dinov2 bench explore --films 20000
  dinov2 bench report
  dinov2 bench resume --rows 1000000
  bash scripts/bench_gpu.sh OUT          the whole table of one GPU in under 9 minutes
  dinov2 bench table OUT                 that table again, from the files in OUT"""
SUBJECTS = {
    "step": "the training step, against the machine's matrix-product rate and the plain form",
    "memory": "the step's peak memory by form and batch size, and the largest batch that fits",
    "kernels": "attention by name, losses, Sinkhorn, optimiser and norms, each against its ceiling",
    "allocator": "on a CPU: freed memory kept by the process, against given back by the C library",
    "feed": "a short real training on synthetic films: how long the step waits for the loader",
    "loader": "the loader, against a plain Pillow pipeline",
    "preprocess": "the conversion of films, against SimpleITK and a plain loop",
    "encoder": "dinov2.Encoder, against transformers and the processor of rad_dino; and what importing costs",
    "manifest": "what a manifest of two million rows costs, step by step",
    "checkpoint": "how long training waits for a save, in the background against in the foreground",
    "logging": "what TensorBoard, Weights & Biases and MLflow cost a step",
    "explore": "the command and page of `dinov2 explore`, of 20,000 films",
    "report": "the command and page of `dinov2 report`, of a run of 100,000 steps",
    "resume": "from the start of a command to its first batch, at steps 0 to 1,000,000",
    "table": "what scripts/bench_gpu.sh measured, as one Markdown table",
}
OF_SUBJECT = {
    "step": ("--precision fp32 bf16 --against plain", "--preset raddino --precision fp16 --profile step.png"),
    "memory": ("--against plain --largest", "--precision bf16 --json memory.json"),
    "kernels": ("--only attention prototypes", "--json kernels.json"),
    "allocator": ("--only step --precision bf16", "--encode-batch 8 --json allocator.json"),
    "feed": ("--preset raddino --workers 12", "--workers 2 --json feed.json"),
    "loader": ("--workers 2", "--json loader.json"),
    "preprocess": ("--films 32", "--films 8 --json preprocess.json"),
    "encoder": ("--precision fp32 --batch 1", "--json encoder.json"),
    "manifest": ("--rows 2000000", "--rows 100000 --json manifest.json"),
    "checkpoint": ("--arch vit_base --folder runs", "--json checkpoint.json"),
    "logging": ("--loggers tensorboard mlflow", "--step-seconds 0.4 --json logging.json"),
    "explore": ("--films 20000", "--method umap --json explore.json"),
    "report": ("--steps 100000", "--log-every 10 --json report.json"),
    "resume": ("--rows 1000000", "--json resume.json"),
    "table": ("OUT", "OUT --json table.json"),
}
"""Two examples each."""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the sub-command; what each subject measures is parsed by its own module."""
    parser = commands.add_parser(
        "bench",
        help=COMMANDS["bench"],
        description="Measure on this machine. Ratios of one run are comparable; numbers of different runs are not.\n\n"
        "subjects:\n" + "\n".join(f"  {name:12}{what}" for name, what in SUBJECTS.items()),
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("subject", choices=tuple(SUBJECTS), metavar="SUBJECT", help="one of the above")
    parser.add_argument("--json", type=Path, metavar="F", help="also write the result as JSON")
    parser.add_argument("rest", nargs=argparse.REMAINDER, help="options of the subject (dinov2 bench step --help)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measures one subject and prints its table."""
    words = subject_parser(arguments.subject).parse_args(arguments.rest)
    file = words.json or arguments.json
    module = importlib.import_module(f"dinov2.bench.{arguments.subject}")
    result = module.run(words)
    stdout.print(module.table(result))
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(result, indent=1) + "\n")
        stdout.print(f"written: {file}", markup=False)
    return 0


def subject_parser(subject: str) -> argparse.ArgumentParser:
    """The options of one subject, which its own module adds."""
    shown = "\n".join(f"  dinov2 bench {subject} {words}" for words in OF_SUBJECT[subject])
    parser = CommandParser(
        prog=f"dinov2 bench {subject}",
        description=f"Measures {SUBJECTS[subject]}.",
        epilog=f"examples:\n{shown}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", type=Path, metavar="F", help="also write the result as JSON")
    importlib.import_module(f"dinov2.bench.{subject}").add_arguments(parser)
    return parser
