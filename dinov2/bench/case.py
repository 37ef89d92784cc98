"""What a benchmark of the training step computes: an architecture, crops, prototypes; and the ways to compute it.

In: command-line options. Out: a `Case`, `Form`s of computing it, the `Config` of each, and crops of noise.
"""

import argparse
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args, get_type_hints

import torch

from dinov2.batch import NUM_GLOBAL_CROPS, Batch, Views
from dinov2.config.load import load_config
from dinov2.config.schema import Config, Runtime
from dinov2.errors import ConfigError
from dinov2.models.vision_transformer import SIZES
from dinov2.ssl.precision import DTYPES

FEWEST = {"batch_size": 2, "local_crops": 0}  # a picture alone has no neighbour to be spread from
MASKED_SHARE = 0.5  # of the global crops, as in the public recipe
ATTENTION, COMPILE, CHECKPOINTING = (
    get_args(get_type_hints(Runtime)[key]) for key in ("attention", "compile", "activation_checkpointing")
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """Sizes of one training step; with Sinkhorn, one head for all tokens, and drop path only where asked for."""

    arch: str = "vit_small"
    patch_size: int = 14  # pixels
    batch_size: int = 8  # pictures
    global_size: int = 224  # pixels
    local_size: int = 98  # pixels
    local_crops: int = 8  # a picture
    prototypes: int = 8192
    drop_path: float = 0.0

    def __str__(self) -> str:
        return (
            f"{self.arch}/{self.patch_size}, {self.batch_size} pictures, 2x{self.global_size} + "
            f"{self.local_crops}x{self.local_size}, {self.prototypes:,} prototypes"
        )


PRESETS = {
    "small": Case(),
    "raddino": Case(arch="vit_base", batch_size=40, global_size=518, local_size=196, prototypes=65536),
}


@dataclass(frozen=True, kw_only=True)
class Form:
    """One way to compute a case: this package's, by its settings, or the plain one, which has none."""

    name: Literal["ours", "plain"] = "ours"
    precision: str
    attention: str = "auto"
    compile: str = "auto"
    checkpointing: str = "pointwise"

    def __str__(self) -> str:
        if self.name == "plain":
            return f"plain, {self.precision}"
        return (
            f"ours, {self.precision}, attention {self.attention}, compile {self.compile}, "
            f"checkpointing {self.checkpointing}"
        )


def plain_form(precision: str) -> Form:
    """The form that public code has: eager, torch's fused attention, everything kept for the backward pass."""
    return Form(name="plain", precision=precision, attention="sdpa", compile="never", checkpointing="none")


def add_case_arguments(parser: argparse.ArgumentParser) -> None:
    """Options for the sizes; what is not given is the preset's."""
    parser.add_argument(
        "--preset",
        choices=tuple(PRESETS),
        default="small",
        help="; ".join(f"{name}: {case}" for name, case in PRESETS.items()) + " (default small)",
    )
    parser.add_argument("--arch", choices=tuple(SIZES), help="of the backbone")
    parser.add_argument("--patch-size", type=int, help="pixels")
    parser.add_argument("--batch-size", type=int, help="pictures")
    parser.add_argument("--global-size", type=int, help="side of the 2 global crops, pixels")
    parser.add_argument("--local-size", type=int, help="side of the local crops, pixels")
    parser.add_argument("--local-crops", type=int, help="a picture")
    parser.add_argument("--prototypes", type=int, help="of the head")
    parser.add_argument("--drop-path", type=float, help="rate (default 0: every picture goes through every block)")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")


def add_ceiling_arguments(parser: argparse.ArgumentParser) -> None:
    """How long the machine's own rates are measured."""
    parser.add_argument(
        "--ceiling-seconds", type=_positive, default=2.0, help="of matrix products and of copies (default 2)"
    )


def add_form_arguments(parser: argparse.ArgumentParser, *, precision: list[str]) -> None:
    """Options for the ways to compute; each takes several values, and every combination is measured."""
    choices = {"precision": tuple(sorted(DTYPES)), "attention": ATTENTION, "compile": COMPILE}
    choices["checkpointing"] = CHECKPOINTING
    usual = {"precision": precision, "attention": ["auto"], "compile": ["auto"], "checkpointing": ["pointwise"]}
    for name, words in choices.items():
        text = f"of {', '.join(words)} (default {' '.join(usual[name])})"
        parser.add_argument(f"--{name}", nargs="+", choices=words, default=usual[name], metavar="WORD", help=text)


def case_of(arguments: argparse.Namespace) -> Case:
    """The case that the options name.

    Raises:
        ConfigError: a size that is not positive.
    """
    preset = PRESETS[arguments.preset]
    given = {name: value for name in asdict(preset) if (value := getattr(arguments, name)) is not None}
    for name, value in given.items():
        fewest = FEWEST.get(name, 1)
        if isinstance(value, int) and value < fewest:
            raise ConfigError(f"--{name.replace('_', '-')} {value}: expected {fewest} or more.")
    return replace(preset, **given)


def forms_of(arguments: argparse.Namespace, *, precision: str) -> list[Form]:
    """Every combination of the options, at one number format; ours alone."""
    return [
        Form(precision=precision, attention=attention, compile=compiled, checkpointing=checkpointing)
        for attention in arguments.attention
        for compiled in arguments.compile
        for checkpointing in arguments.checkpointing
    ]


def config_of(case: Case, form: Form, *, device: torch.device) -> Config:
    """The configuration of a case in a form.  Raises ConfigError where the sizes do not fit each other."""
    return load_config(None, overrides=config_words(case, form, device=device)).config


def config_words(case: Case, form: Form, *, device: torch.device) -> list[str]:
    """The same as words of a command line."""
    words: dict[str, Any] = {
        "student.arch": case.arch,
        "student.patch_size": case.patch_size,
        "student.drop_path_rate": case.drop_path,
        "train.batch_size_per_gpu": case.batch_size,
        "train.centering": "sinkhorn_knopp",
        "crops.global_crops_size": case.global_size,
        "crops.local_crops_size": case.local_size,
        "crops.local_crops_number": case.local_crops,
        "dino.head_n_prototypes": case.prototypes,
        "runtime.precision": form.precision,
        "runtime.device": device.type,
        "runtime.attention": form.attention,
        "runtime.compile": form.compile,
        "runtime.activation_checkpointing": form.checkpointing,
    }
    return [f"{key}={value}" for key, value in words.items()]


def random_views(config: Config, *, device: torch.device) -> Views:
    """Noise crops and masks with the public share of masked patches; the same for the same configuration."""
    generator = torch.Generator().manual_seed(0)
    crops, count = config.crops, config.train.batch_size_per_gpu
    batch = Batch(
        global_crops=_noise(NUM_GLOBAL_CROPS * count, crops.global_crops_size, generator=generator),
        local_crops=_noise(crops.local_crops_number * count, crops.local_crops_size, generator=generator),
        masks=random_masks(config),
        positions=torch.arange(count),
    )
    return batch.to(device).views(mean=config.data.mean, std=config.data.std)


def random_masks(config: Config) -> torch.Tensor:
    """Half of the crops are masked, with shares spread evenly over the configured range.  -> bool [G*B, N]"""
    generator = torch.Generator().manual_seed(1)
    patches = num_patches(config)
    masks = torch.zeros(NUM_GLOBAL_CROPS * config.train.batch_size_per_gpu, patches, dtype=torch.bool)
    low, high = config.ibot.mask_ratio_min_max
    masked = range(num_masked_crops(config))
    for place, row in enumerate(masked):
        ratio = low + (high - low) * (place + 0.5) / len(masked)
        masks[row, torch.randperm(patches, generator=generator)[: int(ratio * patches)]] = True
    return masks


def num_patches(config: Config) -> int:
    """Of a global crop."""
    return int((config.crops.global_crops_size // config.student.patch_size) ** 2)


def num_masked_crops(config: Config) -> int:
    """Of a batch."""
    return int(NUM_GLOBAL_CROPS * config.train.batch_size_per_gpu * MASKED_SHARE)


def _positive(word: str) -> float:
    value = float(word)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"expected a number above 0, not {word}")
    return value


def _noise(count: int, side: int, *, generator: torch.Generator) -> torch.Tensor:
    return torch.randint(0, 256, (count, side, side), generator=generator, dtype=torch.uint8)
