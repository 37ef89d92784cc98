"""What a run knows of itself, and what the cards of its exports say of it."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from dinov2.backbone_card import read_card
from dinov2.checkpoint.export import card_of_run
from dinov2.checkpoint.from_checkpoint import load_teacher
from dinov2.checkpoint.reading import read_facts
from dinov2.cli import main
from dinov2.config.load import load_config
from dinov2.distributed import World
from dinov2.manifest import Manifest, from_rows, read
from dinov2.train.about import About, about_run, counts_of, preprocessing_of, without_patients
from tests.integration.in_process import finished
from tests.integration.runs import write_tiny_config

ALONE = World(rank=0, size=1, local_rank=0, device=torch.device("cpu"))
ROWS = (
    ("images/ab/ab1.png", "a", "1", "PA", "train"),
    ("images/ab/ab2.png", "a", "1", "AP", "train"),
    ("images/cd/cd1.png", "b", "1", None, "val"),
    ("images/cd/cd2.png", "b", None, None, "val"),
)


def manifest(root: Path, *, folders: tuple[str, ...] = ("",)) -> Manifest:
    names = ("image", "dataset", "patient", "view", "split")
    rows: list[dict[str, Any]] = [dict(zip(names, row, strict=True)) for row in ROWS]
    return from_rows([row | {"image": f"{folder}{row['image']}"} for folder in folders for row in rows], root=root)


def record(folder: Path, *, short_side: int = 518) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "preprocess.json").write_text(json.dumps({"format": 2, "settings": {"resample.short_side": short_side}}))


def test_pictures_are_counted_by_dataset_view_split_and_patient(tmp_path: Path) -> None:
    assert counts_of(manifest(tmp_path)) == {
        "pictures": 4,
        "by_dataset": {"a": 2, "b": 2},
        "by_view": {"(not said)": 2, "AP": 1, "PA": 1},
        "by_split": {"train": 2, "val": 2},
        "patients": 2,  # patient 1 of one dataset is not patient 1 of another
        "pictures_of_known_patients": 3,
    }
    assert counts_of(without_patients(manifest(tmp_path))).keys() == {"pictures", "by_dataset", "by_view", "by_split"}
    assert counts_of(from_rows([{"image": "a.png"}], root=tmp_path)) == {"pictures": 1}


def test_the_settings_are_those_of_the_record_beside_the_pictures(tmp_path: Path) -> None:
    record(tmp_path)
    assert preprocessing_of(manifest(tmp_path)) == ({"resample.short_side": 518}, "")


def test_several_conversions_count_where_their_settings_are_equal(tmp_path: Path) -> None:
    for name in ("one", "two"):
        record(tmp_path / name)
    both = manifest(tmp_path, folders=("one/", "two/"))
    assert preprocessing_of(both) == ({"resample.short_side": 518}, "")
    record(tmp_path / "two", short_side=1024)
    assert preprocessing_of(both) == ({}, "the pictures are of 2 conversions with different settings")


@pytest.mark.parametrize("text", [None, "no JSON", "{}", '{"settings": 3}'])
def test_without_a_record_nothing_is_claimed_and_a_note_says_why(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "preprocess.json").write_text(text)
    assert preprocessing_of(manifest(tmp_path)) == ({}, "no readable preprocess.json beside the pictures")


def test_pictures_of_other_makers_are_not_covered_by_a_record_beside_them(tmp_path: Path) -> None:
    record(tmp_path)
    strangers = from_rows([{"image": "images/ab/ab1.png"}, {"image": "mine.png"}], root=tmp_path)
    settings, note = preprocessing_of(strangers)
    assert settings == {}
    assert "not all pictures are those of a `dinov2 preprocess`" in note


def test_time_and_scores_go_on_where_a_checkpoint_was(tmp_path: Path) -> None:
    about = about_run(manifest(tmp_path), world=ALONE)
    assert set(about.plain()) == {"data", "hardware", "preprocessing", "preprocessing_note", "wall_seconds"}
    assert about.plain()["hardware"]["world_size"] == 1
    assert about.plain()["hardware"]["devices"][0]
    about.judged(500, {"linear/val/macro_auroc": 0.9, "monitor/rankme": float("nan")})
    facts = json.loads(json.dumps({"about": about.plain() | {"wall_seconds": 100.0}}))
    later = About({})
    later.continue_from(facts)
    assert later.plain()["wall_seconds"] >= 100
    assert later.plain()["scores"] == {"linear/val/macro_auroc": 0.9, "monitor/rankme": None}
    assert later.plain()["scores_step"] == 500
    old = About({})
    old.continue_from({"step": 3})
    assert old.plain()["wall_seconds"] < 100


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic films through the real preprocessing into a real run with monitors."""
    folder = tmp_path_factory.mktemp("films")
    assert (
        main(["phantom", "--output", str(folder / "dicom"), "--count", "6", "--seed", "1", "--short-side", "128"]) == 0
    )
    words = ["--input", str(folder / "dicom"), "--output", str(folder / "pictures"), "resample.short_side=64"]
    assert main(["preprocess", *words]) == 0
    overrides = [
        f"train.dataset_path={folder / 'pictures' / 'manifest.parquet'}",
        "optim.total_steps=4",
        "train.num_workers=0",
        "monitors.every_steps=2",
        "evaluation.eval_period_iterations=4",
        "checkpoint={self_test: false, select_by: monitor/rankme, every_steps: 2}",
    ]
    config = load_config(write_tiny_config(folder), overrides=overrides).config
    finished(config, folder / "run", stop_after=2)
    finished(config, folder / "run")
    return folder / "run"


