"""What the pages' snippets need to be there: films, a run, and public weights in a cache of the Hugging Face hub.

In: an empty folder. Out: the names that the pages use, filled with small things: networks of the real width and of one
block, random weights, six synthetic films. `whole/` holds a real ViT-B/14 and a head of the published size.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import Dinov2Config, Dinov2Model

from dinov2.cli import main
from dinov2.layers import DINOHead
from dinov2.manifest import read
from dinov2.models.vision_transformer import vit_base

ROOT = Path(__file__).parents[2]
REVISION = "2ec9ca0e7a73c23aded999b844acd2f07c7e46b9"
NUM_FILMS = 6
NUM_PROTOTYPES = 256
NETWORK = [
    *("student.arch=vit_custom", "student.embed_dim=768", "student.depth=1", "student.num_heads=12"),
    *("student.patch_size=14", "dino.head_n_prototypes=64", "runtime.precision=fp32"),
]
ONE_STEP = [
    *("optim.total_steps=1", "optim.warmup_steps=0", "train.batch_size_per_gpu=2", "train.num_workers=0"),
    *("crops.global_crops_size=518", "crops.local_crops_size=98", "crops.local_crops_number=1"),
]


def make_work_folder(work: Path) -> Path:
    """Everything, in `work`; the cache of the hub is `work/hub`."""
    for folder in (work, work / "whole"):
        folder.mkdir(exist_ok=True)
        (folder / "clone").symlink_to(ROOT, target_is_directory=True)
    _films(work)
    words = ["--config-file", "cpu_smoke", "--output-dir", work / "runs" / "first", *NETWORK, *ONE_STEP]
    _run("train", *words, f"train.dataset_path={work / 'pictures' / 'manifest.parquet'}")
    _rad_dino(_in_cache(work / "hub", "microsoft/rad-dino"))
    _write_transformers(_in_cache(work / "hub", "facebook/dinov2-base"), short_side=256, crop=224,
                        mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))  # fmt: skip
    torch.manual_seed(0)
    _save(vit_base(patch_size=14, img_size=518, init_values=1.0), work / "whole" / "backbone_compatible.safetensors")
    _save(_head(prototypes=65536), work / "whole" / "dino_head.safetensors")
    return work


def _films(work: Path) -> None:
    """Six of them in `pictures/`; `film.dcm`, and `film.png` as `dinov2 preprocess` makes it."""
    _command("phantom", "--output", work / "phantom", "--count", NUM_FILMS, "--seed", 0)
    _command("preprocess", "--input", work / "phantom" / "dicom", "--output", work / "pictures", "--workers", 0)
    films = read(work / "pictures" / "manifest.parquet")
    film = min((work / "phantom" / "dicom").iterdir())
    shutil.copy(film, work / "film.dcm")
    shutil.copy(films.path(0), work / "film.png")


def _rad_dino(folder: Path) -> None:
    """Its published files: for transformers, and for the public code of DINOv2."""
    from dinov2 import load_backbone

    _write_transformers(folder, short_side=518, crop=518, mean=(0.5307,) * 3, std=(0.2583,) * 3)
    _save(load_backbone(folder), folder / "backbone_compatible.safetensors")
    _save(_head(prototypes=NUM_PROTOTYPES), folder / "dino_head.safetensors")


def _write_transformers(
    folder: Path, *, short_side: int, crop: int, mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    config = Dinov2Config(hidden_size=768, num_hidden_layers=1, num_attention_heads=12, image_size=518, patch_size=14)
    torch.manual_seed(1)
    Dinov2Model(config).save_pretrained(folder)
    said = {
        "image_processor_type": "BitImageProcessor",
        **dict.fromkeys(("do_convert_rgb", "do_resize", "do_center_crop", "do_rescale", "do_normalize"), True),
        "size": {"shortest_edge": short_side},
        "crop_size": {"height": crop, "width": crop},
        "resample": 3,
        "rescale_factor": 1 / 255,
        "image_mean": list(mean),
        "image_std": list(std),
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(said))


def _in_cache(cache: Path, name: str) -> Path:
    """The folder of a model in the hub's cache, as its client lays it out."""
    model = cache / f"models--{name.replace('/', '--')}"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text(REVISION)
    folder = model / "snapshots" / REVISION
    folder.mkdir(parents=True)
    return folder


def _head(*, prototypes: int) -> DINOHead:
    return DINOHead(in_dim=768, out_dim=prototypes, hidden_dim=2048, bottleneck_dim=256, nlayers=3)


def _save(module: nn.Module, path: Path) -> None:
    save_file({name: tensor.contiguous() for name, tensor in module.state_dict().items()}, path)


def _command(*words: object) -> None:
    """In a process without torch: its workers are started from it."""
    subprocess.run([sys.executable, "-m", "dinov2", *map(str, words)], cwd=ROOT, check=True, capture_output=True)


def _run(*words: object) -> None:
    code = main([str(word) for word in words])
    assert code == 0, words
