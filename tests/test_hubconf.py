"""`torch.hub.load` of this repository, in processes of their own that start elsewhere."""

import csv
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import pytest
import torch
from safetensors.torch import save_file
from torch.testing import assert_close

from dinov2.cli import main
from dinov2.errors import WeightsError
from dinov2.eval.backbones import open_backbone
from dinov2.eval.pictures.preparation import preparation_for
from dinov2.formats import Source, load_backbone
from dinov2.formats.native import write_dinov2
from dinov2.models.vision_transformer import DinoVisionTransformer
from tests.formats.saved_runs import card_of
from tests.integration.runs import environment, write_pictures

REPOSITORY = Path(__file__).resolve().parent.parent
ENTRIES = [f"dinov2_vit{letter}14{registers}" for registers in ("", "_reg") for letter in "sblg"]
NOT_NEEDED = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {needed_elsewhere}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hidden())
"""
NEEDED_ELSEWHERE = (
    "omegaconf yaml rich pydicom cv2 pyarrow PIL scipy sklearn matplotlib SimpleITK jinja2 pebble huggingface_hub "
    "transformers timm torchvision onnx onnxruntime submitit"
)


def fresh_process(script: str, *, folder: Path) -> str:
    """What a Python process prints that knows nothing of this repository but its path, in the variable `repository`."""
    words = [sys.executable, "-P", "-c", f"import torch\nrepository = {str(REPOSITORY)!r}\n{script}"]
    surroundings = {name: value for name, value in environment().items() if name != "PYTHONPATH"}
    found = subprocess.run(words, cwd=folder, env=surroundings, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    return found.stdout


@pytest.fixture(scope="module")
def hub() -> ModuleType:
    specification = importlib.util.spec_from_file_location("hubconf", REPOSITORY / "hubconf.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ViT-S/14 for 28 pixels, with random weights."""
    torch.manual_seed(0)
    vit = DinoVisionTransformer(
        img_size=28, patch_size=14, embed_dim=384, depth=12, num_heads=6, init_values=1.0, block_chunks=0
    )
    path = tmp_path_factory.mktemp("weights") / "vits14.pth"
    torch.save(vit.state_dict(), path)
    return path


def test_whatever_torch_hub_lists_is_an_entry_point_and_says_what_it_is(hub: ModuleType) -> None:
    listed = [name for name in dir(hub) if callable(getattr(hub, name)) and not name.startswith("_")]
    assert sorted(listed) == sorted([*ENTRIES, *(f"{name}_lc" for name in ENTRIES)])
    assert all(getattr(hub, name).__doc__ for name in listed)
    assert "4 registers" in hub.dinov2_vitg14_reg.__doc__


ALL_ENTRIES = """
import json
found = {}
for name in NAMES:
    words = {"source": "local", "pretrained": False, "depth": 1}  # of forty: a giant takes its time
    vit = torch.hub.load(repository, name, **words)
    classifier = torch.hub.load(repository, name + "_lc", layers=1, img_size=28, **words)
    found[name] = {
        "width": vit.embed_dim,
        "heads": vit.num_heads,
        "table": vit.pos_embed.shape[1],
        "registers": vit.num_register_tokens,
        "mode": [vit.interpolate_offset, vit.interpolate_antialias],
        "gated": hasattr(vit.blocks[0].mlp, "w12"),
        "scale": float(vit.blocks[0].ls1.gamma.detach().mean()),
        "logits": list(classifier(torch.zeros(1, 3, 28, 28)).shape),
        "features": classifier.linear_head.in_features,
    }
print(json.dumps(found))
"""


def test_every_entry_point_has_the_public_sizes_and_needs_torch_numpy_and_safetensors_alone(tmp_path: Path) -> None:
    hidden = NOT_NEEDED.format(needed_elsewhere=set(NEEDED_ELSEWHERE.split()))
    found = json.loads(fresh_process(hidden + f"NAMES = {ENTRIES}" + ALL_ENTRIES, folder=tmp_path))
    sizes = {"s": (384, 6), "b": (768, 12), "l": (1024, 16), "g": (1536, 24)}
    for name in ENTRIES:
        letter, registers = name.removeprefix("dinov2_vit")[0], name.endswith("_reg")
        width, heads = sizes[letter]
        assert found[name] == {
            "width": width,
            "heads": heads,
            "table": 1 + 37 * 37,
            "registers": 4 if registers else 0,
            "mode": [0.0, True] if registers else [0.1, False],
            "gated": letter == "g",
            "scale": 1.0,
            "logits": [1, 1000],
            "features": 2 * width,
        }


