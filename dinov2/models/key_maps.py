"""Names of weights: from every spelling in which DINOv2's are found to the flat public one, and to Hugging Face's.

In: a state dict as it lies in a file. Out: its parts (backbone, dino_head, ibot_head) and centres under flat public
names.

Spellings: wrappers ("teacher", "model", "student"), prefixes ("backbone.", "module.", "_orig_mod."), chunked blocks
(`blocks.2.7.*`), Hugging Face's Dinov2Model and Dinov2WithRegistersModel (as on disk, and as in memory in
transformers 5), torch's second weight_norm (`parametrizations.weight.original0`), timm's (`dinov2.models.timm_names`).
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from dinov2.models.timm_names import StateDict, from_timm

Which = Literal["teacher", "student"]
PARTS = ("backbone", "dino_head", "ibot_head")
WRAPPERS = ("teacher", "model", "student", "state_dict")
CENTERS = {"dino_loss.center": "dino_center", "ibot_patch_loss.center": "ibot_center"}
"""Public name of a loss's running centre -> ours."""
WRAPPING_MODULES = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
TRANSFORMERS_PREFIXES = ("dinov2.", "dinov2_with_registers.")

CHUNKED = re.compile(r"^blocks\.\d+\.(\d+)\.")

# Hugging Face on disk -> public; the same list read backwards writes Hugging Face files.
TRANSFORMERS_TOP = (
    ("embeddings.cls_token", "cls_token"),
    ("embeddings.mask_token", "mask_token"),
    ("embeddings.register_tokens", "register_tokens"),
    ("embeddings.position_embeddings", "pos_embed"),
    ("embeddings.patch_embeddings.projection.", "patch_embed.proj."),
    ("layernorm.", "norm."),
)
TRANSFORMERS_LAYER = (
    ("attention.output.dense.", "attn.proj."),
    ("layer_scale1.lambda1", "ls1.gamma"),
    ("layer_scale2.lambda1", "ls2.gamma"),
    ("mlp.weights_in.", "mlp.w12."),
    ("mlp.weights_out.", "mlp.w3."),
)
# In memory, newer transformers uses other names for the same tensors.
TRANSFORMERS_NEW_NAMES = (
    (".attention.q_proj.", ".attention.attention.query."),
    (".attention.k_proj.", ".attention.attention.key."),
    (".attention.v_proj.", ".attention.attention.value."),
    (".attention.o_proj.", ".attention.output.dense."),
    (".mlp.down_proj.", ".mlp.weights_out."),
)
# Several tensors of Hugging Face, stacked in this order, are one of ours.
STACKED_QKV = (
    "attention.attention.query.",
    "attention.attention.key.",
    "attention.attention.value.",
)
STACKED_GATE = ("mlp.gate_proj.", "mlp.up_proj.")


class Split(NamedTuple):
    """What a file holds."""

    parts: dict[str, StateDict]  # of `PARTS`, those that are there
    centers: StateDict  # "dino_center", "ibot_center" [K]
    left_out: tuple[str, ...]  # names of tensors that belong to none


def split_parts(holder: Mapping[str, Any], *, which: Which = "teacher") -> Split:
    """Parts and centres of whatever a file holds, flat public names in each.

    Of a file that holds teacher and student, `which` is taken; one that names neither is taken as it is. A file of one
    head alone becomes the part "dino_head".
    """
    state = {unwrapped_name(name): tensor for name, tensor in unwrap(holder, which=which).items()}
    networks = [which, *(network for network in ("teacher", "student") if network != which)]
    for network in networks:
        if any(name.startswith(f"{network}.") for name in state):
            chosen = strip_prefix(state, f"{network}.")
            return _by_part(chosen, others={name: state[name] for name in state if not name.startswith(f"{network}.")})
    return _by_part(state, others={})


def holds_network(holder: Mapping[str, Any], network: Which) -> bool:
    """Whether a file says of some of its tensors that they are that network's."""
    inner = holder.get("model")
    return (
        isinstance(holder.get(network), Mapping)
        or any(unwrapped_name(str(name)).startswith(f"{network}.") for name in holder)
        or (isinstance(inner, Mapping) and holds_network(inner, network))
    )


def unwrap(holder: Mapping[str, Any], *, which: Which = "teacher") -> StateDict:
    """The innermost mapping of names to tensors, through wrappers such as {"teacher": ...} or {"model": ...}."""
    for wrapper in (which, *WRAPPERS):
        if isinstance(holder.get(wrapper), Mapping):
            return unwrap(holder[wrapper], which=which)
    return {name: value for name, value in holder.items() if isinstance(name, str) and isinstance(value, Tensor)}


def unwrapped_name(name: str) -> str:
    """`name` without the segments that DDP, FSDP, torch.compile and activation checkpointing add."""
    return ".".join(segment for segment in name.split(".") if segment not in WRAPPING_MODULES)


