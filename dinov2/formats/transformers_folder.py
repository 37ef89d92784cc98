"""A folder that transformers loads: `AutoModel`, `AutoImageProcessor`, `pipeline`; and with it a model card.

In: a `Source`. Out: `config.json`, `model.safetensors` under the names that transformers has on disk,
`preprocessor_config.json`, `README.md`, `backbone_card.json`; with the heads `dino_head.safetensors`,
`ibot_head.safetensors` and `backbone_compatible.safetensors` (public names), as the released RAD-DINO has them.
"""

import json
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from dinov2.checkpoint.export import write_parts
from dinov2.errors import WeightsError
from dinov2.formats.model_card import About, render_model_card
from dinov2.formats.source import Dtype, Source, Written
from dinov2.formats.transformers_check import WANTED_BY, Compared, read_back
from dinov2.formats.transformers_form import Fitted, fit, processor_config
from dinov2.formats.writers import written_whole
from dinov2.layers import DINOHead
from dinov2.models.key_maps import to_transformers
from dinov2.models.libraries import library_part
from dinov2.models.processor import FILE as PROCESSOR_FILE

MODEL_FILE, CONFIG_FILE, CARD_FILE = "model.safetensors", "config.json", "README.md"
COMPATIBLE = "backbone_compatible"
"""Name, without its ending, of the backbone under public names."""


def write_transformers(
    source: Source, folder: Path, *, dtype: Dtype = "float32", licence: str = "", with_heads: bool = False
) -> Written:
    """Writes the folder and reads it back with transformers; see `dinov2.formats.writers.Writer`."""
    library_part("transformers", "AutoModel", wanted_by=WANTED_BY)
    if with_heads and not source.heads:
        raise WeightsError(f"{source.origin or 'the source'}: holds no projection heads. Leave the heads out.")
    fitted = fit(_with_said(source, dtype=dtype, licence=licence, with_heads=with_heads), dtype=dtype)
    heads = source.heads if with_heads else {}
    with written_whole(folder) as partial:
        _write_files(fitted, heads, folder=partial, dtype=dtype)
        compared = read_back(partial, source=source, fitted=fitted, dtype=dtype)
        checks = sentences(compared, fitted=fitted, dtype=dtype)
        if heads:
            _check_parts({COMPATIBLE: fitted.backbone, **heads}, folder=partial, dtype=dtype)
            checks += (f"{', '.join(heads)} and {COMPATIBLE} read back: the same bits",)
        about = About(
            title=folder.resolve().name,
            network=source.network,
            origin=source.origin,
            licence=licence,
            dtype=dtype,
            library=fitted.model_class,
            num_parameters=sum(parameter.numel() for parameter in fitted.backbone.parameters()),
            is_compatible_file=with_heads,
            changes=fitted.changes,
            checks=checks,
        )
        (partial / CARD_FILE).write_text(render_model_card(fitted.card, about=about), encoding="utf-8")
    return Written(
        folder=folder,
        files=tuple(sorted(folder.iterdir())),
        checks=checks,
        next_step="python -c "
        + shlex.quote(f"from transformers import AutoModel; print(AutoModel.from_pretrained({str(folder)!r}))"),
    )


def sentences(compared: Compared, *, fitted: Fitted, dtype: Dtype) -> tuple[str, ...]:
    """What was compared, for a person."""
    library = f"{compared.library}, {fitted.model_class}"
    said = [
        f"read back by {library}: {compared.num_tensors} tensors the same bits, no name missing or left over",
        f"at {compared.table_px} px: largest difference of the features {compared.at_table:.1e}",
    ]
    if compared.from_source is not None:
        what = f"the network in float32, because the weights are rounded to {dtype}"
        said.append(
            f"at {compared.table_px} px: largest difference {compared.from_source:.1e} from "
            + (what if dtype != "float32" else "the network as it was before its form was changed")
        )
    at_other = f"at {compared.other_px} px: largest difference"
    if compared.own_mode is None:
        said.append(f"{at_other} {compared.same_mode:.1e}")
    else:
        said.append(
            f"{at_other} {compared.own_mode:.1e}, because this network resamples its position table "
            f"{compared.mode}, and {fitted.model_class} {compared.their_mode} (resampled alike: "
            f"{compared.same_mode:.1e})"
        )
    side = processor_config(fitted.card)["crop_size"]["height"]
    return (*said, f"AutoImageProcessor gives pictures of {side} px, normalised as backbone_card.json says")


def _with_said(source: Source, *, dtype: Dtype, licence: str, with_heads: bool) -> Source:
    """The source, whose card says what is particular to these files."""
    said = {"network": source.network, "dtype": dtype} | ({"licence": licence} if licence else {})
    arguments = {name: source.card.heads[name] for name in source.heads} if with_heads else {}
    card = replace(source.card, heads=arguments, provenance=dict(source.card.provenance) | said)
    return replace(source, card=card)


def _write_files(fitted: Fitted, heads: Mapping[str, DINOHead], *, folder: Path, dtype: Dtype) -> None:
    torch_dtype = getattr(torch, dtype)
    _write_json(folder / CONFIG_FILE, fitted.config)
    _write_json(folder / PROCESSOR_FILE, processor_config(fitted.card))
    state = {name: value.to(torch_dtype) for name, value in fitted.backbone.state_dict().items()}
    save_file(to_transformers(state), folder / MODEL_FILE, metadata={"format": "pt"})
    public: dict[str, nn.Module] = {COMPATIBLE: fitted.backbone, **heads} if heads else {}
    write_parts(public, card=fitted.card, folder=folder, dtype=torch_dtype)


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _check_parts(parts: Mapping[str, nn.Module], *, folder: Path, dtype: Dtype) -> None:
    """Raises WeightsError where a file holds other names or values than its module."""
    for name, module in parts.items():
        theirs, ours = load_file(folder / f"{name}.safetensors"), module.state_dict()
        if theirs.keys() != ours.keys() or any(
            not torch.equal(theirs[key], ours[key].to(getattr(torch, dtype))) for key in ours
        ):
            raise WeightsError(f"{folder}: {name} reads back differently. The disk is at fault.")
