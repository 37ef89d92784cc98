"""Names of timm, torchvision, torchxrayvision and open_clip, by the real libraries: their networks with random weights,
in the folders and caches in which they look for pretrained ones."""

import json
import logging
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.testing import assert_close

from dinov2.errors import WeightsError
from dinov2.eval.backbones import open_backbone
from tests.torchvision_libraries import with_them


def random_network(network: nn.Module) -> Any:
    """Norms, biases and running averages that are no one's default, so that a wrong one shows."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point() and tensor.ndim == 1:
                tensor.add_(0.1 * torch.rand(tensor.shape, generator=generator))
    return network.eval()


def in_hub_cache(cache: Path, repository: str, files: dict[str, Any]) -> None:
    """Lays files where huggingface_hub looks for those of a repository."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    (folder / "snapshots" / ("0" * 40)).mkdir(parents=True)
    for name, write in files.items():
        write(folder / "snapshots" / ("0" * 40) / name)


@torch.no_grad()
def timm_networks(folder: str) -> dict[str, Any]:
    os.environ["HF_HUB_CACHE"] = folder  # before huggingface_hub is imported
    import timm
    from safetensors.torch import save_file

    said = {}
    for name in ("vit_tiny_patch16_224.augreg_in21k", "test_byobnet.r160_in1k", "test_vit3.r160_in1k"):
        theirs = random_network(timm.create_model(name, pretrained=False))
        state = {key: value.contiguous() for key, value in theirs.state_dict().items()}
        in_hub_cache(Path(folder), f"timm/{name}", {"model.safetensors": lambda path, s=state: save_file(s, path)})
        backbone = open_backbone(f"timm:{name}")
        traits = backbone.traits
        pictures = torch.randn(2, 3, traits.input_size, traits.input_size)
        wanted: Tensor = theirs.forward_features(pictures)
        tokens = backbone(pictures)
        if wanted.ndim == 4:
            assert_close(tokens.patches, wanted.flatten(2).transpose(1, 2))
        else:
            assert_close(tokens.patches, wanted[:, theirs.num_prefix_tokens :])
            assert_close(tokens.cls, wanted[:, 0] if theirs.cls_token is not None else tokens.patches.mean(dim=1))
            parts = [entry for part in backbone.parts() for entry, _ in part]
            assert sorted(parts) == sorted(entry for entry, _ in backbone.named_parameters())
        step = traits.size_step
        other = backbone(torch.randn(1, 3, 4 * step, 6 * step))
        assert other.grid == (4, 6)
        said[name] = [traits.family, traits.embed_dim, traits.patch_size, traits.depth, traits.mean, traits.input_size]
    try:
        open_backbone("timm:vit_huge_of_nowhere")
    except WeightsError as error:
        said["refused"] = str(error)
    return said


def test_timm_opens_transformers_and_maps_from_the_hubs_cache(tmp_path: Path) -> None:
    said = with_them(timm_networks, tmp_path)
    assert said["vit_tiny_patch16_224.augreg_in21k"] == ["vit_tiny_patch16_224", 192, 16, 12, [0.5] * 3, 224]
    assert said["test_byobnet.r160_in1k"][1] == 256
    assert said["test_vit3.r160_in1k"][0] == "test_vit3"
    assert "timm:vit_huge_of_nowhere: cannot be opened (Unknown model" in said["refused"]


@torch.no_grad()
def torchvision_networks(folder: str) -> dict[str, Any]:
    os.environ["TORCH_HOME"] = folder
    import torchvision

    checkpoints = Path(folder) / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    said = {}
    for arch in ("resnet18", "densenet121"):
        theirs = random_network(torchvision.models.get_model(arch, weights=None))
        weights = torchvision.models.get_model_weights(arch).DEFAULT
        names = {name: in_old_names(name) for name in theirs.state_dict()}
        state = {names[name]: tensor for name, tensor in theirs.state_dict().items()}
        torch.save(state, checkpoints / weights.url.rpartition("/")[2])
        backbone = open_backbone(f"torchvision:{arch}")
        pictures = torch.randn(2, 3, 64, 96)
        last = theirs.layer4 if arch == "resnet18" else theirs.features
        caught: list[Tensor] = []
        with last.register_forward_hook(lambda *given, into=caught: into.append(given[-1])):
            theirs(pictures)
        wanted = caught[0].relu()  # densenet's own comes after `features`; the others end in one
        assert_close(backbone(pictures).patches, wanted.flatten(2).transpose(1, 2))
        said[arch] = [backbone.traits.embed_dim, backbone.traits.patch_size, backbone.traits.input_size]
    network = torchvision.models.squeezenet1_1()
    torch.save(network.state_dict(), checkpoints / "squeezenet1_1-b8a52dc0.pth")
    for name in ("resnet18@IMAGENET1K_V9", "squeezenet1_1"):
        try:
            open_backbone(f"torchvision:{name}")
        except WeightsError as error:
            said[name] = str(error)
    return said


