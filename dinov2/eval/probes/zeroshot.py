"""Texts instead of labels: how near a picture is to what is said of a class.

In: an `ImageText`, pictures and prompts. Out: `Predictions`.

A class has several texts, which are one by `ensemble`: `embedding`, the mean of their embeddings, of length 1 again
(Radford et al. 2021, arXiv:2103.00020, 3.1.4); `similarity`, the mean of their cosines (WhyXrayCLIP; Yang et al. 2024,
arXiv:2405.14839); `max`, the largest cosine. Multiclass: softmax over classes of logit scale x cosine. Multi-label:
softmax over the positive and the negative texts of each class (CheXzero; Tiu et al. 2022,
doi:10.1038/s41551-022-00936-9); without negative texts the cosine itself, which orders pictures and is no probability.

Legend: N pictures, K texts, C classes, E width of the common space.
"""

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from dinov2.errors import ConfigError, ManifestError
from dinov2.eval.backbones import ImageText
from dinov2.eval.examples import Examples, Task
from dinov2.eval.features import Features, Labelled, autocast, by_volume
from dinov2.eval.outcome import Predictions
from dinov2.eval.pictures import Preparation, batches
from dinov2.eval.probes.predictions import predictions_of
from dinov2.eval.probes.zeroshot_prompts import ClassPrompts

Ensemble = Literal["embedding", "similarity", "max"]
ENSEMBLES: tuple[str, ...] = get_args(Ensemble)


class ZeroShot:
    """Classes in words, ready to be compared with pictures."""

    def __init__(
        self,
        model: ImageText,
        prompts: Sequence[ClassPrompts],
        *,
        task: Task,
        ensemble: str = "embedding",
        logit_scale: float | None = None,
    ) -> None:
        """Encodes every text once. `logit_scale` None is the model's own.

        Raises ConfigError for data with masks, an ensemble that is not known, or a scale that is not positive.
        """
        if task == "segmentation":
            raise ConfigError("zero-shot goes by labels, and the data has masks. Give --labels.")
        if ensemble not in ENSEMBLES:
            raise ConfigError(f"--ensemble {ensemble}: give one of {', '.join(ENSEMBLES)}.")
        self.logit_scale = model.logit_scale if logit_scale is None else logit_scale
        if not self.logit_scale > 0:
            raise ConfigError(f"--logit-scale {self.logit_scale}: give more than 0.")
        self._task, self._ensemble = task, ensemble
        texts = list(dict.fromkeys(text for entry in prompts for text in (*entry.positive, *entry.negative)))
        with torch.inference_mode():
            self._embeddings = normalize(model.encode_texts(texts).float(), dim=1)  # [K, E]
        place = {text: index for index, text in enumerate(texts)}
        self._positive = [[place[text] for text in entry.positive] for entry in prompts]
        self._negative = [[place[text] for text in entry.negative] for entry in prompts]

    @property
    def calibrated(self) -> bool:
        """Whether scores are probabilities."""
        return self._task == "multiclass" or all(self._negative)

    def scores(self, images: Tensor) -> Tensor:
        """Embeddings of pictures [N, E] -> [N, C] float32."""
        near = self._near(images, self._positive)
        if self._task == "multiclass":
            return torch.softmax(self.logit_scale * near, dim=1)
        if not all(self._negative):
            return near
        return torch.sigmoid(self.logit_scale * (near - self._near(images, self._negative)))  # a softmax over two

    def _near(self, images: Tensor, sets: Sequence[Sequence[int]]) -> Tensor:
        """How near pictures are to each set of texts.  -> [N, C]"""
        pictures = normalize(images.float(), dim=1).to(self._embeddings.device)
        if self._ensemble == "embedding":
            means = normalize(torch.stack([self._embeddings[list(rows)].mean(dim=0) for rows in sets]), dim=1)
            return pictures @ means.T
        cosines = pictures @ self._embeddings.T  # [N, K]
        of_sets = [cosines[:, list(rows)] for rows in sets]
        if self._ensemble == "similarity":
            return torch.stack([of_set.mean(dim=1) for of_set in of_sets], dim=1)
        return torch.stack([of_set.amax(dim=1) for of_set in of_sets], dim=1)


def embed_pictures(
    model: ImageText,
    examples: Examples,
    *,
    preparation: Preparation,
    batch_size: int,
    workers: int,
    device: torch.device | str,
    precision: str = "fp32",
    advance: Callable[[int], None] | None = None,
) -> tuple[Tensor, Examples]:
    """Embeddings [N, E] of pictures, each of length 1, on the CPU; of volumes the mean over slices, of length 1 again.

    Raises:
        ManifestError: a picture cannot be read, or its embedding is not finite; names it.
        ConfigError: the picture tower does not take the size.
    """
    found = []
    with closing(batches(examples, preparation=preparation, batch_size=batch_size, workers=workers)) as pictures:
        for batch in pictures:
            try:
                with torch.inference_mode(), autocast(device, precision):
                    embedded = normalize(model.encode_images(batch.normalised(device)).float(), dim=1).cpu()
            except ValueError as error:
                raise ConfigError(
                    f"{model.traits.name} does not take pictures of {preparation.size} px: {error}"
                ) from error
            fine = embedded.isfinite().all(dim=1).numpy()
            if not fine.all():
                row = int(batch.rows[int(np.argmin(fine))])
                raise ManifestError(
                    f"{examples.name}, row {row}: the embedding of {examples.manifest.path(row)} is not finite in "
                    f"{precision}. Use --precision fp32, or look at the picture."
                )
            found.append(embedded)
            if advance is not None:
                advance(len(batch))
    embeddings = torch.cat(found)
    if examples.volumes is None:
        return embeddings, examples
    volumes: Labelled = by_volume(Features(cls=embeddings[:, None].numpy(), pooled=None), examples)
    return normalize(torch.from_numpy(volumes.features.cls[:, 0]), dim=1), volumes.examples


def predict_by_text(
    zeroshot: ZeroShot, embeddings: Tensor, examples: Examples, *, groups: Sequence[str] = ()
) -> Predictions:
    """Predictions for embedded pictures [N, E]."""
    scores = zeroshot.scores(embeddings).cpu().numpy()
    return predictions_of(examples, scores, groups=groups, calibrated=zeroshot.calibrated)
