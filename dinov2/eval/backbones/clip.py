"""CLIP as a backbone (its picture tower) and as a pair of towers, from open_clip's and from transformers' files.

In: a file or folder. Out: a `ClipBackbone`, an `OpenClipPair` or a `TransformersPair`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from dinov2.errors import WeightsError
from dinov2.eval.backbones.backbone import Backbone, Tokens, Traits
from dinov2.eval.backbones.clip_files import ClipConfig, towers_in_file
from dinov2.eval.backbones.clip_towers import ClipTowers, PictureTower
from dinov2.eval.backbones.fingerprint import fingerprint_of
from dinov2.eval.backbones.image_text import TEXTS_AT_ONCE, ImageText
from dinov2.eval.backbones.structure import Parts, check_request, ordered_parts
from dinov2.eval.backbones.tokenizer import ClipTokenizer, find_vocabulary
from dinov2.eval.backbones.transformers_models import CLIP_MEAN, CLIP_STD, load_model
from dinov2.models.processor import Three, read_json, read_processor
from dinov2.models.weights import read_weights


class ClipBackbone(Backbone):
    """A picture tower of open_clip: tokens of its width, not yet in the common space."""

    def __init__(self, tower: PictureTower, *, traits: Traits) -> None:
        super().__init__()
        self.tower = tower
        self.traits = traits
        self.eval()

    def layers(self, pictures: Tensor, n: int) -> list[Tokens]:
        """See `Backbone.layers`; the final norm is CLIP's post-norm, here over patches too."""
        check_request(pictures, n=n, traits=self.traits)
        patch = self.tower.patch_size
        grid = pictures.shape[-2] // patch, pictures.shape[-1] // patch
        found = self.tower.layers(pictures, n)
        return [Tokens(cls=tokens[:, 0], patches=tokens[:, 1:], grid=grid) for tokens in found]

    def parts(self) -> Parts:
        """See `Backbone.parts`; the projection, which these tokens do not pass, is with the embeddings."""
        return ordered_parts(self, blocks=list(self.tower.blocks), norms=[self.tower.norm])


class OpenClipPair(ImageText):
    """The towers of an open_clip checkpoint."""

    def __init__(self, towers: ClipTowers, *, traits: Traits, tokenizer: ClipTokenizer) -> None:
        super().__init__()
        self.towers = towers
        self.traits = traits
        self.tokenizer = tokenizer
        self.eval()

    @property
    def logit_scale(self) -> float:
        """See `ImageText.logit_scale`."""
        return float(self.towers.logit_scale.detach().exp())

    def encode_images(self, pictures: Tensor) -> Tensor:
        """See `ImageText.encode_images`."""
        check_request(pictures, n=1, traits=self.traits)
        return normalize(self.towers.visual(pictures), dim=-1)

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """See `ImageText.encode_texts`."""
        device = self.towers.logit_scale.device
        found = []
        for first in range(0, len(texts), TEXTS_AT_ONCE):
            ids, ends = self.tokenizer(texts[first : first + TEXTS_AT_ONCE])
            found.append(normalize(self.towers.text(ids.to(device), ends=ends.to(device)), dim=-1))
        return torch.cat(found)


class TransformersPair(ImageText):
    """A CLIPModel of transformers."""

    def __init__(self, network: Any, *, traits: Traits, tokenizer: ClipTokenizer) -> None:
        super().__init__()
        self.network = network
        self.traits = traits
        self.tokenizer = tokenizer
        self.eval()

    @property
    def logit_scale(self) -> float:
        """See `ImageText.logit_scale`."""
        return float(self.network.logit_scale.detach().exp())

    def encode_images(self, pictures: Tensor) -> Tensor:
        """See `ImageText.encode_images`."""
        check_request(pictures, n=1, traits=self.traits)
        said = self.network.vision_model(pixel_values=pictures, interpolate_pos_encoding=True)
        return normalize(self.network.visual_projection(said.pooler_output), dim=-1)

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """See `ImageText.encode_texts`."""
        device = self.network.logit_scale.device
        found = []
        for first in range(0, len(texts), TEXTS_AT_ONCE):
            ids, ends = (one.to(device) for one in self.tokenizer(texts[first : first + TEXTS_AT_ONCE]))
            said = self.network.text_model(input_ids=ids).last_hidden_state  # [K, L, D], normed; causal
            last = said[torch.arange(len(ids), device=device), ends]
            found.append(normalize(self.network.text_projection(last), dim=-1))
        return torch.cat(found)