def in_old_names(name: str) -> str:
    """`norm1` as `norm.1`, as in torchvision's files of DenseNet."""
    if "denselayer" not in name:
        return name
    for part in ("norm", "relu", "conv"):
        for n in "12":
            name = name.replace(f"{part}{n}.", f"{part}.{n}.")
    return name


@torch.no_grad()
def torchxrayvision_networks(folder: str) -> list[Any]:
    os.environ["HOME"] = folder
    logging.disable()
    import torchxrayvision

    cache = Path(torchxrayvision.utils.get_cache_dir())
    cache.mkdir(parents=True)
    name = "densenet121-res224-nih"
    theirs = random_network(torchxrayvision.models.DenseNet(num_classes=18))
    torch.save(theirs, cache / torchxrayvision.models.model_urls[name]["weights_url"].rpartition("/")[2])
    backbone = open_backbone(f"torchxrayvision:{name}")
    grey = torch.randn(1, 1, 64, 96)
    wanted = theirs.features(grey).relu()
    assert_close(backbone(grey.expand(-1, 3, -1, -1)).patches, wanted.flatten(2).transpose(1, 2), atol=1e-4, rtol=1e-4)
    return [backbone.traits.input_size, backbone.traits.embed_dim, backbone.traits.family]


def map_networks(folder: str) -> dict[str, Any]:
    return {"torchvision": torchvision_networks(folder), "torchxrayvision": torchxrayvision_networks(folder)}


def test_networks_of_feature_maps_open_from_their_libraries_caches_under_old_names_too(tmp_path: Path) -> None:
    every = with_them(map_networks, tmp_path)
    said = every["torchvision"]
    assert said["resnet18"] == [512, 32, 224]
    assert said["densenet121"] == [1024, 32, 224]
    assert "torchvision:resnet18@IMAGENET1K_V9: cannot be opened ('IMAGENET1K_V9')" in said["resnet18@IMAGENET1K_V9"]
    assert "gives [1, 512, 7, 7] for a picture of 128 pixels" in said["squeezenet1_1"]
    assert every["torchxrayvision"] == [224, 1024, "densenet121"]


@torch.no_grad()
def open_clip_networks(folder: str) -> list[Any]:
    import open_clip

    from tests.eval.backbones.small_models import clip_model, write_open_clip

    said: list[Any] = []
    for quick in (True, False):
        place = Path(folder) / f"quick_{quick}"
        model = clip_model(activation="quick_gelu" if quick else "gelu")
        write_open_clip(place, model=model, quick_gelu=quick, config={"mlp_ratio": 0.5})
        config = json.loads((place / "open_clip_config.json").read_text())
        config["model_cfg"]["text_cfg"]["mlp_ratio"] = 1.5
        (place / "open_clip_config.json").write_text(json.dumps(config))
        theirs, _ = open_clip.create_model_from_pretrained(f"local-dir:{place}")
        pictures = torch.randn(2, 3, 32, 32)
        backbone = open_backbone(f"open_clip:local-dir:{place}")
        pooled = backbone(pictures).cls @ theirs.visual.proj
        assert_close(pooled, theirs.encode_image(pictures), atol=1e-5, rtol=1e-5)
        said.append([backbone.traits.family, backbone.traits.patch_size, list(backbone.traits.mean)])
    for name in ("open_clip:ViT-B-32", "open_clip:ViT-B-32@no_such_weights"):
        try:
            open_backbone(name)
        except WeightsError as error:
            said.append(str(error))
    return said


def test_open_clip_opens_a_folder_and_our_towers_compute_the_same(tmp_path: Path) -> None:
    quick, plain, untold, unknown = with_them(open_clip_networks, tmp_path)
    assert quick == plain == ["clip", 8, [0.4, 0.5, 0.6]]
    assert "which weights? Say open_clip:ViT-B-32@PRETRAINED" in untold
    assert "open_clip:ViT-B-32@no_such_weights: cannot be opened" in unknown
