"""A backbone by the name a user gives.

In: a path, or a name with a prefix. Out: a `Backbone` or an `ImageText` on the CPU, in float32 and evaluation mode.
"""

from difflib import get_close_matches
from pathlib import Path

from dinov2.errors import WeightsError
from dinov2.eval.backbones.backbone import Backbone
from dinov2.eval.backbones.clip import open_clip_backbone, open_clip_pair, open_clip_state, open_transformers_pair
from dinov2.eval.backbones.clip_files import CONFIG, FILES, clip_file, is_clip_state
from dinov2.eval.backbones.clip_library import OPEN_CLIP, open_clip_name, open_clip_name_pair
from dinov2.eval.backbones.feature_maps import TORCHVISION, XRAYVISION, open_torchvision, open_xrayvision
from dinov2.eval.backbones.image_text import ImageText
from dinov2.eval.backbones.ours import RANDOM, as_backbone, open_random
from dinov2.eval.backbones.timm_models import TIMM, open_timm
from dinov2.eval.backbones.transformers_models import DINOV2, FAMILIES, open_transformers_folder
from dinov2.formats import open_vit
from dinov2.formats.opening import fits_our_network, is_ours, is_timm, open_dinov2_folder, open_ours, open_state
from dinov2.models.hub import hub_folder, hub_id
from dinov2.models.processor import read_json
from dinov2.models.shards import rank_files
from dinov2.models.weights import PICKLES, read_weights

OPEN_CLIP_FILE = "openclip-file:"
BY_PREFIX = {
    RANDOM: open_random,
    TIMM: open_timm,
    TORCHVISION: open_torchvision,
    XRAYVISION: open_xrayvision,
    OPEN_CLIP: open_clip_name,
}
POSSIBLE = f"""A backbone is one of
  a folder that `dinov2 export` wrote, a run folder of `dinov2 train`, or RUN/checkpoints/STEP
  a .pth or .safetensors of DINOv2's backbone
  a Hugging Face folder or hub id OWNER/NAME: {", ".join(FAMILIES)}
  a folder or file of a ViT of open_clip ({FILES[-1]}, beside it {CONFIG}), or {OPEN_CLIP_FILE}PATH
  {OPEN_CLIP}MODEL@PRETRAINED, {TIMM}NAME, {TORCHVISION}NAME, {XRAYVISION}NAME
  {RANDOM}vit_small, {RANDOM}vit_base/16@224 (weights that learnt nothing)"""


def open_backbone(name: str) -> Backbone:
    """The backbone that `name` says, on the CPU, in float32 and evaluation mode.

    Raises:
        WeightsError: there is none of that name (the message lists what can be said), it cannot be read, or a library
            that it needs cannot be loaded.
    """
    if name.startswith(OPEN_CLIP_FILE):
        return open_clip_backbone(_clip_path(name), name=name)
    for prefix, opened in BY_PREFIX.items():
        if name.startswith(prefix):
            return opened(name)
    path = Path(name)
    if path.is_dir():
        return _open_folder(path, name=name)
    if path.is_file():
        return _open_file(path, name=name)
    return _open_folder(hub_folder(_hub_id(name)), name=name)


def open_image_text(name: str) -> ImageText:
    """The pair of towers that `name` says: a ViT of open_clip, or a CLIP of transformers.

    Raises:
        WeightsError: as `open_backbone`; and where it has no text tower or no vocabulary is at hand.
    """
    if name.startswith(OPEN_CLIP):
        return open_clip_name_pair(name)
    if name.startswith(OPEN_CLIP_FILE):
        return open_clip_pair(_clip_path(name), name=name)
    if any(name.startswith(prefix) for prefix in BY_PREFIX):
        raise WeightsError(
            f"{name}: has no text tower. Texts need {OPEN_CLIP}MODEL@PRETRAINED, a folder or file of a ViT of "
            "open_clip, or a Hugging Face folder of model_type 'clip'."
        )
    path = Path(name)
    if path.is_file():
        return open_clip_pair(path, name=name)
    folder = path if path.is_dir() else hub_folder(_hub_id(name), tower="pair of towers")
    file = clip_file(folder)
    if file is not None:
        return open_clip_pair(file, name=name)
    if not (folder / "config.json").is_file():
        raise WeightsError(
            f"{name}: has no text tower: neither {' nor '.join(FILES)} is in it, nor a Hugging Face config.json."
        )
    return open_transformers_pair(folder, name=name)


def _open_folder(folder: Path, *, name: str) -> Backbone:
    if is_ours(folder):
        opened = open_ours(folder)
        return as_backbone(opened, name=str(opened.place))
    config = folder / "config.json"
    if config.is_file():
        said = read_json(config)
        if said.get("model_type") in DINOV2 and fits_our_network(said, folder):
            return as_backbone(open_dinov2_folder(folder), name=name)
        if is_timm(said):
            return as_backbone(open_vit(folder), name=name)
        if said.get("model_type") in FAMILIES:
            return open_transformers_folder(folder, name=name)
    file = clip_file(folder)
    if file is not None:
        return open_clip_backbone(file, name=name)
    if config.is_file():
        return open_transformers_folder(folder, name=name)  # refuses, naming the families
    if (folder / "backbone.safetensors").is_file() or rank_files(folder):
        return as_backbone(open_vit(folder), name=name)
    raise WeightsError(f"{name}: a folder, but of no backbone.\n{POSSIBLE}")


def _open_file(path: Path, *, name: str) -> Backbone:
    if path.name == "backbone.safetensors" and is_ours(path.parent):
        return as_backbone(open_ours(path.parent), name=str(path.parent))
    if path.suffix not in (".safetensors", *PICKLES):
        raise WeightsError(f"{name}: not a file of weights.\n{POSSIBLE}")
    state = read_weights(path).part("backbone")
    if is_clip_state(state):
        return open_clip_state(state, path=path, name=name)
    return as_backbone(open_state(state, path=path), name=name)


def _clip_path(name: str) -> Path:
    path = Path(name.removeprefix(OPEN_CLIP_FILE))
    found = clip_file(path) if path.is_dir() else path
    if found is None:
        raise WeightsError(f"{name}: none of {', '.join(FILES)} is in this folder.")
    return found


def _hub_id(name: str) -> str:
    """Raises WeightsError for what is neither a path nor a hub id."""
    found = hub_id(name)
    if found is None:
        prefixes = (*BY_PREFIX, OPEN_CLIP_FILE)
        near = get_close_matches(name.partition(":")[0] + ":", prefixes, n=1, cutoff=0.7) if ":" in name else []
        hint = f" Did you mean {near[0]}...?" if near else ""
        raise WeightsError(f"{name}: no such folder or file, and no name that is known.{hint}\n{POSSIBLE}")
    return found
