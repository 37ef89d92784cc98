import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from dinov2.backbone_card import BackboneCard
from dinov2.errors import ConfigError, LaunchError
from dinov2.report import settle, write_report
from dinov2.train.run_folder import open_run_folder
from tests.report.runs import Page, small_run, write_lines


def report(*runs: Path, **words) -> Page:
    output = runs[0].parent / "page.html"
    write_report(runs, output=output, **words)
    return Page(read(output))


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def chart(page: Path, title: str) -> str:
    """The drawing with this title."""
    found = re.search(rf'<figure class="chart"[^>]*><figcaption><h3>{title}<.*?</figure>', read(page), re.DOTALL)
    assert found is not None
    return found[0]


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


def test_a_run_that_is_named_twice_is_shown_once(run):
    assert "side by side" not in report(run, run.parent, run / ".." / run.name).text


def test_a_file_in_place_of_a_folder_is_told_which_folder_to_give(run):
    with pytest.raises(LaunchError, match=f"Give the folder of the run: {re.escape(str(run))}"):
        write_report([run / "config.yaml"], output=run.parent / "page.html")


def test_alarms_with_the_same_advice_stand_together_and_say_it_once(run):
    lines = [json.loads(line) for line in (run / "training_metrics.json").read_text().splitlines()]
    write_lines(
        run / "training_metrics.json",
        [line | {f"dino_{crops}_cross_entropy": math.log(65_536) for crops in ("global", "local")} for line in lines],
    )
    text = report(run).text
    assert "The loss dino_global is at the value" in text
    assert "The loss dino_local is at the value" in text
    assert text.count("Nothing is learnt from it") == 1


def test_nothing_is_called_well_before_as_many_looks_as_an_alarm_takes(tmp_path):
    run = small_run(tmp_path / "run", num_looks=1)
    lines = [json.loads(line) for line in (run / "training_metrics.json").read_text().splitlines()]
    write_lines(run / "training_metrics.json", [line | {"nonfinite_steps": 0} for line in lines])
    text = report(run).text
    assert "Too early to say that all is well: it takes 2 looks" in text
    assert "No alarm holds" not in text


def test_scores_that_are_near_it_stand_beside_chance(run):
    lines = [json.loads(line) for line in (run / "training_metrics.json").read_text().splitlines()]
    assert "chance" not in report(run).text  # between 0.7 and 0.9 it would be far below
    for line in lines:
        if "knn/val/macro_auroc" in line:
            line["knn/val/macro_auroc"] = 0.5 + line["step"] / 200
    write_lines(run / "training_metrics.json", lines)
    assert "chance" in report(run).text


def test_the_chosen_checkpoint_is_marked_where_it_was_chosen(run):
    (run / "exports/best").mkdir(parents=True)
    BackboneCard(
        arch="vit_large", architecture={}, resolution_px=224, in_chans=3, mean=(0.5,), std=(0.5,), step=30,
        provenance={"selected_by": "knn/val/macro_auroc", "select_mode": "max", "score": 0.8},
    ).write(run / "exports/best")  # fmt: skip
    page = report(run)
    assert "best 30" in page.text
    assert "best kNN AUROC, step 30" in page.text
    assert '"marked"' not in chart(run.parent / "page.html", "Learning rate")
    assert '"marked"' in chart(run.parent / "page.html", "kNN, macro AUROC")


def test_of_several_runs_each_small_chart_has_its_own_level(tmp_path):
    first, second = small_run(tmp_path / "sweep/a"), small_run(tmp_path / "sweep/b", seed=1)
    config = yaml.safe_load((second / "config.yaml").read_text())
    config["dino"]["head_n_prototypes"] = 1024
    (second / "config.yaml").write_text(yaml.safe_dump(config))
    report(first.parent)
    figures = read(tmp_path / "page.html").split("<figure>")[1:]
    rows = [one.partition("</svg>")[0] for one in figures if 'aria-label="iBOT, hidden patches"' in one]
    assert [re.findall(r"ln [\d,]+", row) for row in rows] == [["ln 65,536"], ["ln 1,024"]]


def test_a_page_of_a_running_training_loads_itself_until_it_is_settled(run):
    output = run.parent / "page.html"
    with open_run_folder(run, is_main=True):
        report(run, refresh_seconds=5.0)
        assert '<meta http-equiv="refresh" content="5">' in read(output)
    settle(output)
    assert '<meta http-equiv="refresh"' not in read(output)
    assert read(output).rstrip().endswith("</html>")
    report(run, refresh_seconds=5.0)  # the run is over
    assert '<meta http-equiv="refresh"' not in read(output)


def test_a_run_that_was_not_looked_at_yet_says_when_it_will_be(tmp_path):
    run = small_run(tmp_path / "run", num_looks=1, num_films=0)
    lines = (run / "training_metrics.json").read_text().splitlines(keepends=True)
    (run / "training_metrics.json").write_text("".join(lines[:20]))
    with open_run_folder(run, is_main=True):
        assert "The first look at the films comes at step 60" in report(run).text