def test_the_card_says_how_the_films_were_preprocessed_what_they_are_and_what_it_took(run: Path) -> None:
    card = read_card(run / "exports" / "4")
    made = json.loads((run.parent / "pictures" / "preprocess.json").read_text())
    assert card.preprocessing == made["settings"]
    told = card.provenance
    films = read(run.parent / "pictures" / "manifest.parquet")
    assert told["data"]["pictures"] == len(films)
    assert told["data"]["patients"] == len(set(films.table.column("patient").to_pylist()) - {None})
    assert told["pictures_seen"] == 16
    assert told["hardware"]["world_size"] == 1
    assert told["wall_seconds"] > 0
    assert told["scores_step"] == 4
    lines = [json.loads(line) for line in (run / "training_metrics.json").read_text().splitlines()]
    assert told["scores"] == {name: value for name, value in lines[-1].items() if "/" in name}
    assert not any("seconds" in name or name == "about" for line in lines for name in line)


def test_an_export_of_a_checkpoint_says_what_the_export_in_the_run_said(run: Path) -> None:
    during = asdict(read_card(run / "exports" / "4"))
    saved = load_teacher(run / "checkpoints" / "4")
    after = asdict(card_of_run(saved.config, saved.parts, facts=saved.facts))
    for card in (during, after):
        assert card["provenance"].pop("wall_seconds") > 0  # one is a moment later
    assert json.loads(json.dumps(after)) == json.loads(json.dumps(during))


def test_the_best_export_holds_the_scores_it_was_chosen_by(run: Path) -> None:
    card = read_card(run / "exports" / "best")
    assert card.provenance["scores_step"] == card.step
    assert card.provenance["scores"]["monitor/rankme"] == card.provenance["score"]


def test_a_checkpoint_of_an_older_version_gives_a_card_that_says_less(run: Path) -> None:
    saved = load_teacher(run / "checkpoints" / "4")
    facts = {name: value for name, value in read_facts(run / "checkpoints" / "4").items() if name != "about"}
    for name in ("freeze_backbone_steps", "head_lr_factor", "revision"):
        del facts["config"]["init_from"][name]
    card = card_of_run(saved.config, saved.parts, facts=facts)
    assert card.preprocessing == {}
    assert "data" not in card.provenance
    assert card.provenance["pictures_seen"] == 16


def test_a_card_of_an_older_version_is_read(run: Path, tmp_path: Path) -> None:
    values = json.loads((run / "exports" / "4" / "backbone_card.json").read_text())
    del values["preprocessing"]
    (tmp_path / "backbone_card.json").write_text(json.dumps(values))
    assert read_card(tmp_path).preprocessing == {}