def open_clip_backbone(path: Path, *, name: str) -> ClipBackbone:
    """The picture tower of an open_clip file.  Raises WeightsError."""
    return open_clip_state(read_weights(path).part("backbone"), path=path, name=name)


def open_clip_state(state: Mapping[str, Tensor], *, path: Path, name: str) -> ClipBackbone:
    """The picture tower of what an open_clip file holds.  Raises WeightsError."""
    towers, config = towers_in_file(state, path=path)
    return picture_backbone(towers.visual, config=config, name=name)


def picture_backbone(tower: PictureTower, *, config: ClipConfig, name: str) -> ClipBackbone:
    """A picture tower as a backbone."""
    width = tower.proj.shape[0]
    traits = _traits_of(tower, state=tower.state_dict(), embed_dim=width, config=config, name=name)
    return ClipBackbone(tower, traits=traits)


def open_clip_pair(path: Path, *, name: str) -> OpenClipPair:
    """Both towers of an open_clip file; the vocabulary beside it, or one of CLIP's in the cache.

    Raises WeightsError.
    """
    towers, config = towers_in_file(read_weights(path).part("backbone"), path=path)
    text = towers.text
    tokenizer = ClipTokenizer(find_vocabulary(path.parent), context=text.context, vocabulary=text.vocabulary)
    return pair_of(towers, config=config, tokenizer=tokenizer, name=name)


def pair_of(towers: ClipTowers, *, config: ClipConfig, tokenizer: ClipTokenizer, name: str) -> OpenClipPair:
    """Towers and a tokenizer as a pair."""
    tower = towers.visual
    traits = _traits_of(tower, state=towers.state_dict(), embed_dim=tower.proj.shape[1], config=config, name=name)
    return OpenClipPair(towers, traits=traits, tokenizer=tokenizer)


def open_transformers_pair(folder: Path, *, name: str) -> TransformersPair:
    """A Hugging Face folder of model_type `clip`.  Raises WeightsError."""
    model_type = read_json(folder / "config.json").get("model_type")
    if model_type != "clip":
        raise WeightsError(
            f"{folder}: model_type is {model_type!r}; only 'clip' has a text tower that is known here. "
            "Give a folder of transformers' CLIPModel, or an open_clip checkpoint of a ViT."
        )
    network = load_model(folder, model="CLIPModel", options={})
    vision, text = network.config.vision_config, network.config.text_config
    said = read_processor(folder, mean=CLIP_MEAN, std=CLIP_STD)
    size = said.size_px if said.size_px and said.size_px % vision.patch_size == 0 else vision.image_size
    traits = _traits(
        name=name,
        embed_dim=network.config.projection_dim,
        depth=vision.num_hidden_layers,
        patch_size=vision.patch_size,
        mean=said.mean,
        std=said.std,
        input_size=size,
        fingerprint=fingerprint_of(
            network.state_dict(),
            heads=(vision.num_attention_heads, text.num_attention_heads),
            activation=(vision.hidden_act, text.hidden_act),
        ),
    )
    tokenizer = ClipTokenizer(find_vocabulary(folder), context=text.max_position_embeddings, vocabulary=text.vocab_size)
    return TransformersPair(network, traits=traits, tokenizer=tokenizer)


def _traits_of(
    tower: PictureTower, *, state: Mapping[str, Tensor], embed_dim: int, config: ClipConfig, name: str
) -> Traits:
    return _traits(
        name=name,
        embed_dim=embed_dim,
        depth=len(tower.blocks),
        patch_size=tower.patch_size,
        mean=config.mean,
        std=config.std,
        input_size=tower.grid[0] * tower.patch_size,
        fingerprint=fingerprint_of(state, quick_gelu=tower.shape.quick_gelu, heads=tower.shape.heads),
    )


def _traits(
    *,
    name: str,
    embed_dim: int,
    depth: int,
    patch_size: int,
    mean: Three,
    std: Three,
    input_size: int,
    fingerprint: str,
) -> Traits:
    return Traits(
        name=name,
        family="clip",
        embed_dim=embed_dim,
        depth=depth,
        patch_size=patch_size,
        mean=mean,
        std=std,
        input_size=input_size,
        size_step=patch_size,
        fixed_size=False,
        fingerprint=fingerprint,
    )
