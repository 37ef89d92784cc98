"""Montgomery County (`MC`) and Shenzhen: films with masks of the lungs (Jaeger et al., QIMS 2014; masks of Shenzhen by
Stirenko et al., 2018).

In: the dataset's folder, as it ships or with a folder per split. Out: a `Source`. The last figure of a file's name says
whether the film shows tuberculosis, which is the label where masks are not asked for.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from dinov2.errors import ManifestError
from dinov2.eval.datasets.masks import PicturePerClass
from dinov2.eval.datasets.public.request import Request
from dinov2.eval.datasets.public.rows import is_mask, pictures_below, split_in, to_manifest, with_splits
from dinov2.eval.datasets.reading import Films
from dinov2.eval.datasets.source import Source
from dinov2.manifest import Manifest

SIDES = ("leftMask", "rightMask")
FINDING = re.compile(r"_([01])$")  # MCUCXR_0001_0: film 1, no tuberculosis


def montgomery(asked: Request) -> Source:
    """MC: ManualMask/leftMask is class 1, ManualMask/rightMask class 2.  138 films, a patient each."""
    root = _root(asked)
    everything = pictures_below(root, name="MC")
    sides = [_by_stem(path for path in everything if side in PurePosixPath(path).parts) for side in SIDES]
    films = [path for path in everything if not is_mask(path)]
    if asked.segmentation and not all(sides):
        raise ManifestError(
            f"MC: {root} has no ManualMask/{SIDES[0]} and ManualMask/{SIDES[1]}, the masks of the lungs."
        )
    manifest = _films(films, root=root, dataset="montgomery", name="MC", shares=(23 / 138, 46 / 138))
    masks = [[side.get(PurePosixPath(path).stem) for side in sides] for path in films]
    return _source("MC", manifest, PicturePerClass(masks, root=root), ("left lung", "right lung"))


def shenzhen(asked: Request) -> Source:
    """Shenzhen: masks are NAME_mask.png; 566 of the 662 films have one."""
    root = _root(asked)
    everything = pictures_below(root, name="Shenzhen")
    found = {stem.removesuffix("_mask"): path for stem, path in _by_stem(filter(is_mask, everything)).items()}
    films = [path for path in everything if not is_mask(path)]
    if asked.segmentation and not found:
        raise ManifestError(
            f"Shenzhen: no NAME_mask.png below {root}; the masks of the lungs are a download of their own."
        )
    if asked.segmentation:
        films = [path for path in films if PurePosixPath(path).stem in found]
    manifest = _films(films, root=root, dataset="shenzhen", name="Shenzhen", shares=(91 / 566, 114 / 566))
    masks = [[found.get(PurePosixPath(path).stem)] for path in films]
    return _source("Shenzhen", manifest, PicturePerClass(masks, root=root), ("lungs",))


def _root(asked: Request) -> Path:
    if asked.extra:
        raise ManifestError(f"extra={asked.extra}: this dataset's films and masks lie below one root. Leave extra out.")
    return asked.root


def _films(paths: Sequence[str], *, root: Path, dataset: str, name: str, shares: tuple[float, float]) -> Manifest:
    """Shares of val and test are those of the public evaluation code."""
    rows = []
    for path in paths:
        stem = PurePosixPath(path).stem
        finding = FINDING.search(stem)
        rows.append(
            {
                "image": path,
                "image_id": stem,
                "patient": stem,
                "split": split_in(path),
                "tuberculosis": float(finding[1]) if finding else None,
            }
        )
    return with_splits(to_manifest(rows, root=root, dataset=dataset), name=name, val=shares[0], test=shares[1])


def _by_stem(paths: Iterable[str]) -> dict[str, str]:
    return {PurePosixPath(path).stem: path for path in paths}


def _source(name: str, manifest: Manifest, masks: PicturePerClass, classes: tuple[str, ...]) -> Source:
    return Source(
        name=name,
        manifest=manifest,
        pictures=Films(manifest),
        labels=("tuberculosis",),
        classes=("tuberculosis",),
        masks=masks,
        mask_classes=classes,
    )
