"""The whole way with the real commands: synthetic DICOM films to a backbone that loads strictly."""

import csv
from pathlib import Path

import torch
from safetensors.torch import load_file

from dinov2 import manifest
from dinov2.models.vision_transformer import DinoVisionTransformer

from .runs import command, finish, train_words, write_tiny_config


def test_dicom_films_become_a_backbone_under_the_public_names(tmp_path: Path) -> None:
    phantoms, pictures, run, exported = (tmp_path / name for name in ("phantoms", "pictures", "run", "exported"))
    finish(command("phantom", "--output", str(phantoms), "--count", "12", "--seed", "1", "--short-side", "160"))
    words = ["--input", str(phantoms / "dicom"), "--output", str(pictures), "--table", str(phantoms / "labels.csv")]
    finish(command("preprocess", *words, "--dataset", "phantom", "--workers", "0", "resample.short_side=96"))

    films = manifest.read(pictures / "manifest.parquet")
    labels = list(csv.DictReader((phantoms / "labels.csv").open()))
    assert len(films) == len(labels) == 12
    assert {min(films.row(i)["width"], films.row(i)["height"]) for i in range(12)} == {96}
    assert sum(films.row(i)["label_nodule"] for i in range(12)) == sum(int(row["label_nodule"]) for row in labels)
    assert list(csv.DictReader((pictures / "rejected.csv").open())) == []

    dataset = pictures / "manifest.parquet"
    grid = tmp_path / "crops.png"
    config = write_tiny_config(tmp_path)
    finish(command("preview", "augmentation", "--dataset", str(dataset), "--output", str(grid), "--rows", "2"))
    assert grid.stat().st_size > 10_000
    finish(command(*train_words(config, dataset, run, "optim.total_steps=4", "train.num_workers=0")))
    finish(command("export", "--checkpoint", str(run), "--output-dir", str(exported)))

    backbone = DinoVisionTransformer(
        img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, init_values=1.0, block_chunks=0
    )
    backbone.load_state_dict(load_file(exported / "backbone.safetensors"), strict=True)
    during = load_file(run / "exports" / "4" / "backbone.safetensors")
    for name, value in load_file(exported / "backbone.safetensors").items():
        assert torch.equal(value, during[name]), "the export of the run and that of its checkpoint are the same teacher"
