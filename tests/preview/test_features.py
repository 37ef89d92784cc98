import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from dinov2.encoder import Encoder
from dinov2.errors import ConfigError, ManifestError, WeightsError
from dinov2.eval.backbones import open_backbone
from dinov2.eval.pictures import preparation_for
from dinov2.preview import FeatureMaps, choose_rows, feature_maps, feature_page, feature_sheet
from dinov2.preview.reduction import codes_of
from tests.encoder.made import SIZE, write_export

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_export(tmp_path_factory.mktemp("weights") / "export")


def maps_of(export: Path, manifest: object, rows: list[int], *, size: int | None = None) -> FeatureMaps:
    backbone = open_backbone(str(export))
    preparation = preparation_for(backbone.traits, size=size, fit="crop")
    return feature_maps(backbone, manifest, rows, preparation=preparation, device="cpu")


@pytest.fixture(scope="module")
def maps(export: Path, manifest: object) -> FeatureMaps:
    return maps_of(export, manifest, [0, 2, 3])


@pytest.fixture(scope="module")
def page(maps: FeatureMaps, export: Path) -> str:
    return feature_page(maps, traits=open_backbone(str(export)).traits, title="Features", command="a command")


def test_tokens_and_attention_are_those_of_the_encoder(export, maps):
    encoder = Encoder.from_pretrained(export)
    squares = list(maps.squares)
    patches = encoder.extract_patch_tokens(squares).flatten(2).transpose(1, 2)
    assert np.allclose(maps.tokens, patches.numpy(), atol=1e-4)
    assert np.allclose(maps.attention, encoder.attention_maps(squares).flatten(2).numpy(), atol=1e-5)
    assert maps.grid == (SIZE // 14, SIZE // 14)


def test_films_are_chosen_by_lot_or_by_name(manifest):
    rows = choose_rows(manifest, films=3, seed=0)
    assert rows == choose_rows(manifest, films=3, seed=0) == sorted(set(rows))
    assert choose_rows(manifest, films=99, seed=0) == list(range(6))
    ids = [str(name) for name in manifest.table.column("image_id").to_pylist()]
    assert choose_rows(manifest, films=3, seed=0, image_ids=[ids[4], ids[1], ids[4]]) == [4, 1]
    with pytest.raises(ManifestError, match=r"--image-ids nobody: no picture of this name among 6"):
        choose_rows(manifest, films=3, seed=0, image_ids=["nobody"])


def test_another_size_gives_another_grid(export, manifest):
    assert maps_of(export, manifest, [0], size=98).grid == (7, 7)


def test_a_backbone_without_patch_tokens_is_refused(export, manifest, monkeypatch):
    backbone = open_backbone(str(export))
    layers = backbone.layers

    def without(pictures: torch.Tensor, n: int) -> list:
        return [type(one)(cls=one.cls, patches=None, grid=None) for one in layers(pictures, n)]

    monkeypatch.setattr(backbone, "layers", without)
    preparation = preparation_for(backbone.traits, size=None, fit="crop")
    with pytest.raises(ConfigError, match="has no patch tokens to show"):
        feature_maps(backbone, manifest, [0], preparation=preparation, device="cpu")


def test_features_that_are_not_finite_are_told(export, manifest):
    backbone = open_backbone(str(export))
    with torch.no_grad():
        backbone.vit.norm.weight[0] = float("nan")
    preparation = preparation_for(backbone.traits, size=None, fit="crop")
    with pytest.raises(WeightsError, match="are not finite"):
        feature_maps(backbone, manifest, [0], preparation=preparation, device="cpu")


def test_a_page_holds_what_it_shows_and_runs_its_own_script_alone(page, maps):
    assert re.search(r"script-src 'sha256-[A-Za-z0-9+/]+=*'; style-src", page)
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", page)
    assert page.count("data-film=") == 3
    assert page.count('<section class="panel">') == 3
    assert page.count("attention of head") == 3 * 2
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])
    assert data["films"] == 3
    assert data["names"] == list(maps.names)


def test_a_backbone_without_attention_says_so(maps, export):
    blind = FeatureMaps(names=maps.names, squares=maps.squares, grid=maps.grid, tokens=maps.tokens, attention=None)
    traits = open_backbone(str(export)).traits
    text = feature_page(blind, traits=traits, title="Features", command="a command")
    assert "Attention is read from vision transformers that this package can hold" in text
    assert "attention of head" not in text
    assert feature_sheet(blind, title="a title").shape[1] < feature_sheet(maps, title="a title").shape[1]


def test_the_picture_has_a_row_a_film(maps, export, manifest):
    three, one = feature_sheet(maps, title="a title"), feature_sheet(maps_of(export, manifest, [0]), title="a title")
    assert three.shape[1] == one.shape[1]
    assert three.shape[0] > 2.5 * one.shape[0]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")
@pytest.mark.parametrize("centred", [False, True])
def test_a_browser_shows_the_similarities_of_the_tokens(page, maps, tmp_path, centred):
    file = tmp_path / "page.html"
    file.write_text(page)
    film, patch = 1, 7
    address = f"{file.as_uri()}#film={film + 1}&patch={patch + 1}{'&centred=1' if centred else ''}"
    dom = subprocess.run(
        [
            str(CHROMIUM),
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--dump-dom",
            address,
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    shown = [float(number) for number in re.findall(r'class="best">(?:next )?best (-?[\d.]+):', dom)]
    expected = codes_of(maps.tokens).similarity(film, patch, centred=centred)
    expected[film, patch] = -np.inf
    assert np.allclose(shown, expected.max(axis=1), atol=1e-3)
    assert f"Chosen: {maps.names[film]}, row 2, column 3" in dom
