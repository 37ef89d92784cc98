"""Train, val and test from what the command line says.

In: a manifest, a folder with one, or `Name:root=FOLDER...` of a public dataset; label columns, splits, views. Out:
`EvalData`: the same classes in the same order in every split, and no patient in two of them.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from dinov2.errors import ManifestError
from dinov2.eval.datasets.labels import Plan, encode, plan_labels
from dinov2.eval.datasets.locating import Opened, open_source
from dinov2.eval.datasets.masks import mask_classes
from dinov2.eval.datasets.reading import SourceReader
from dinov2.eval.datasets.source import Source
from dinov2.eval.datasets.splits import Rows, names_of_splits, rows_of_split, rows_of_views
from dinov2.eval.examples import SPLITS, EvalData, Examples
from dinov2.manifest import Manifest

MAX_NAMED = 12
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Part:
    """The rows of a source that one split has."""

    split: str
    source: Source
    rows: Rows

    @property
    def name(self) -> str:
        return f"{self.source.name}, {self.split}"

    def narrowed(self) -> Source:
        """The source with the rows of this split alone; pictures and masks still go by the source's row numbers."""
        table = self.source.manifest.table.take(self.rows)
        return replace(self.source, manifest=Manifest(table, self.source.manifest.root))


def open_data(
    dataset: str | None,
    *,
    train: str | None = None,
    val: str | None = None,
    test: str | None = None,
    split_names: Mapping[str, str] | None = None,
    labels: Sequence[str] = (),
    masks: str | None = None,
    classes: Sequence[str] = (),
    views: Sequence[str] = (),
    segmentation: bool = False,
) -> EvalData:
    """The splits of a dataset, ready for a probe.

    `dataset` has them in its column `split`, or as a public dataset defines them; `train`, `val` and `test` are
    datasets that are one split each and go before it. `split_names`: what the splits are called; by default train, val,
    test and their synonyms (valid, validation, training ...). `labels`: several columns of 1, 0, -1 and nothing
    (multilabel), one such column, one column of names (multiclass), or one of names with `|` between (multilabel); none
    for what a public dataset usually has. `classes`: their names, or the order of the names in the one column. With
    `segmentation` labels are masks: of the column `masks`, or those that a public dataset has.

    Raises ManifestError where something is not there or is no label, and where splits share patients.
    """
    names = {split: (split_names or {}).get(split) or split for split in SPLITS}
    given = dict(zip(SPLITS, (train, val, test), strict=True))
    whole = None if dataset is None else open_source(dataset, views=views, masks=masks, segmentation=segmentation)
    parts = []
    for split in SPLITS:
        text = given[split]
        opened = open_source(text, views=views, masks=masks, segmentation=segmentation) if text else whole
        part = None if opened is None else _part(split, opened, named=names[split], alone=bool(text), views=views)
        if part is not None:
            parts.append(part)
    if not parts or parts[0].split != "train":
        raise _without_train(whole, named=names["train"])
    examples = _segmentations(parts, classes=classes) if segmentation else _labelled(parts, labels, classes=classes)
    return EvalData(train=examples["train"], val=examples.get("val"), test=examples.get("test"))


def _part(split: str, opened: Opened, *, named: str, alone: bool, views: Sequence[str]) -> _Part | None:
    """The rows of one split.  `alone`: the dataset was given for this split; all of it is, if it has no such."""
    manifest = opened.source.manifest
    if opened.split and not alone and opened.split != split:
        return None
    rows = rows_of_split(manifest, split=opened.split or split, named=opened.split or named)
    if alone and not len(rows) and not opened.split:
        rows = np.arange(len(manifest))
        if names_of_splits(manifest):
            log.warning(
                "%s: its splits are %s; all of it is taken for %s.",
                opened.source.name,
                names_of_splits(manifest),
                split,
            )
    rows = rows[rows_of_views(manifest, views or opened.views, name=opened.source.name)[rows]]
    if len(rows):
        return _Part(split, opened.source, rows)
    if alone:
        raise ManifestError(f"{opened.source.name}: no picture is left for {split}. {_splits_present(manifest)}")
    if split != "train" and not opened.split:
        lost = "chosen" if split == "val" else "reported"
        log.warning("%s has no picture for %s: nothing can be %s on it.", opened.source.name, named, lost)
    return None


