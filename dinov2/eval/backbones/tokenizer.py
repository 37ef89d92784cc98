"""Texts to token ids with CLIP's vocabulary, by transformers' tokenizer.

In: a folder with a vocabulary, texts. Out: ids [K, L] and the place of each text's last token [K].
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dinov2.errors import WeightsError
from dinov2.models.hub import cached_folder
from dinov2.models.libraries import library_errors, library_part

VOCABULARIES = (("tokenizer.json",), ("vocab.json", "merges.txt"))
# Every CLIP of OpenAI and most of open_clip share one vocabulary; any of these in the cache will do.
SAME_VOCABULARY = (
    "openai/clip-vit-large-patch14",
    "openai/clip-vit-base-patch32",
    "openai/clip-vit-base-patch16",
    "laion/CLIP-ViT-L-14-laion2B-s32B-b82K",
    "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
    "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
)
PADDING = 0


class ClipTokenizer:
    """Byte pairs between a begin and an end token, cut to the context; the end token is kept."""

    def __init__(self, folder: Path, *, context: int, vocabulary: int) -> None:
        """`vocabulary` is the number of tokens that the text tower knows.  Raises WeightsError."""
        opened = library_part("transformers", "CLIPTokenizerFast", wanted_by=str(folder))
        with library_errors(f"{folder}: its tokenizer", hint="Download the folder again."):
            self._tokenizer: Any = opened.from_pretrained(folder, local_files_only=True)
        if len(self._tokenizer) > vocabulary:
            raise WeightsError(
                f"{folder}: its vocabulary has {len(self._tokenizer)} tokens, the text tower {vocabulary}. "
                "Put the tokenizer's files of this very model beside the weights."
            )
        self.context = context

    def __call__(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """K texts -> ids [K, L], filled up with zeros behind the end; the place of each end [K]."""
        with library_errors("the tokenizer", hint="Texts must be strings."):
            rows = self._tokenizer(list(texts), truncation=True, max_length=self.context)["input_ids"]
        longest = max(len(row) for row in rows)
        ids = torch.tensor([row + [PADDING] * (longest - len(row)) for row in rows])
        return ids, torch.tensor([len(row) - 1 for row in rows])


def find_vocabulary(folder: Path) -> Path:
    """The folder itself where it holds a vocabulary, else one of CLIP's in the Hugging Face cache.

    Raises WeightsError where none is at hand.
    """
    return folder if _has_vocabulary(folder) else find_any_vocabulary(wanted_by=str(folder))


def find_any_vocabulary(*, wanted_by: str) -> Path:
    """CLIP's vocabulary in the Hugging Face cache.  Raises WeightsError where none is there."""
    for name in SAME_VOCABULARY:
        place = cached_folder(name)
        if place is not None and _has_vocabulary(place):
            return place
    raise WeightsError(
        f"{wanted_by}: no vocabulary for its text tower: neither tokenizer.json nor vocab.json with merges.txt lies "
        "beside the weights, and none of CLIP's in the Hugging Face cache. Where there is a network: "
        f"hf download {SAME_VOCABULARY[0]} vocab.json merges.txt tokenizer.json tokenizer_config.json"
    )


def _has_vocabulary(folder: Path) -> bool:
    return any(all((folder / name).is_file() for name in names) for names in VOCABULARIES)
