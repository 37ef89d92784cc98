"""What changed between a checkpoint and the configuration that continues it.

In: facts of a checkpoint and a `Config`. Out: one message that names the differences; settings that shape tensors
must be equal.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dinov2.config.schema import Config
from dinov2.errors import CheckpointError
from dinov2.train.events import Message

SHAPES_TENSORS = (
    "student.arch",
    "student.patch_size",
    "student.in_chans",
    "student.embed_dim",
    "student.depth",
    "student.num_heads",
    "student.mlp_ratio",
    "student.ffn_layer",
    "student.num_register_tokens",
    "student.qkv_bias",
    "student.proj_bias",
    "student.ffn_bias",
    "crops.global_crops_size",
    "ibot.separate_head",
    "dino.head_n_prototypes",
    "dino.head_bottleneck_dim",
    "dino.head_nlayers",
    "dino.head_hidden_dim",
    "ibot.head_n_prototypes",
    "ibot.head_bottleneck_dim",
    "ibot.head_nlayers",
    "ibot.head_hidden_dim",
)


def compare_configs(facts: Mapping[str, Any], config: Config, *, checkpoint: Path) -> Iterator[Message]:
    """Names what differs from the checkpoint's configuration.  Raises CheckpointError where the architecture does."""
    # What an older version did not know of was as it is by default.
    before, now = flatten(asdict(Config())) | flatten(facts["config"]), flatten(asdict(config))
    changed = {key: (before.get(key), value) for key, value in now.items() if before.get(key) != value}
    lines = [f"{key}: {old!r} in the checkpoint, {new!r} now" for key, (old, new) in changed.items()]
    shaping = [line for line, key in zip(lines, changed, strict=True) if key in SHAPES_TENSORS]
    if shaping:
        raise CheckpointError(
            f"{checkpoint}: belongs to another architecture:\n  " + "\n  ".join(shaping) + "\n"
            "Set these back to continue, choose another --output-dir, or start anew here with --no-resume "
            "(what is there is kept aside)."
        )
    if lines:
        yield Message(text="settings changed since the checkpoint: " + "; ".join(lines), warning=True)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested mapping as dotted keys; tuples as lists, as JSON gives them back."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = list(value) if isinstance(value, tuple) else value
    return flat