def strip_prefix(state: StateDict, prefix: str) -> StateDict:
    """The entries under `prefix`, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _by_part(state: StateDict, *, others: StateDict) -> Split:
    everything = {**state, **others}
    centers = {ours: everything[public].flatten() for public, ours in CENTERS.items() if public in everything}
    state = {name: tensor for name, tensor in state.items() if name not in CENTERS}
    left_out = [name for name in others if name not in CENTERS]
    parts = {part: strip_prefix(state, f"{part}.") for part in PARTS}
    parts = {part: entries for part, entries in parts.items() if entries}
    if parts:
        left_out += [name for name in state if name.partition(".")[0] not in PARTS]
    elif state:
        parts = {"dino_head" if is_head(state) else "backbone": state}
    flat = {part: public_names(entries) for part, entries in parts.items()}
    return Split(parts=flat, centers=centers, left_out=tuple(sorted(left_out)))


def public_names(state: StateDict) -> StateDict:
    """One part, under flat public names."""
    if is_transformers(state):
        return from_transformers(state)
    return from_timm(flat_blocks(first_weight_norm(state)))


def is_head(state: Mapping[str, Tensor]) -> bool:
    """A projection head without a prefix."""
    return any(name.startswith("last_layer.") for name in state)


def is_transformers(state: Mapping[str, Tensor]) -> bool:
    """A backbone in Hugging Face's names."""
    return any("embeddings.patch_embeddings." in name or "encoder.layer." in name for name in state)


def flat_blocks(state: StateDict) -> StateDict:
    """`blocks.<chunk>.<index>.*` to `blocks.<index>.*`; the index counts over all chunks, so none collide."""
    return {CHUNKED.sub(r"blocks.\1.", name): tensor for name, tensor in state.items()}


def first_weight_norm(state: StateDict) -> StateDict:
    """`parametrizations.weight.original0` and `1` to `weight_g` and `weight_v`."""
    renamed = (("parametrizations.weight.original0", "weight_g"), ("parametrizations.weight.original1", "weight_v"))
    return {_replaced(name, renamed): tensor for name, tensor in state.items()}


def from_transformers(state: StateDict) -> StateDict:
    """Hugging Face's names, in either spelling, to the public ones; queries, keys and values become one matrix."""
    for prefix in TRANSFORMERS_PREFIXES:
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    state = {_replaced(name, TRANSFORMERS_NEW_NAMES): tensor for name, tensor in state.items()}
    for parts, whole in ((STACKED_QKV, "attention.qkv."), (STACKED_GATE, "mlp.weights_in.")):
        state = _stacked(state, parts=parts, whole=whole)
    public: StateDict = {}
    for name, tensor in state.items():
        layer = re.sub(r"^encoder\.layer\.", "blocks.", name)
        if layer != name:
            public[_replaced(layer, (("attention.qkv.", "attn.qkv."), *TRANSFORMERS_LAYER))] = tensor
        else:
            public[_starting(name, TRANSFORMERS_TOP)] = tensor
    return public


def to_transformers(state: StateDict) -> StateDict:
    """Public names to those that Hugging Face's Dinov2Model and Dinov2WithRegistersModel have on disk."""
    layer_names = tuple((public, theirs) for theirs, public in TRANSFORMERS_LAYER)
    top_names = tuple((public, theirs) for theirs, public in TRANSFORMERS_TOP)
    theirs: StateDict = {}
    for name, tensor in flat_blocks(state).items():
        if not name.startswith("blocks."):
            theirs[_starting(name, top_names)] = tensor
            continue
        layer = name.replace("blocks.", "encoder.layer.", 1)
        if ".attn.qkv." in layer:
            for split_name, rows in zip(STACKED_QKV, tensor.chunk(3), strict=True):
                theirs[layer.replace("attn.qkv.", split_name)] = rows.clone()
        else:
            theirs[_replaced(layer, layer_names)] = tensor
    return theirs


def _stacked(state: StateDict, *, parts: tuple[str, ...], whole: str) -> StateDict:
    """Entries whose names differ only in `parts` become one entry `whole`, concatenated in that order."""
    stacked: StateDict = {}
    for name, tensor in state.items():
        part = next((part for part in parts if f".{part}" in name), None)
        if part is None:
            stacked[name] = tensor
            continue
        siblings = [name.replace(part, sibling) for sibling in parts]
        if all(sibling in state for sibling in siblings):
            stacked[name.replace(part, whole)] = torch.cat([state[sibling] for sibling in siblings])
        else:  # a file with a hole: keep the name, so that the report shows it
            stacked[name] = tensor
    return stacked


def _replaced(name: str, pairs: Iterable[tuple[str, str]]) -> str:
    for old, new in pairs:
        name = name.replace(old, new)
    return name


def _starting(name: str, pairs: Iterable[tuple[str, str]]) -> str:
    for old, new in pairs:
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name
