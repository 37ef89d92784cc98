"""The real command with monitors: nothing it computes changes, and the best teacher is kept and exported."""

import csv
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dinov2 import load_backbone
from dinov2.backbone_card import read_card
from dinov2.checkpoint.reading import read_facts, steps_in
from dinov2.looks import neighbour_picture, read_films, read_looks
from dinov2.train.selection import logged_names

from .launches import launch, send
from .runs import command, finish, finish_together, metrics, train_words, write_tiny_config

# A score that is bound to rise and to fall, on any processor. Nothing learns here (a rate of 1e-18): the one thing that
# moves is the patch map, which weight decay makes smaller from step to step, by cos(pi step / 16), and so by exactly 0
# after the eighth. What a film shows is its brightness. At first the map outweighs its bias, and a norm right behind it
# takes the brightness away; then both weigh the same, and any probe sees it; then no film is seen at all.
RISE_AND_FALL = """
student: {arch: vit_custom, patch_size: 8, embed_dim: 32, depth: 2, num_heads: 2, drop_path_rate: 0.0}
crops: {global_crops_size: 32, local_crops_size: 16, local_crops_number: 2}
dino: {head_n_prototypes: 64, head_hidden_dim: 32, head_bottleneck_dim: 16}
train: {centering: sinkhorn_knopp, batch_size_per_gpu: 4, num_workers: 0}
optim: {total_steps: 16, warmup_steps: 0, freeze_last_layer_steps: 0, lr: 1.0e-18, min_lr: 1.0e-18, weight_decay: 0,
        weight_decay_end: 2.0e+15, layerwise_decay: 1.0, patch_embed_lr_mult: 1000}
teacher: {warmup_teacher_temp_steps: 4, momentum_teacher: 0, final_momentum_teacher: 0}
data: {mean: [0, 0, 0], std: [0.06, 0.06, 0.06]}
checkpoint: {every_steps: 20, keep_last: 1, self_test: false, select_by: linear/val/macro_auroc}
monitors: {every_steps: 4, labels: [bright]}
logging: {every_steps: 6}
evaluation: {eval_period_iterations: 0}
runtime: {precision: fp32, device: cpu}
"""
SCORE = "linear/val/macro_auroc"
JUDGED = ("monitors.every_steps=2", "monitors.labels=[bright]", "checkpoint.select_by=monitor/rankme")
# Of a run that does learn; nothing in it depends on the number of processes.
LEARNING = (
    "dino.koleo_loss_weight=0", "student.drop_path_rate=0", "optim.total_steps=4", "train.num_workers=0",
    "checkpoint.self_test=false",
)  # fmt: skip


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of noise, bright or dark, that grows with its brightness; half of it for validation."""
    folder, rng = tmp_path_factory.mktemp("films"), np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for i in range(96):
        picture = (60, 90)[i % 2] * rng.uniform(0.95, 1.05) * (1 + rng.normal(0, 0.4, (64, 64)))
        cv2.imwrite(str(folder / f"{i:02d}.png"), np.clip(picture, 0, 255).astype(np.uint8))
        split = "train" if i < 48 else "val"
        rows.append({"image": f"{i:02d}.png", "patient": f"p{i}", "split": split, "bright": i % 2})
    with (folder / "films.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder / "films.csv"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "rise_and_fall.yaml"
    path.write_text(RISE_AND_FALL)
    return path


@pytest.fixture(scope="module")
def judged(config: Path, films: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with monitors, of which nothing was interrupted."""
    run = tmp_path_factory.mktemp("judged") / "run"
    finish(command(*train_words(config, films, run, f"monitors.dataset={films}")))
    return run


