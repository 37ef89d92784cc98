"""`README.md` of an exported folder: what its users must know, in words.

In: a `BackboneCard`, and `About` the files. Out: Markdown with the hub's front matter. What the card does not know is
said to be unknown, and leaves no empty table.
"""

import inspect
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2

from dinov2.backbone_card import BackboneCard
from dinov2.formats.model_card_training import recipe_of, shown_name, start_of, unknown_of
from dinov2.formats.opened import three
from dinov2.models.registry import CUSTOM
from dinov2.models.vision_transformer import SIZES, DinoVisionTransformer

TEMPLATE = Path(__file__).with_name("model_card.md.j2")
LICENCE_ID = re.compile(r"[a-z0-9][a-z0-9.+-]*")
SHORT_NAMES = {"vit_small": "ViT-S", "vit_base": "ViT-B", "vit_large": "ViT-L", "vit_giant2": "ViT-g"}
COUNTS = {"by_dataset": "dataset", "by_view": "view", "by_split": "split"}


@dataclass(frozen=True, kw_only=True)
class About:
    """The files that the model card lies beside."""

    title: str
    network: str  # "teacher" or "student"
    origin: str  # what they were read from
    licence: str  # "" where nobody has said
    dtype: str
    library: str  # class of transformers
    num_parameters: int
    is_compatible_file: bool  # whether the backbone lies there under public names too
    changes: tuple[str, ...] = ()
    checks: tuple[str, ...] = ()


def render_model_card(card: BackboneCard, *, about: About) -> str:
    """The text of `README.md`."""
    environment = jinja2.Environment(  # Markdown, not HTML: what could break a table is taken out by `cell`
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters["cell"] = _cell
    data = dict(card.provenance.get("data") or {})
    recipe = list(recipe_of(card))
    text = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        about=about,
        **_network(card, about=about),
        origin=_origin(card),
        is_ours=bool(card.provenance.get("config")),
        tags=_tags(card),
        licence_lines=_licence_lines(about.licence),
        licence_sentence=_licence_sentence(about.licence),
        heads=[(name, _words(arguments)) for name, arguments in card.heads.items()],
        data=data,
        data_sentence=_data_sentence(data),
        data_tables=[
            (title, [(name, _number(count)) for name, count in data[key].items()])
            for key, title in COUNTS.items()
            if data.get(key)
        ],
        recipe=recipe,
        scores=[(name, _number(value)) for name, value in flat(card.provenance.get("scores") or {})],
        scores_at=f" at step {card.provenance['scores_step']:,}" if card.provenance.get("scores_step") else "",
        preprocessing=[(name, _number(value)) for name, value in flat(card.preprocessing)],
        unknown=unknown_of(card),
        provenance=list(_provenance(card, about=about)),
    )
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


def flat(values: Mapping[str, Any], *, above: str = "") -> Iterator[tuple[str, Any]]:
    """Nested mappings as `a.b`: value."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, above=f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _network(card: BackboneCard, *, about: About) -> dict[str, Any]:
    """Sizes, and the call that builds it."""
    given = card.architecture
    sized = SIZES.get(card.arch, {}) | dict(given)
    side, patch, width = given["img_size"], given["patch_size"], sized["embed_dim"]
    registers = given.get("num_register_tokens", 0)
    return {
        "size": f"{SHORT_NAMES.get(card.arch, 'ViT')}/{patch}",
        "parameters": _parameters(about.num_parameters),
        "registers": f", {registers} registers" if registers else "",
        "num_registers": registers,
        "patch": patch,
        "side": card.resolution_px,
        "width": width,
        "grid": card.resolution_px // patch,
        "num_patches": (card.resolution_px // patch) ** 2,
        "mean": _listed(three(card.mean)),
        "std": _listed(three(card.std)),
        "constructor": DinoVisionTransformer.__name__ if card.arch == CUSTOM else card.arch,
        "arguments": _words({"patch_size": patch, "img_size": side} | _unusual(card)),
    }


def _unusual(card: BackboneCard) -> dict[str, Any]:
    """The arguments that a named size and the constructor do not have by themselves."""
    usual = {name: entry.default for name, entry in inspect.signature(DinoVisionTransformer).parameters.items()}
    usual |= SIZES.get(card.arch, {}) | {"block_chunks": card.architecture.get("block_chunks", 0)}
    return {name: value for name, value in card.architecture.items() if usual.get(name) != value}


def _parameters(count: int) -> str:
    return f"{count / 1e6:.1f} M" if count >= 1e5 else f"{count:,}"


def _origin(card: BackboneCard) -> str:
    if card.provenance.get("config"):
        steps = f" for {card.step:,} steps" if card.step else ""
        return f"It was trained without labels, by the method of DINOv2{steps}{start_of(card)}."
    return "Nothing is recorded here of how it was trained: the weights came without a card of their own."


def _tags(card: BackboneCard) -> list[str]:
    general = ["dinov2", "vision", "self-supervised-learning"]
    of_films = card.preprocessing or "by_view" in (card.provenance.get("data") or {})
    return [*general, "radiology", "chest-x-ray"] if of_films else general


def _licence_lines(licence: str) -> list[str]:
    """Of the front matter; the hub knows a licence by an identifier in small letters, and others by a name."""
    if not licence:
        return ["license: unknown"]
    if LICENCE_ID.fullmatch(licence):
        return [f"license: {json.dumps(licence)}"]
    return ["license: other", f"license_name: {json.dumps(licence)}"]


def _licence_sentence(licence: str) -> str:
    if licence:
        return f"{_cell(licence)}, as whoever exported this folder said."
    return (
        "Unknown: nobody has said it. Fill it in here and in the first lines (`license:`) before sharing this folder."
    )


def _data_sentence(data: Mapping[str, Any]) -> str:
    pictures, patients = data.get("pictures"), data.get("patients")
    said = f"{_number(pictures)} pictures" if pictures else "Pictures"
    if not patients:
        return f"{said}; how many patients is not recorded."
    known = data.get("pictures_of_known_patients", pictures)
    share = "" if known == pictures else f", as far as they are known ({_number(known)} pictures)"
    return f"{said} of {_number(patients)} patients{share}."


def _provenance(card: BackboneCard, *, about: About) -> Iterator[tuple[str, str]]:
    known = card.provenance
    yield "read from", shown_name(about.origin) if about.origin else "not recorded"
    if known.get("config"):
        yield "network", about.network
    if card.step:
        yield "step", f"{card.step:,}"
    if known.get("selected_by"):
        yield "chosen by", f"{known['selected_by']} ({known.get('select_mode', 'max')}), {_number(known.get('score'))}"
    for name in ("dinov2", "torch"):
        if known.get(name):
            yield f"version of {name}", str(known[name])
    for name in ("source", "revision"):
        if known.get(name):
            yield name, shown_name(str(known[name]))


def _words(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in arguments.items())


def _listed(values: Iterable[float]) -> str:
    """One number where all are equal."""
    known = [f"{value:g}" for value in values]
    return known[0] if len(set(known)) == 1 else ", ".join(known)


def _number(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "not known"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | tuple) else str(value)


def _cell(value: Any) -> str:
    """One line, and no sign that ends a cell or begins markup."""
    return re.sub(r"([|<>`*\[\]])", r"\\\1", " ".join(str(value).split()))