def _without_train(whole: Opened | None, *, named: str) -> ManifestError:
    if whole is None:
        return ManifestError("no pictures to fit on: give --dataset, or --train-dataset.")
    manifest = whole.source.manifest
    return ManifestError(
        f"{whole.source.name}: no picture has split {named}. {_splits_present(manifest)} Say with --train-split what "
        "it is called, give --train-dataset, or draw splits by patient: dinov2 manifest split MANIFEST"
    )


def _splits_present(manifest: Manifest) -> str:
    present = names_of_splits(manifest)
    return f"Its splits are {present}." if present else "Its column 'split' is empty."


def _labelled(parts: Sequence[_Part], labels: Sequence[str], *, classes: Sequence[str]) -> dict[str, Examples]:
    narrowed = [part.narrowed() for part in parts]
    plan = plan_labels(narrowed, labels=labels, classes=classes)
    made = {}
    for part, source in zip(parts, narrowed, strict=True):
        values, labelled = encode(source, plan)
        if not labelled.all():
            log.warning("%s: %d of %d pictures have no label; left out.", part.name, (~labelled).sum(), len(labelled))
        if not labelled.any():
            raise ManifestError(f"{part.name}: no picture has a label in {', '.join(plan.wanted)}.")
        kept = _Part(part.split, part.source, part.rows[labelled])
        _remark_absent(plan, values[labelled], name=part.name)
        made[part.split] = _examples(kept, plan, labels=values[labelled])
    return made


def _segmentations(parts: Sequence[_Part], *, classes: Sequence[str]) -> dict[str, Examples]:
    kept = []
    for part in parts:
        masks = part.source.masks
        assert masks is not None, "a source that was opened for segmentation has masks"
        present = masks.present[part.rows]
        if not present.all():
            log.warning("%s: %d of %d pictures have no mask; left out.", part.name, (~present).sum(), len(present))
        if present.any():
            kept.append(_Part(part.split, part.source, part.rows[present]))
        elif part.split == "train":
            raise ManifestError(f"{part.name}: no picture has a mask on disk.")
    usual = {part.source.mask_classes for part in kept if part.source.mask_classes}
    if not classes and len(usual) > 1:
        raise ManifestError(f"the splits have the classes {' and '.join(', '.join(one) for one in sorted(usual))}.")
    chosen = tuple(classes) or (usual.pop() if usual else mask_classes([(one.source, one.rows) for one in kept]))
    plan = Plan(task="segmentation", form="names", wanted=(), classes=chosen)
    return {part.split: _examples(part, plan, labels=np.zeros((len(part.rows), 0), np.float32)) for part in kept}


def _examples(part: _Part, plan: Plan, *, labels: NDArray[np.float32]) -> Examples:
    manifest = part.narrowed().manifest
    table = manifest.table
    ids = ["" if value is None else str(value) for value in table.column("image_id").to_pylist()]
    stated = table.column("patient").to_pylist()
    patients = [str(value) if value not in (None, "") else own for value, own in zip(stated, ids, strict=True)]
    volumes = None
    if part.source.volumes:
        volumes = np.asarray([str(value) for value in table.column(part.source.volumes).to_pylist()], dtype=np.str_)
    return Examples(
        name=part.name,
        manifest=manifest,
        reader=SourceReader(part.source.pictures, part.source.masks, num_classes=len(plan.classes), rows=part.rows),
        task=plan.task,
        classes=plan.classes,
        labels=labels,
        patients=np.asarray(patients, dtype=np.str_),
        volumes=volumes,
    )


def _remark_absent(plan: Plan, labels: NDArray[np.float32], *, name: str) -> None:
    positive = (labels == 1).any(axis=0) if plan.task == "multilabel" else np.isin(np.arange(len(plan.classes)), labels)
    absent = [one for one, there in zip(plan.classes, positive, strict=True) if not there]
    if absent:
        listed = ", ".join(absent[:MAX_NAMED]) + (", ..." if len(absent) > MAX_NAMED else "")
        log.warning("%s: no picture shows %s; the class keeps its place.", name, listed)
