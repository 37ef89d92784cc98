import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dinov2.config.load import load_config
from dinov2.formats import Source
from dinov2.formats.model_card import About, render_model_card
from dinov2.formats.model_card_training import shown_name
from dinov2.formats.transformers_folder import write_transformers
from dinov2.manifest.table import from_rows
from dinov2.train.about import About as AboutRun
from dinov2.train.about import counts_of
from tests.formats.transformers_sources import film, small_source
from tests.integration.runs import TINY

SNIPPET = re.compile(r"```python\n(.*?)```", re.DOTALL)
ABOUT = About(
    title="small",
    network="teacher",
    origin="/home/somebody/secret/runs/first/checkpoints/7",
    licence="mit",
    dtype="float32",
    library="Dinov2Model",
    num_parameters=86_580_480,
    is_compatible_file=False,
    checks=("at 70 px: largest difference of the features 1.0e-06",),
)


@pytest.fixture
def known(tmp_path: Path) -> Source:
    """A source whose card knows what a run knows of itself."""
    file = tmp_path / "tiny.yaml"
    file.write_text(TINY)
    start = "student.pretrained_weights=/home/somebody/secret/weights/of/dinov2_vitb14.pth"
    config = load_config(file, overrides=[start]).config
    rows = [
        {"image": f"{i}.png", "dataset": "A|B" if i else "NIH", "view": "PA", "split": "train", "patient": f"p{i // 2}"}
        for i in range(5)
    ]
    hardware = {"devices": ["NVIDIA H200"], "world_size": 4}
    run = AboutRun({"data": counts_of(from_rows(rows, root=tmp_path)), "hardware": hardware}, seconds_before=5400.0)
    run.judged(6, {"knn_auroc": 0.8125, "rank": 17.0})
    provenance = run.plain() | {
        "config": asdict(config),
        "pictures_seen": 28,
        "global_batch": 4,
        "precision": "bf16",
        "dinov2": "0.1.0",
        "torch": "2.13.0",
        "selected_by": "knn_auroc",
        "select_mode": "max",
        "score": 0.8125,
    }
    source = small_source(provenance=provenance)
    return replace(source, card=replace(source.card, preprocessing={"short_side": 518, "window": "min-max"}))


def front_matter(text: str, folder: Path) -> dict[str, Any]:
    hub = pytest.importorskip("huggingface_hub")
    (folder / "card.md").write_text(text)
    found: dict[str, Any] = hub.ModelCard.load(folder / "card.md").data.to_dict()
    return found


def test_the_model_card_tells_what_the_run_knew(known: Source) -> None:
    text = render_model_card(known.card, about=ABOUT)
    for said in (
        "5 pictures of 4 patients",
        "| NIH | 1 |",
        "| PA | 5 |",
        "| train | 5 |",
        "| steps | 7 of 12 |",
        "| pictures seen | 28 (5.6 passes) |",
        "| pictures per step | 4 |",
        "| global crops | 2 of 32 px, 0.32 to 1 of the picture's area |",
        "| local crops | 2 of 16 px, 0.05 to 0.32 of the picture's area |",
        "| precision | bf16 |",
        "| hardware | NVIDIA H200; processes: 4 |",
        "| wall time | 1 h 30 min |",
        "monitors at step 6",
        "| knn_auroc | 0.8125 |",
        "| short_side | 518 |",
        "| chosen by | knn_auroc (max), 0.8125 |",
        "| weights | float32, of the teacher |",
        "| version of dinov2 | 0.1.0 |",
        "86.6 M parameters",
        "mit, as whoever exported this folder said",
        "- at 70 px: largest difference of the features 1.0e-06",
    ):
        assert said in text, said
    assert "Not recorded" not in text


def test_names_of_datasets_break_no_table_and_paths_of_the_machine_are_left_out(known: Source) -> None:
    text = render_model_card(known.card, about=ABOUT)
    assert "| A\\|B | 4 |" in text
    assert "somebody" not in text
    assert "weights/of/dinov2_vitb14.pth" in text