EXPORTED = """
from safetensors.torch import load_file
backbone = torch.hub.load(repository, "dinov2_vitb14", source="local")
print(backbone.load_state_dict(load_file(f"{FOLDER}/backbone.safetensors"), strict=True))
same = torch.hub.load(repository, "dinov2_vitb14", source="local", pretrained=FOLDER)
print(all(torch.equal(ours, theirs) for ours, theirs in zip(backbone.parameters(), same.parameters(), strict=True)))
picture = torch.zeros(1, 3, 98, 98)
print(torch.equal(backbone(picture), same(picture)))
"""


def test_an_exported_vit_b_at_518_loads_with_strict_into_the_network_of_the_hub(
    hub: ModuleType, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    vit = hub.dinov2_vitb14(pretrained=False).eval()
    write_dinov2(Source(backbone=vit, card=card_of(vit)), tmp_path / "exported")
    said = fresh_process(f"FOLDER = 'exported'{EXPORTED}", folder=tmp_path)
    assert said.splitlines() == ["<All keys matched successfully>", "True", "True"]


def test_a_network_opens_with_its_own_table_and_the_words_of_the_user_go_before(
    hub: ModuleType, weights: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = load_backbone(weights)
    pictures = torch.randn(2, 3, 42, 28)
    for words in ({"pretrained": weights}, {"weights": str(weights)}, {"pretrained": True, "weights": weights}):
        vit = hub.dinov2_vits14(**words)
        assert vit.patch_embed.img_size == (28, 28)
        assert_close(vit.eval()(pictures), plain(pictures))
    with caplog.at_level("INFO"):
        larger = hub.dinov2_vits14(pretrained=weights, img_size=56, in_chans=1)
    assert larger.pos_embed.shape == (1, 17, 384)
    assert larger.patch_embed.proj.weight.shape == (384, 1, 14, 14)
    assert "resized pos_embed: 2 x 2 patches resampled to 4 x 4" in caplog.text


def test_random_weights_that_nobody_asked_for_are_said(hub: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    hub.dinov2_vits14(pretrained=False, depth=1, img_size=28)
    assert caplog.text == ""
    hub.dinov2_vits14(depth=1, img_size=28, weights="LVD142M")
    assert "dinov2_vits14 has random weights, for none are shipped" in caplog.text
    assert hub.dinov2_vits14_lc(depth=4, img_size=28).linear_head.in_features == 5 * 384
    assert "dinov2_vits14_lc: the linear head has random weights" in caplog.text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"pretrained": True}, "no weights are shipped with this repository"),
        ({"pretrained": True, "weights": "LVD142M"}, "no weights are shipped with this repository"),
        ({"pretrained": False, "weights": "mine.pth"}, "pretrained=False and weights=mine.pth"),
        ({"pretrained": "one", "weights": "other"}, "pretrained=one and weights=other"),
        ({"weights": 3}, "weights=3 is no path and no name"),
        ({"pretrained": "nowhere"}, "nowhere: no such f"),
    ],
)
def test_words_that_say_no_weights_are_refused(hub: ModuleType, words: dict[str, Any], message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        hub.dinov2_vits14(**words)


def test_weights_of_another_architecture_name_the_entry_point_that_they_are_for(hub: ModuleType, weights: Path) -> None:
    with pytest.raises(WeightsError, match=r"not dinov2_vitb14_reg\. Open it with torch\.hub's dinov2_vits14\."):
        hub.dinov2_vitb14_reg(pretrained=weights)


@pytest.mark.parametrize("layers", [1, 4])
def test_a_public_head_sees_the_public_features(layers: int, hub: ModuleType, weights: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    head = torch.nn.Linear((1 + layers) * 384, 7)
    torch.save(head.state_dict(), tmp_path / "dinov2_vits14_linear_head.pth")
    classifier = hub.dinov2_vits14_lc(
        pretrained=weights, head=tmp_path / "dinov2_vits14_linear_head.pth", layers=layers
    ).eval()
    pictures = torch.randn(2, 3, 28, 42)
    vit = load_backbone(weights)
    if layers == 1:
        features = vit.forward_features(pictures)
        seen = [features["x_norm_clstoken"], features["x_norm_patchtokens"].mean(dim=1)]
    else:
        blocks = vit.get_intermediate_layers(pictures, n=4, return_class_token=True)
        seen = [*(cls for _, cls in blocks), blocks[3][0].mean(dim=1)]
    assert_close(classifier(pictures), head(torch.cat(seen, dim=1)))
    assert isinstance(classifier.backbone, DinoVisionTransformer)
    assert classifier.linear_head.out_features == 7
    assert classifier.classes == ()


def test_the_head_of_dinov2_eval_linear_gives_the_scores_of_its_evaluation(
    hub: ModuleType, weights: Path, tmp_path: Path
) -> None:
    films = sorted(write_pictures(tmp_path / "films").glob("*.png"))
    with (tmp_path / "films.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["image", "patient", "split", "Effusion", "Mass"])
        splits = ("train", "train", "val", "test")
        table.writerows([film, f"p{i}", splits[i % 4], i // 4 % 2, i // 8 % 2] for i, film in enumerate(films))
    words = "--size 28 --labels Effusion Mass --blocks 2 --pooled true --epochs 2 --learning-rates 0.1 --workers 0"
    evaluation = ["eval", "linear", "--backbone", str(weights), "--dataset", str(tmp_path / "films.csv")]
    assert main([*evaluation, *words.split(), "--output-dir", str(tmp_path / "linear")]) == 0

    classifier = hub.dinov2_vits14_lc(pretrained=weights, head=tmp_path / "linear" / "head.safetensors").eval()
    assert (classifier.layers, classifier.pooled, classifier.classes) == (2, True, ("Effusion", "Mass"))
    traits = open_backbone(str(weights)).traits
    preparation = preparation_for(traits, size=28, fit="crop")
    scores = scores_of_test(tmp_path / "linear" / "predictions.parquet")
    assert len(scores) == 6
    for film, expected in scores.items():
        grey = torch.from_numpy(preparation.picture(cv2.imread(film, cv2.IMREAD_GRAYSCALE))).float() / 255
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (traits.mean, traits.std))
        logits = classifier(((grey.expand(3, -1, -1) - mean) / std)[None])
        assert_close(logits.sigmoid()[0], torch.tensor(expected), atol=2e-3, rtol=0)


def scores_of_test(path: Path) -> dict[str, list[float]]:
    import pyarrow.parquet as pq

    rows = [row for row in pq.read_table(path).to_pylist() if row["split"] == "test"]
    return {row["id"]: [row["score:Effusion"], row["score:Mass"]] for row in rows}


@pytest.mark.parametrize(
    ("tensors", "words", "message"),
    [
        ({"weight": torch.zeros(3, 768), "bias": torch.zeros(3)}, {"layers": 4}, "sees 1 blocks, layers=4 was asked"),
        (
            {"weight": torch.zeros(3, 500), "bias": torch.zeros(3)},
            {},
            "a head on 500 features; a backbone of width 384",
        ),
        ({"weight": torch.zeros(3, 768)}, {}, "no linear head, which is a weight and a bias"),
    ],
)
def test_a_head_that_does_not_fit_is_refused(
    tensors: dict[str, torch.Tensor], words: dict[str, int], message: str, hub: ModuleType, tmp_path: Path
) -> None:
    torch.save(tensors, tmp_path / "head.pth")
    with pytest.raises(WeightsError, match=message):
        hub.dinov2_vits14_lc(pretrained=False, img_size=28, depth=4, head=tmp_path / "head.pth", **words)


def test_a_head_that_is_no_file_of_tensors_is_refused(hub: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "head.safetensors").write_text("text")
    for name in ("head.safetensors", "absent.pth"):
        with pytest.raises(WeightsError, match="cannot be read as a linear head"):
            hub.dinov2_vits14_lc(pretrained=False, img_size=28, depth=4, head=tmp_path / name)


def test_a_head_with_an_own_output_for_uncertain_names_each(hub: ModuleType, tmp_path: Path) -> None:
    said = {"input": "cls of 1 block", "classes": json.dumps(["Mass"])}
    save_file({"weight": torch.zeros(384, 3), "bias": torch.zeros(3)}, tmp_path / "head.safetensors", metadata=said)
    classifier = hub.dinov2_vits14_lc(pretrained=False, img_size=28, depth=4, head=tmp_path / "head.safetensors")
    assert classifier.classes == ("Mass: absent", "Mass: present", "Mass: uncertain")
    assert (classifier.layers, classifier.pooled) == (1, False)
    assert classifier(torch.zeros(2, 3, 28, 28)).shape == (2, 3)
