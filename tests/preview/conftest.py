from pathlib import Path

import cv2
import pytest

from dinov2.config.schema import Augmentation, Crops, Ibot
from dinov2.data.collate import BatchMaker
from dinov2.data.loader import batch_maker
from dinov2.manifest import Manifest, from_folder
from tests.data.conftest import film


@pytest.fixture(scope="session")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Six films; the name of the first would be markup if nothing escaped it."""
    folder: Path = tmp_path_factory.mktemp("films")
    for number, name in enumerate(["a<b>&.png", *(f"{i}.png" for i in range(1, 6))]):
        assert cv2.imwrite(str(folder / name), film(number, height=120, width=150))
    return from_folder(folder)


def maker_of(manifest: Manifest, *, num_locals: int = 2, **ibot: object) -> BatchMaker:
    """Global crops of 8 x 8 patches."""
    return batch_maker(
        manifest,
        crops=Crops(global_crops_size=112, local_crops_size=56, local_crops_number=num_locals),
        augmentation=Augmentation(preset="cxr"),
        ibot=Ibot(**ibot),
        patch_size=14,
        seed=0,
    )
