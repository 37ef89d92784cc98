"""What a backbone says of pictures: extracted once, kept on disk, used by every probe."""

from dinov2.eval.features.extract import extract
from dinov2.eval.features.features import Features, Labelled, PatchRows, join_examples
from dinov2.eval.features.forward import PRECISIONS, FeatureBatch, Form, autocast, feature_batches, form_of
from dinov2.eval.features.store import Wanted, read_features
from dinov2.eval.features.volumes import by_volume

__all__ = [
    "PRECISIONS",
    "FeatureBatch",
    "Features",
    "Form",
    "Labelled",
    "PatchRows",
    "Wanted",
    "autocast",
    "by_volume",
    "extract",
    "feature_batches",
    "form_of",
    "join_examples",
    "read_features",
]
