import json
import math
import re
import shutil
from pathlib import Path

import pytest
import yaml

from dinov2.errors import ConfigError, LaunchError
from dinov2.report import write_report
from tests.report.runs import Page, small_run, write_lines


def report(*runs: Path, **words) -> Page:
    output = runs[0].parent / "page.html"
    write_report(runs, output=output, **words)
    return Page(output.read_text())


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return small_run(tmp_path / "run")


def test_a_page_holds_every_chapter_and_loads_nothing(run):
    page = report(run)
    for chapter in (
        "Losses and the teacher",
        "Probe scores",
        "Features",
        "Gradients",
        "Schedules",
        "Speed and machine",
    ):
        assert chapter in page.text
    assert not page.loads
    text = (run.parent / "page.html").read_text()
    assert not re.search(r"url\((?!data:image/)", text)
    assert "default-src 'none'" in text


def test_each_cross_entropy_stands_beside_ln_k(run):
    text = report(run).text
    assert text.count("ln 65,536") >= 4


def test_the_pictures_of_looks_are_there_by_film_and_step(run):
    page = report(run)
    for words in ("Patch tokens as colours", "Look by look", "Nearest neighbours", "step 15", "step 60"):
        assert words in page.text
    assert (run.parent / "page.html").read_text().count('class="s0-0-colours"') == 4 + 1  # side by side, and the newest


def test_fewer_films_are_shown_when_asked_for_and_none_at_0(run):
    assert "2 more films" in report(run, films=1).text
    assert "kept no pictures" in report(run, films=0).text


def test_names_of_films_that_may_say_something_of_a_patient_are_not_shown(run):
    from dataclasses import replace

    from dinov2.looks import read_films, write_films

    films = read_films(run)
    write_films(run, replace(films, image_ids=("SMITH_JOHN_1", *films.image_ids[1:])))
    page = report(run)
    assert "SMITH" not in (run.parent / "page.html").read_text()
    assert "film 1" in page.text


def test_what_a_run_says_is_text_and_never_markup(run):
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["train"]["dataset_path"] = "<script>alert(1)</script>"
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    (run / "logs/train.log").write_text("2026-01-01 00:00:00,000 WARNING <img src=x onerror=alert(2)>\n")
    page = report(run)
    assert "<script>alert(1)</script>" in page.text
    assert "<img src=x onerror=alert(2)>" in page.text
    assert not page.loads


def test_only_settings_that_differ_from_the_defaults_are_listed(run):
    text = report(run).text
    assert "2 settings differ from the defaults" in text
    assert "optim.total_steps" in text
    assert "optim.adamw_beta1" not in text


def test_a_teacher_at_ln_k_is_told_with_the_step_since_and_what_to_do(run):
    lines = [json.loads(line) for line in (run / "training_metrics.json").read_text().splitlines()]
    for line in lines:
        if "monitor/rankme" in line and line["step"] >= 30:
            line["monitor/teacher_entropy"] = math.log(65_536)
    write_lines(run / "training_metrics.json", lines)
    text = report(run).text
    assert "The teacher is at ln K: uniform" in text
    assert "since step 30." in text
    assert "Try fewer prototypes" in text


@pytest.mark.parametrize(("number", "wrong", "right"), [("mean_cosine", 0.99, 0.2), ("rankme", 1.6, 300.0)])
def test_an_alarm_that_is_over_is_told_as_such(run, number, wrong, right):
    lines = [json.loads(line) for line in (run / "training_metrics.json").read_text().splitlines()]
    for line in lines:
        if "monitor/rankme" in line:
            line[f"monitor/{number}"] = wrong if line["step"] < 60 else right
    write_lines(run / "training_metrics.json", lines)
    assert "from step 15 to 60, and no longer" in report(run).text


def test_a_run_that_was_never_looked_at_is_judged_by_what_it_logged(tmp_path):
    run = small_run(tmp_path / "run", num_looks=0, num_films=0)
    lines = [json.loads(line) for line in (run / "training_metrics.json").read_text().splitlines()]
    for line in lines:
        line["ibot_cross_entropy"] = math.log(65_536)
    write_lines(run / "training_metrics.json", lines)
    text = report(run).text
    assert "The loss ibot is at the value of a uniform answer" in text
    assert "The teacher was never looked at" in text


def test_skipped_steps_are_told_with_where_they_were(run):
    text = report(run).text
    assert "3 steps were skipped" in text
    assert "Skipped steps" in text


def test_several_runs_share_axes_and_show_the_settings_that_differ(tmp_path):
    first, second = small_run(tmp_path / "sweep/a"), small_run(tmp_path / "sweep/b", num_steps=30, seed=1)
    page = report(tmp_path / "sweep")
    assert "2 runs side by side" in page.text
    assert "Settings that differ" in page.text
    assert "optim.total_steps" in page.text
    assert all("a now" in chart and "b now" in chart for chart in page.charts)
    assert all("steps 0 to 60" in chart for chart in page.charts)
    assert {first.name, second.name} <= set(page.text.split())


def test_runs_of_one_name_are_told_apart_by_their_folders(tmp_path):
    page = report(small_run(tmp_path / "x/run"), small_run(tmp_path / "y/run"))
    assert "x/run" in page.text
    assert "y/run" in page.text


def test_a_run_of_an_older_version_is_shown_as_far_as_it_is_known(run):
    config = yaml.safe_load((run / "config.yaml").read_text())
    del config["monitors"], config["runtime"]
    config["train"]["forgotten"] = 3
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    shutil.rmtree(run / "looks")
    (run / "logs/timing.json").unlink()
    page = report(run)
    assert "written by another version" in page.text
    assert "not a setting of this version" in page.text
    assert "kept no pictures" in page.text


@pytest.mark.parametrize(
    "file", ["config.yaml", "training_metrics.json", "logs/timing.json", "looks/films.npz", "looks/60.npz"]
)
def test_a_damaged_file_costs_only_what_it_held(run, file):
    whole = (run / file).read_bytes()
    (run / file).write_bytes(whole[: len(whole) // 2])
    assert "run" in report(run).text
    (run / file).write_bytes(b"\xff\x00: [" + whole[:10])
    assert "run" in report(run).text


def test_a_run_without_a_step_says_so(tmp_path):
    run = tmp_path / "run"
    (run / "logs").mkdir(parents=True)
    (run / "training_metrics.json").write_text("")
    text = report(run).text
    assert "No step has been logged yet" in text


def test_numbers_that_are_not_known_here_are_drawn_all_the_same(run):
    write_lines(run / "training_metrics.json", [{"step": step, "novel/number": step**0.5} for step in range(1, 40)])
    assert any("novel/number" in chart for chart in report(run).charts)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(LaunchError, match="no run in it"):
        write_report([tmp_path], output=tmp_path / "page.html")


def test_a_page_that_cannot_be_written_is_one_message(run):
    with pytest.raises(ConfigError, match="cannot be written"):
        write_report([run], output=run / "config.yaml" / "page.html")
