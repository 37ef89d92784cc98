"""Real trainings with TensorBoard, W&B (offline) and MLflow (a folder), read back from what they keep."""

import json
import struct
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import wandb

from dinov2.config.load import load_config
from dinov2.config.schema import Config
from dinov2.train.events import Message, StepReport
from dinov2.train.loggers import loggers, weights_and_biases

from .equality import differences
from .in_process import events_of, finished
from .runs import command, finish_together, metrics, train_words, write_pictures, write_tiny_config

ALL = "logging.loggers=[tensorboard,wandb,mlflow]"
BLOCK = 2**15
LOSS, RANK, SPEED = "train/total_loss", "monitor/rankme", "system/pictures_per_second"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("loggers")
    write_pictures(folder / "pictures")
    write_tiny_config(folder)
    return folder


def tiny(folder: Path, *overrides: str) -> Config:
    words = (f"train.dataset_path={folder / 'pictures'}", "train.num_workers=0", "monitors.every_steps=4")
    quick = ("checkpoint.self_test=false", "checkpoint.every_steps=4")
    return load_config(folder / "tiny.yaml", overrides=[*words, *quick, *overrides]).config


@pytest.fixture(scope="module")
def runs(folder: Path) -> tuple[Path, Path]:
    """A run without loggers, and one with all of them that broke down after step 6 and went on from step 4."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        patch.setattr(weights_and_biases, "START_SECONDS", 120.0)  # on a machine that has much else to do
        patch.setattr(loggers, "CLOSING_SECONDS", 120.0)
        finished(tiny(folder), folder / "plain")
        watched = tiny(folder, ALL, "logging.pictures=everywhere", "logging.project=films")
        with closing(events_of(watched, folder / "watched")) as events:  # type: ignore[type-var]
            for event in events:
                if isinstance(event, StepReport) and event.step == 6:
                    break
        words, reports = finished(watched, folder / "watched")
        assert "continuing from" in words
        assert [report.step for report in reports] == list(range(5, 13))
        assert "logger " not in words, words
    return folder / "plain", folder / "watched"


def test_a_watched_run_ends_in_the_same_bytes(runs: tuple[Path, Path]):
    plain, watched = runs
    assert differences(watched, plain, exactly=True) == []


def test_tensorboard_shows_every_step_once(runs: tuple[Path, Path]):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shown = EventAccumulator(str(runs[1] / "logs" / "tensorboard"), size_guidance={"images": 0, "tensors": 0})
    shown.Reload()
    written = metrics(runs[1])
    losses = shown.Scalars(LOSS)
    assert [point.step for point in losses] == list(range(1, 13))
    assert [point.value for point in losses] == pytest.approx([line["total_loss"] for line in written], rel=1e-6)
    assert [point.step for point in shown.Scalars(RANK)] == [4, 8, 12]
    assert len(shown.Scalars(SPEED)) == 12
    assert [image.step for image in shown.Images("crops")] == [1]
    assert [image.step for image in shown.Images("look")] == [4, 8, 12]
    configuration = shown.Tensors("configuration/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "| dino.head_n_prototypes | 64 |" in configuration
    assert any(point.step == 8 for point in shown.Tensors("warnings/text_summary"))


def test_weights_and_biases_keep_one_run_and_every_step_once(runs: tuple[Path, Path]):
    folder = runs[1] / "logs" / "wandb"
    records = offline_records(folder)
    names = {record.run.run_id for record in records if record.HasField("run")}
    assert names == {json.loads((runs[1] / "logs" / "wandb.json").read_text())["run_id"]}
    # One folder a process: nothing of it says that the run goes on but its id, and that it may be resumed.
    assert len(list(folder.glob("offline-run-*"))) == sum(record.HasField("run") for record in records) == 2
    assert all(record.run.resume for record in records if record.HasField("run"))
    history = [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for record in records
        if record.HasField("history")
    ]
    losses = {row["_step"]: row[LOSS] for row in history if LOSS in row}
    assert [row["_step"] for row in history if LOSS in row] == list(range(1, 13))
    assert list(losses.values()) == [line["total_loss"] for line in metrics(runs[1])]
    assert [row["_step"] for row in history if "look/path" in row] == [4, 8, 12]
    run = next(record.run for record in records if record.HasField("run"))
    assert (run.project, run.display_name) == ("films", "watched")
    settings = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert settings["dino.head_n_prototypes"] == "64"
    assert any(record.HasField("alert") for record in records)
    assert run.host == "dinov2"
    sent = {path.name for path in folder.rglob("files/**/*") if path.is_file() and path.suffix != ".png"}
    assert sent == set()  # no list of packages, no code, no screen


def test_mlflow_keeps_one_run_and_every_step_once(runs: tuple[Path, Path]):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=(runs[1] / "logs" / "mlflow").as_uri())
    experiment = client.get_experiment_by_name("films")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    points = client.get_metric_history(run.info.run_id, LOSS)
    assert [(point.step, point.value) for point in points] == [
        (line["step"], line["total_loss"]) for line in metrics(runs[1])
    ]
    assert (run.info.status, run.info.run_name) == ("FINISHED", "watched")
    assert run.data.params["dino.head_n_prototypes"] == "64"
    pictures = [file.path for file in client.list_artifacts(run.info.run_id, "images") if file.path.endswith(".png")]
    assert sorted(Path(name).name.split("+timestamp")[0] for name in pictures) == [
        "crops+step+1",
        "look+step+12",
        "look+step+4",
        "look+step+8",
    ]
    assert client.list_artifacts(run.info.run_id, "warnings")


def test_pictures_of_films_stay_here_unless_they_are_asked_for_everywhere(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("WANDB_MODE", "offline")
    config = tiny(folder, "logging.loggers=[tensorboard,wandb]", "optim.total_steps=4", "optim.warmup_steps=1")
    finished(config, folder / "private")
    assert list((folder / "private" / "logs" / "wandb").rglob("*.png")) == []
    kept = b"".join(path.read_bytes() for path in (folder / "private" / "logs" / "tensorboard").iterdir())
    assert b"\x89PNG" in kept


def test_servers_that_are_away_and_a_place_that_cannot_be_written_are_told_and_change_nothing(
    folder: Path, runs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
):
    run = folder / "alone"
    (run / "logs").mkdir(parents=True)
    (run / "logs" / "tensorboard").write_text("a file where a folder should be")
    dead = "http://127.0.0.1:9"  # the port "discard", where nothing listens
    monkeypatch.setattr(weights_and_biases, "START_SECONDS", 1.0)
    for name, value in {"WANDB_BASE_URL": dead, "WANDB_API_KEY": "0" * 40}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    wandb.teardown()  # else it keeps what it read from the environment in the runs before
    events = list(events_of(tiny(folder, ALL, f"logging.tracking_uri={dead}"), run))
    warned = [event.text for event in events if isinstance(event, Message) and event.text.startswith("logger ")]
    for name in ("tensorboard", "wandb", "mlflow"):
        of_it = [text for text in warned if text.startswith(f"logger {name}:")]
        assert 1 <= len(of_it) <= 2, of_it
        assert "the run is over" in of_it[-1]
        assert "have not reached it" in of_it[-1]
    plain = runs[0]
    assert (run / "training_metrics.json").read_bytes() == (plain / "training_metrics.json").read_bytes()
    weights = "exports/12/backbone.safetensors"
    assert (run / weights).read_bytes() == (plain / weights).read_bytes()


def test_of_two_processes_one_logs(folder: Path):
    run = folder / "two"
    words = train_words(
        folder / "tiny.yaml", folder / "pictures", run, "logging.loggers=[tensorboard]", "optim.total_steps=3",
        "optim.warmup_steps=1", "checkpoint.self_test=false",
    )  # fmt: skip
    finish_together(2, command(*words))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert len(list((run / "logs" / "tensorboard").iterdir())) == 1
    shown = EventAccumulator(str(run / "logs" / "tensorboard"))
    shown.Reload()
    assert [point.step for point in shown.Scalars(LOSS)] == [1, 2, 3]
    timing = [json.loads(line) for line in (run / "logs" / "timing.json").read_text().splitlines()]
    assert all({"memory_gib", "cpu_share", "matrix_share"} <= line.keys() for line in timing)
    assert not any("memory_gib" in line for line in metrics(run))


def offline_records(folder: Path) -> list[Any]:
    """All records of a run's offline files, in the order in which its processes wrote them.

    wandb has no reader in Python. A file is 7 bytes of its own, then a log of LevelDB in blocks of 32 KiB: of every
    part a checksum, its length, and whether it is whole (1), the first (2), in the middle (3) or the last (4).
    """
    from wandb.proto import wandb_internal_pb2

    records = []
    for path in sorted(folder.glob("offline-run-*/run-*.wandb"), key=lambda path: path.stat().st_mtime_ns):
        content, place, parts = path.read_bytes(), 7, b""
        while place + 7 <= len(content):
            if (left := BLOCK - place % BLOCK) < 7:
                place += left
                continue
            _, length, kind = struct.unpack_from("<IHB", content, place)
            parts += content[place + 7 : place + 7 + length]
            place += 7 + length
            if kind in (1, 4):
                record = wandb_internal_pb2.Record()
                record.ParseFromString(parts)
                records.append(record)
                parts = b""
    return records
