"""Texts instead of labels: planted embeddings give the scores worked out by hand."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dinov2.config.presets import find_config
from dinov2.errors import ConfigError, ManifestError
from dinov2.eval.backbones import ImageText
from dinov2.eval.examples import UNCERTAIN
from dinov2.eval.pictures import Preparation
from dinov2.eval.probes.zeroshot import ENSEMBLES, ZeroShot, embed_pictures, predict_by_text
from dinov2.eval.probes.zeroshot_prompts import ClassPrompts, prompts_of_classes, read_prompts
from dinov2.eval.scores import METRICS, auroc
from tests.eval.pictures.made import examples_of, small_backbone

PREPARATION = Preparation(size=4, fit="crop", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
NIH = "Atelectasis Cardiomegaly Effusion Infiltration Mass Nodule Pneumonia Pneumothorax Consolidation Edema Emphysema"


class Planted(ImageText):
    """Texts are vectors that are given; a picture is its grey level as an angle, 0 to 90 degrees."""

    def __init__(self, vectors: Mapping[str, Sequence[float]], *, scale: float = 10.0) -> None:
        super().__init__()
        self.vectors, self.scale = vectors, scale
        self.traits = replace(small_backbone().traits, name="planted", embed_dim=2)
        self.asked: list[str] = []

    @property
    def logit_scale(self) -> float:
        return self.scale

    def encode_images(self, pictures: Tensor) -> Tensor:
        angle = pictures.mean(dim=(1, 2, 3)) * torch.pi / 2
        return torch.stack([angle.cos(), angle.sin()], dim=1)

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        self.asked += texts
        vectors = torch.tensor([self.vectors[text] for text in texts])
        return vectors / vectors.norm(dim=1, keepdim=True)


WORDS = {"dark": (1.0, 0.0), "dim": (0.8, 0.6), "bright": (0.0, 1.0), "light": (0.6, 0.8)}


def grey(*levels: float) -> list[Any]:
    return [np.full((6, 6), level, dtype=np.float32) for level in levels]


def embedded(examples: Any, *, batch_size: int = 2) -> tuple[Tensor, Any]:
    return embed_pictures(
        Planted(WORDS), examples, preparation=PREPARATION, batch_size=batch_size, workers=0, device="cpu"
    )


def by_hand(ensemble: str, images: Any, texts: Sequence[str]) -> Any:
    vectors = np.asarray([np.asarray(WORDS[text]) / np.linalg.norm(WORDS[text]) for text in texts])
    if ensemble == "embedding":
        mean = vectors.mean(axis=0)
        return images @ (mean / np.linalg.norm(mean))
    cosines = images @ vectors.T
    return cosines.mean(axis=1) if ensemble == "similarity" else cosines.max(axis=1)


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_one_class_of_several_is_a_softmax_of_scaled_cosines(ensemble: str) -> None:
    examples = examples_of(grey(0.1, 0.9, 0.4), labels=[0, 1, 0], classes=("Dark", "Bright"), task="multiclass")
    prompts = [ClassPrompts(positive=("dark", "dim")), ClassPrompts(positive=("bright", "light"))]
    zeroshot = ZeroShot(Planted(WORDS), prompts, task="multiclass", ensemble=ensemble)
    embeddings, cases = embedded(examples)
    said = predict_by_text(zeroshot, embeddings, cases)
    near = np.stack([by_hand(ensemble, embeddings.numpy(), entry.positive) for entry in prompts], axis=1)
    expected = np.exp(10 * near) / np.exp(10 * near).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(said.scores, expected, atol=1e-5)
    assert METRICS["accuracy"](said) == 1.0
    assert said.calibrated


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_positive_against_negative_texts_is_a_softmax_over_the_two(ensemble: str) -> None:
    examples = examples_of(grey(0.1, 0.9, 0.4), labels=[[0], [1], [np.nan]], classes=("Light",))
    prompts = [ClassPrompts(positive=("bright", "light"), negative=("dark",))]
    zeroshot = ZeroShot(Planted(WORDS), prompts, task="multilabel", ensemble=ensemble, logit_scale=7.0)
    embeddings, cases = embedded(examples)
    said = predict_by_text(zeroshot, embeddings, cases)
    pair = [7 * by_hand(ensemble, embeddings.numpy(), texts) for texts in (("bright", "light"), ("dark",))]
    np.testing.assert_allclose(said.scores[:, 0], np.exp(pair[0]) / (np.exp(pair[0]) + np.exp(pair[1])), atol=1e-5)
    assert auroc(said.labels[:2, 0], said.scores[:2, 0]) == 1.0
    assert np.isnan(said.labels[2, 0])


def test_without_negative_texts_scores_are_cosines_and_no_probabilities() -> None:
    examples = examples_of(grey(0.0, 1.0), labels=[[0], [UNCERTAIN]], classes=("Light",))
    zeroshot = ZeroShot(Planted(WORDS), [ClassPrompts(positive=("bright",))], task="multilabel")
    said = predict_by_text(zeroshot, *embedded(examples))
    np.testing.assert_allclose(said.scores[:, 0], [0, 1], atol=1e-6)
    assert not said.calibrated


def test_every_text_is_encoded_once() -> None:
    model = Planted(WORDS)
    prompts = [
        ClassPrompts(positive=("dark",), negative=("bright",)),
        ClassPrompts(positive=("bright",), negative=("dark",)),
    ]
    ZeroShot(model, prompts, task="multilabel")
    assert sorted(model.asked) == ["bright", "dark"]


def test_slices_of_a_volume_are_one_picture_of_length_1() -> None:
    examples = examples_of(
        grey(0.0, 1.0, 0.5), labels=[[1], [1], [0]], volumes=["a", "a", "b"], patients=["1", "1", "2"]
    )
    embeddings, cases = embedded(examples, batch_size=3)
    assert cases.ids.tolist() == ["a", "b"]
    np.testing.assert_allclose(embeddings, np.full((2, 2), np.sqrt(0.5)), atol=1e-6)


def test_a_picture_without_a_finite_embedding_is_named() -> None:
    with pytest.raises(ManifestError, match=r"row 1: the embedding of /films/films1\.png is not finite"):
        embedded(examples_of(grey(0.1, np.nan)))


def test_masks_another_ensemble_and_a_scale_of_zero_are_refused() -> None:
    model, prompts = Planted(WORDS), [ClassPrompts(positive=("dark",))]
    with pytest.raises(ConfigError, match="data has masks"):
        ZeroShot(model, prompts, task="segmentation")
    with pytest.raises(ConfigError, match="embedding, similarity, max"):
        ZeroShot(model, prompts, task="multilabel", ensemble="median")
    with pytest.raises(ConfigError, match="--logit-scale 0"):
        ZeroShot(model, prompts, task="multilabel", logit_scale=0.0)


def test_prompts_follow_the_order_of_the_datasets_classes_whatever_their_spelling() -> None:
    given = {"pleural thickening": ClassPrompts(positive=("a",)), "Mass": ClassPrompts(positive=("b",))}
    chosen = prompts_of_classes(["Mass", "Pleural_Thickening"], given, task="multilabel")
    assert [entry.positive for entry in chosen] == [("b",), ("a",)]
    with pytest.raises(ConfigError, match="no texts for Nodule, Hernia"):
        prompts_of_classes(["Mass", "Nodule", "Hernia"], given, task="multilabel")


def test_negative_texts_for_some_findings_alone_are_refused() -> None:
    given = {"A": ClassPrompts(positive=("a",), negative=("no a",)), "B": ClassPrompts(positive=("b",))}
    with pytest.raises(ConfigError, match="B have no negative texts"):
        prompts_of_classes(["A", "B"], given, task="multilabel")
    assert len(prompts_of_classes(["A", "B"], given, task="multiclass")) == 2


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_prompts_are_read_from_yaml_and_json(suffix: str, tmp_path: Path) -> None:
    yaml_text = "Mass: [a mass, a tumour]\nEdema:\n  positive: wet lungs\n  negative: [dry lungs]\n"
    json_text = '{"Mass": ["a mass", "a tumour"], "Edema": {"positive": "wet lungs", "negative": ["dry lungs"]}}'
    path = tmp_path / f"prompts.{suffix}"
    path.write_text(yaml_text if suffix == "yaml" else json_text)
    assert read_prompts(path) == {
        "Mass": ClassPrompts(positive=("a mass", "a tumour")),
        "Edema": ClassPrompts(positive=("wet lungs",), negative=("dry lungs",)),
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Mass: []", "Mass, positive: expected one text or more"),
        ("Mass: [1, 2]", "Mass, positive: expected one text or more"),
        ("Mass: {positiv: [a]}", "expected a list of texts, or lists `positive` and `negative`"),
        ("- Mass", "expected classes with their texts"),
        ("Mass: [a", "neither YAML nor JSON"),
    ],
)
def test_a_file_that_holds_no_prompts_says_where(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "prompts.yaml").write_text(text)
    with pytest.raises(ConfigError, match=said):
        read_prompts(tmp_path / "prompts.yaml")


def test_the_shipped_prompts_serve_the_findings_of_the_public_datasets() -> None:
    prompts = read_prompts(find_config("zeroshot_findings", kind="eval"))
    nih = [*NIH.split(), "Fibrosis", "Pleural_Thickening", "Hernia", "No Finding"]
    chexpert = ["Enlarged Cardiomediastinum", "Lung Opacity", "Lung Lesion", "Pleural Effusion", "Pleural Other"]
    chosen = prompts_of_classes([*nih, *chexpert, "Fracture", "Support Devices"], prompts, task="multilabel")
    assert all(entry.positive and entry.negative for entry in chosen)