@pytest.mark.parametrize("provenance", [{}, {"config": {"student": {"arch": "vit_base"}}}, {"data": {"pictures": 3}}])
def test_a_card_that_knows_little_leaves_no_empty_table_and_says_what_is_not_known(provenance: dict[str, Any]) -> None:
    card = replace(small_source().card, step=0, provenance=provenance)
    text = render_model_card(card, about=ABOUT)
    assert not re.search(r"^\|---\|---\|\n(?!\|)", text, re.MULTILINE)
    assert not re.search(r"^#+ .*\n+(?=#|\Z)", text, re.MULTILINE)
    assert "the hardware, the time it took, scores" in text
    assert "None" not in text


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("/home/somebody/w.pth", "w.pth"),
        ("/scratch/somebody/runs/first/checkpoints/12", "first/checkpoints/12"),
        ("runs/first", "runs/first"),
        ("facebook/dinov2-base", "facebook/dinov2-base"),
    ],
)
def test_a_path_is_told_without_the_users_part(name: str, shown: str) -> None:
    assert shown_name(name) == shown


def test_where_nothing_is_known_of_the_training_nothing_is_invented() -> None:
    text = render_model_card(replace(small_source().card, step=0), about=ABOUT)
    assert "Nothing is recorded here of how it was trained" in text
    assert "chest" not in text.lower()
    assert "teacher" not in text
    assert "## Training" not in text


@pytest.mark.parametrize(
    ("licence", "wanted"),
    [
        ("", {"license": "unknown"}),
        ("cc-by-nc-4.0", {"license": "cc-by-nc-4.0"}),
        ("Terms of our hospital: ask", {"license": "other", "license_name": "Terms of our hospital: ask"}),
    ],
)
def test_the_hub_reads_the_first_lines(licence: str, wanted: dict[str, str], known: Source, tmp_path: Path) -> None:
    found = front_matter(render_model_card(known.card, about=replace(ABOUT, licence=licence)), tmp_path)
    assert found["library_name"] == "transformers"
    assert found["pipeline_tag"] == "image-feature-extraction"
    assert "chest-x-ray" in found["tags"]
    assert {key: value for key, value in found.items() if key.startswith("license")} == wanted


@pytest.mark.parametrize("heads", [(), ("dino_head",)])
@pytest.mark.parametrize("registers", [0, 2])
def test_every_snippet_runs_as_it_stands(
    heads: tuple[str, ...], registers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers")
    source = small_source(heads=heads, num_register_tokens=registers, interpolate_offset=0.0)
    write_transformers(source, tmp_path / "small", with_heads=bool(heads))
    film().save(tmp_path / "film.png")
    monkeypatch.chdir(tmp_path)
    snippets = SNIPPET.findall((tmp_path / "small" / "README.md").read_text())
    assert len(snippets) == 4 + bool(heads)
    found: dict[str, Any] = {}
    for snippet in snippets:
        assert "path/to/this/folder" in snippet
        names: dict[str, Any] = {}
        exec(snippet.replace("path/to/this/folder", "small"), names)
        if "AutoModel" in names:
            found["theirs"] = (names["cls"], names["patches"])
        elif "Encoder" in names:
            found["ours"] = (names["cls"], names["patches"].flatten(2).transpose(1, 2))
        elif "tokens" in names:
            listed = torch.tensor(names["tokens"])
            found["pipeline"] = (listed[:, 0], listed[:, 1 + registers :])
        elif "backbone" in names:
            assert torch.equal(names["backbone"].pos_embed, source.backbone.pos_embed)
    for cls, patches in found.values():
        torch.testing.assert_close(cls, found["ours"][0], atol=1e-5, rtol=0)
        torch.testing.assert_close(patches, found["ours"][1], atol=1e-5, rtol=0)
    assert len(found) == 3


def test_the_conversion_to_rgb_cuts_16_bit_values_off_as_the_card_warns() -> None:
    deep = Image.fromarray(np.array([[0, 200, 255, 300, 60_000]], dtype=np.uint16))
    assert np.asarray(deep.convert("RGB"))[0, :, 0].tolist() == [0, 200, 255, 255, 255]
    assert "cuts 16-bit values off" in render_model_card(small_source().card, about=ABOUT)
