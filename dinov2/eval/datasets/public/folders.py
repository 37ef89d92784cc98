"""Datasets whose classes are folders: Pneumonia (Kermany) and COVID-QU in both of its forms.

In: the dataset's folder. Out: a `Source` with a column of class names, multiclass.
"""

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from dinov2.errors import ManifestError
from dinov2.eval.datasets.masks import PicturePerClass
from dinov2.eval.datasets.public.request import Request
from dinov2.eval.datasets.public.rows import is_mask, pictures_below, split_in, to_manifest, unique_ids, with_splits
from dinov2.eval.datasets.reading import Films
from dinov2.eval.datasets.source import Source

KERMANY = ("NORMAL", "PNEUMONIA")
QU_EX = ("COVID-19", "Non-COVID", "Normal")
RADIOGRAPHY = ("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia")
LUNGS = "Lung Segmentation Data"  # COVID-QU-Ex holds the same films again beside the masks of infections
# person1_bacteria_2.jpeg and IM-0115-0001.jpeg: the number before the last is the patient's
KERMANY_PATIENT = re.compile(r"^(person\d+_[a-z]+|(?:NORMAL2?-)?IM-\d+)", re.IGNORECASE)


def pneumonia(asked: Request) -> Source:
    """Pneumonia (Kermany et al., Cell 2018): {train,val,test}/{NORMAL,PNEUMONIA}/*.jpeg."""
    folder = asked.pictures
    found = [path for path in pictures_below(folder, name="Pneumonia") if not path.startswith("__MACOSX")]
    pairs = _of_classes(found, KERMANY, name="Pneumonia", folder=folder)
    rows = []
    for path, kind in pairs:
        stem = PurePosixPath(path).stem
        patient = KERMANY_PATIENT.match(stem)
        rows.append(
            {
                "image": path,
                "image_id": stem,
                "patient": patient[1] if patient else None,
                "split": split_in(path),
                "class": kind,
            }
        )
    manifest = with_splits(to_manifest(rows, root=folder, dataset="pneumonia"), name="Pneumonia", val=0.1, test=0.1)
    return Source(name="Pneumonia", manifest=manifest, pictures=Films(manifest), labels=("class",), classes=KERMANY)


def covid_qu(asked: Request) -> Source:
    """COVID-QU-Ex ({Train,Val,Test}/CLASS/{images,lung masks}) or the radiography database (CLASS/{images,masks}).

    Masks are those of the lungs. Neither says which films are of one patient.
    """
    folder = asked.pictures
    everything = pictures_below(folder, name="COVIDQU")
    if any(LUNGS in path for path in everything):
        everything = [path for path in everything if LUNGS in path]
    films = [path for path in everything if not is_mask(path)]
    parts = {part.lower() for path in films for part in PurePosixPath(path).parts[:-1]}
    classes = QU_EX if "covid-19" in parts else RADIOGRAPHY
    pairs = _of_classes(films, classes, name="COVIDQU", folder=folder)
    ids = unique_ids([path for path, _ in pairs])
    rows = [
        {"image": path, "image_id": one, "split": split_in(path), "class": kind}
        for (path, kind), one in zip(pairs, ids, strict=True)
    ]
    manifest = with_splits(to_manifest(rows, root=folder, dataset="covid-qu"), name="COVIDQU", val=0.1, test=0.1)
    masks = {_place(path): path for path in everything if is_mask(path)}
    paths = [[masks.get(_place(path))] for path, _ in pairs]
    return Source(
        name="COVIDQU",
        manifest=manifest,
        pictures=Films(manifest),
        labels=("class",),
        classes=classes,
        masks=PicturePerClass(paths, root=folder) if masks else None,
        mask_classes=("lungs",),
    )


def _of_classes(paths: Sequence[str], classes: Sequence[str], *, name: str, folder: Path) -> list[tuple[str, str]]:
    """Path and class of the pictures that lie in a class's folder."""
    known = {kind.lower().replace(" ", "_"): kind for kind in classes}
    pairs = []
    for path in paths:
        words = [part.lower().replace(" ", "_") for part in PurePosixPath(path).parts[:-1]]
        kind = next((known[word] for word in reversed(words) if word in known), None)
        if kind:
            pairs.append((path, kind))
    if not pairs:
        raise ManifestError(f"{name}: {folder} has no folder {' or '.join(classes)} with pictures.")
    return pairs


def _place(path: str) -> str:
    """What a picture and its mask share: the folder above `images` or `masks`, and the file's name."""
    place = PurePosixPath(path)
    folder = place.parent.parent if place.parent.name == "images" or is_mask(place.parent.name) else place.parent
    return f"{folder}/{place.stem}"
