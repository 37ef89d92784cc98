"""What a backbone says of pictures: extracted once, kept on disk, used by every probe."""

from dinov2.eval.features.extract import extract
from dinov2.eval.features.features import Features, Labelled, PatchRows, join_examples
from dinov2.eval.features.forward import PRECISIONS, Extractor, FeatureBatch, Form, autocast
from dinov2.eval.features.store import Wanted, read_features
from dinov2.eval.features.volumes import by_volume

__all__ = [
    "PRECISIONS",
    "Extractor",
    "FeatureBatch",
    "Features",
    "Form",
    "Labelled",
    "PatchRows",
    "Wanted",
    "autocast",
    "by_volume",
    "extract",
    "join_examples",
    "read_features",
]
