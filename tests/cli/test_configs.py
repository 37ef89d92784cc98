import json

import pytest

from dinov2.cli import main
from dinov2.cli.configs import shipped_recipes
from dinov2.config.load import load_config, load_typed
from dinov2.config.preprocess import PreprocessConfig
from dinov2.config.presets import configs_dir, shipped_configs


def told(capsys, *words) -> str:
    assert main(["configs", *map(str, words)]) == 0
    return capsys.readouterr().out


def refusal(capsys, *words) -> str:
    assert main(["configs", *map(str, words)]) == 2
    return capsys.readouterr().err


def test_ls_names_every_shipped_file_with_a_line_about_it(capsys):
    listed = {entry["kind"] + "/" + entry["name"]: entry for entry in json.loads(told(capsys, "ls", "--json"))}
    assert {name.removeprefix("/") for name in listed} == set(shipped_configs())
    assert all(entry["about"] for entry in listed.values())
    assert "cpu_smoke" in told(capsys, "ls")


def test_every_recipe_of_a_training_or_conversion_says_whether_it_was_run():
    recipes = [recipe for recipe in shipped_recipes() if recipe.kind in ("train", "preprocess")]
    assert {recipe.name for recipe in recipes if not recipe.status} == set()
    by_name = {recipe.name: recipe.status for recipe in recipes}
    assert (by_name["cpu_smoke"], by_name["vitb14_cxr"]) == ("run", "not yet run")


def test_show_says_where_each_value_is_from(capsys):
    rows = json.loads(told(capsys, "show", "cpu_smoke", "--json", "optim.total_steps=70"))
    assert rows["optim.total_steps"] == {"value": 70, "from": "override"}
    assert rows["optim.clip_grad"] == {"value": 3.0, "from": "default"}
    place = rows["student.arch"]["from"]
    file, _, line = place.partition(":")
    written = (configs_dir() / "train" / file).read_text().splitlines()[int(line) - 1]
    assert written.strip() == f"arch: {rows['student.arch']['value']}"


def test_show_gives_the_very_values_that_a_training_uses(capsys):
    rows = json.loads(told(capsys, "show", "vitb14_cxr", "--json"))
    config = load_config(configs_dir() / "train" / "vitb14_cxr.yaml").config
    assert rows["data.mean"]["value"] == list(config.data.mean)
    assert rows["optim.base_lr"]["value"] == config.optim.base_lr


def test_show_takes_the_presets_of_a_conversion_too(capsys):
    rows = json.loads(told(capsys, "show", "percentile", "--json", "resample.short_side=99"))
    expected = load_typed(PreprocessConfig, file=configs_dir() / "preprocess" / "percentile.yaml")
    assert rows["intensity.mapping"]["value"] == expected.intensity.mapping
    assert rows["resample.short_side"] == {"value": 99, "from": "override"}


def test_show_set_leaves_the_defaults_out(capsys):
    shown = told(capsys, "show", "cpu_smoke", "--set", "optim.epochs=3")
    assert "optim.epochs" in shown
    assert "optim.clip_grad" not in shown
    assert "override" in shown


def test_show_prints_a_file_of_prompts_as_it_is(capsys):
    assert told(capsys, "show", "zeroshot_findings") == (configs_dir() / "eval" / "zeroshot_findings.yaml").read_text()
    assert "a.b=1" in refusal(capsys, "show", "zeroshot_findings", "a.b=1")


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (
            ["vitb14_cxr", "optim.epochs=20"],
            "dinov2 check --config-file vitb14_cxr optim.epochs=20 train.dataset_path=pictures/manifest.parquet",
        ),
        (["raddino"], "dinov2 preprocess --input FILMS --output pictures --config-file raddino"),
    ],
)
def test_show_ends_with_the_command_that_takes_it(words, command, capsys):
    assert told(capsys, "show", *words).splitlines()[-1] == f"next: {command}"


def test_diff_names_what_differs_and_nothing_else(tmp_path, capsys):
    text = (configs_dir() / "train" / "cpu_smoke.yaml").read_text()
    other = tmp_path / "other.yaml"
    other.write_text(
        text.replace("total_steps: 60", "total_steps: 61") + "\nruntime:\n  requeue: true  # the default\n"
    )
    assert json.loads(told(capsys, "diff", "cpu_smoke", other, "--json")) == {
        "optim.total_steps": {"first": 60, "second": 61}
    }
    assert "1 of" in told(capsys, "diff", "cpu_smoke", other)


def test_diff_of_a_run_with_its_recipe_shows_what_was_overridden(tmp_path, capsys):
    from dinov2.config.load import to_yaml

    loaded = load_config(configs_dir() / "train" / "cpu_smoke.yaml", overrides=["train.seed=5"])
    (tmp_path / "config.yaml").write_text(to_yaml(loaded.config))  # as a run folder holds it
    assert list(json.loads(told(capsys, "diff", "cpu_smoke", tmp_path, "--json"))) == ["train.seed"]


def test_a_copy_is_the_file_with_its_comments_and_comes_to_the_same(tmp_path, capsys):
    target = tmp_path / "new" / "mine.yaml"
    assert f"--config-file {target}" in told(capsys, "copy", "cpu_smoke", target)
    assert target.read_bytes() == (configs_dir() / "train" / "cpu_smoke.yaml").read_bytes()
    assert "the same values" in told(capsys, "diff", "cpu_smoke", target)


def test_a_copy_replaces_nothing_unless_it_is_told_to(tmp_path, capsys):
    target = tmp_path / "mine.yaml"
    target.write_text("mine")
    assert "--overwrite" in refusal(capsys, "copy", "cpu_smoke", target)
    assert target.read_text() == "mine"
    told(capsys, "copy", "cpu_smoke", target, "--overwrite")
    assert target.read_text() != "mine"
    assert "itself" in refusal(capsys, "copy", target, target, "--overwrite")
    assert ".yaml" in refusal(capsys, "copy", "cpu_smoke", tmp_path / "mine.txt")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["show", "cpu_smok"], "Perhaps cpu_smoke?"),
        (["show", "cpu_smoke", "optim.epoch=3"], "optim.epochs"),
        (["show", "cpu_smoke", "optim.epochs=many"], "a number"),
        (["diff", "cpu_smoke", "raddino"], "same command"),
        (["show", "."], "config.yaml"),
    ],
)
def test_a_mistake_is_one_message_that_says_what_to_do(words, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert said in refusal(capsys, *words)