@pytest.fixture(scope="module")
def learning(films: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A configuration whose weights learn, and a run of it with monitors."""
    folder = tmp_path_factory.mktemp("learning")
    config, words = write_tiny_config(folder), (*LEARNING, *JUDGED, f"monitors.dataset={films}")
    finish(command(*train_words(config, films, folder / "run", *words, "train.batch_size_per_gpu=8")))
    return config, folder / "run"


def test_the_best_teacher_of_a_run_that_rises_and_falls_is_the_one_in_the_middle(judged: Path) -> None:
    scores = {line["step"]: line[SCORE] for line in metrics(judged) if SCORE in line}
    assert list(scores) == [4, 8, 12, 16]
    best = max(scores, key=lambda step: (scores[step], step))
    assert best == 8
    assert scores[best] > max(scores[4], scores[12], scores[16]) + 0.03, "it rises, and it falls"
    card = read_card(judged / "exports" / "best")
    assert card.step == best
    assert card.provenance["score"] == scores[best]
    assert card.provenance["selected_by"] == SCORE
    assert (judged / "checkpoints" / "best").read_text().strip() == str(best)
    assert read_facts(judged / "checkpoints" / str(best))["score"] == scores[best]
    assert steps_in(judged / "checkpoints") == [best, 16], "the best, and the last"
    load_backbone(judged / "exports" / "best")


def test_every_look_stands_in_the_metrics_and_its_seconds_among_the_timings(judged: Path) -> None:
    lines = {line["step"]: line for line in metrics(judged)}
    assert sorted(lines) == [4, 6, 8, 12, 16]
    names = {name for name in lines[4] if "/" in name}
    assert names == {
        *(f"{probe}/val/{name}" for probe in ("knn", "linear") for name in ("macro_auroc", "auroc/bright")),
        *(f"monitor/{name}" for name in ("rankme", "effective_dimension", "mean_cosine", "patch_smoothness")),
        *(f"monitor/{name}" for name in ("teacher_entropy", "teacher_marginal_entropy", "prototype_usage")),
    }
    assert not any("/" in name for name in lines[6])
    timing = {
        line["step"]: line for line in map(json.loads, (judged / "logs" / "timing.json").read_text().splitlines())
    }
    assert timing[4]["monitor_seconds"] > 0
    assert "monitor_seconds" not in timing[6]
    log = (judged / "logs" / "train.log").read_text()
    assert "step 4: knn AUROC " in log
    assert " % of the time since the last" in log


def test_every_look_keeps_films_of_validation_for_people_to_see(judged: Path) -> None:
    films, looks = read_films(judged), read_looks(judged)
    assert [look.step for look in looks] == [4, 8, 12, 16]
    assert len(films) == 12
    assert (films.rows >= 48).all(), "val follows train"
    assert len(films.monitored_ids) == 96
    assert films.monitored_labels.count("bright") == 48
    assert films.thumbnails.shape == (12, 32, 32)
    for look in looks:
        assert look.colours.shape == (12, *look.grid, 3) == (12, 4, 4, 3)
        assert np.array_equal(look.masks, looks[0].masks)
        assert look.masks.any(axis=(1, 2)).sum() >= 10, "of 16 patches a small share may be none"
        assert not look.agreement[~look.masks].any()
        assert not (look.neighbours == films.rows[:, None]).any(), "no film is its own neighbour"
        assert (np.diff(look.similarity, axis=1) <= 0).all()
        for row in look.neighbours.flat:
            assert neighbour_picture(judged, int(row)).is_file()
    assert not list((judged / "looks").rglob(".*"))


def test_the_names_that_a_score_may_have_are_those_of_a_real_line(judged: Path) -> None:
    from dinov2.config.load import load_config

    config = load_config(judged / "config.yaml").config
    line = next(line for line in metrics(judged) if line["step"] == 6)
    assert set(logged_names(config)) == set(line) - {"step"}


def test_a_run_that_is_judged_ends_in_the_same_weights_to_the_bit(
    learning: tuple[Path, Path], films: Path, tmp_path: Path
) -> None:
    config, judged = learning
    run = tmp_path / "run"
    finish(command(*train_words(config, films, run, *LEARNING, "train.batch_size_per_gpu=8")))
    for name in ("backbone", "dino_head"):
        file = f"exports/4/{name}.safetensors"
        assert (run / file).read_bytes() == (judged / file).read_bytes()
    assert (judged / "looks").is_dir()
    assert not (run / "looks").exists()
    ours, theirs = ({line["step"]: line["total_loss"] for line in metrics(one)} for one in (run, judged))
    assert ours == theirs
    assert len(set(ours.values())) == 4, "it learns"


def test_a_run_that_was_killed_after_a_best_export_ends_as_if_nothing_had_happened(
    judged: Path, config: Path, films: Path, tmp_path: Path
) -> None:
    run, words = tmp_path / "run", command(*train_words(config, films, tmp_path / "run", f"monitors.dataset={films}"))
    started = launch(words, size=1, folder=tmp_path / "logs")
    while not (run / "exports" / "best").is_dir():
        assert started.wait(seconds=0.02) is None, started.complained
    send(started.process.pid, 9)
    started.wait(seconds=60)
    assert started.leftovers(seconds=20) == []
    finish(words)
    assert (run / "training_metrics.json").read_bytes() == (judged / "training_metrics.json").read_bytes()
    ours, theirs = ({file.name: file.read_bytes() for file in (one / "looks").glob("*.npz")} for one in (run, judged))
    assert ours == theirs
    for folder in ("16", "best"):
        file = f"exports/{folder}/backbone.safetensors"
        assert (run / file).read_bytes() == (judged / file).read_bytes()
    assert read_card(run / "exports" / "best").step == read_card(judged / "exports" / "best").step


def test_two_processes_judge_as_one_does(learning: tuple[Path, Path], films: Path, tmp_path: Path) -> None:
    config, alone = learning
    run = tmp_path / "run"
    finish_together(2, command(*train_words(config, films, run, *LEARNING, *JUDGED, f"monitors.dataset={films}")))
    for one, two in zip(metrics(alone), metrics(run), strict=True):
        assert one.keys() == two.keys()
        for name in (name for name in one if name.startswith("monitor/")):
            assert two[name] == pytest.approx(one[name], rel=2e-3, abs=1e-4), (one["step"], name)
        for name in (name for name in one if name.startswith(("knn/", "linear/"))):
            assert two[name] == pytest.approx(one[name], abs=0.05), (one["step"], name)
    assert read_films(alone).image_ids == read_films(run).image_ids
    for one_look, two_look in zip(read_looks(alone), read_looks(run), strict=True):
        assert np.array_equal(one_look.masks, two_look.masks)
        assert np.abs(one_look.colours.astype(int) - two_look.colours).mean() < 3
        assert np.abs(one_look.attention.astype(int) - two_look.attention).mean() < 3
        assert np.abs(one_look.agreement.astype(int) - two_look.agreement).max() <= 3
        np.testing.assert_allclose(one_look.similarity, two_look.similarity, atol=2e-3)
    cards = [read_card(one / "exports" / "best") for one in (alone, run)]
    assert cards[0].step == cards[1].step


def test_a_misspelt_score_is_refused_before_the_first_step(config: Path, films: Path, tmp_path: Path) -> None:
    words = (f"monitors.dataset={films}", "checkpoint.select_by=linear/val/macro_aurock")
    done = finish(command(*train_words(config, films, tmp_path / "run", *words)), code=2)
    assert "linear/val/macro_aurock: training_metrics.json will have no such number" in done.stderr
    assert "linear/val/macro_auroc, linear/val/auroc/bright" in done.stderr
    assert not (tmp_path / "run" / "training_metrics.json").exists()
