import json
import sys

import pytest

from dinov2.cli import main


def told(capsys, *words: str, code: int = 0) -> str:
    assert main(["doctor", *words]) == code
    return capsys.readouterr().out


def test_doctor_says_that_a_training_can_run_here_and_what_comes_next(capsys, tmp_path):
    shown = told(capsys, "--json", str(tmp_path / "machine.json"), "runtime.device=cpu")
    assert "a training can run here." in shown
    assert "next: dinov2 phantom" in shown
    written = json.loads((tmp_path / "machine.json").read_text())
    assert written["can_train"]
    topics = [finding["topic"] for finding in written["findings"]]
    assert list(dict.fromkeys(topics)) == ["versions", "devices", "places", "films", "cluster", "choices"]


def test_doctor_ends_with_2_where_the_training_would_be_refused(capsys):
    found = json.loads(told(capsys, "--json", "runtime.device=cpu", "runtime.attention=xformers", code=2))
    (broken,) = [one for one in found["findings"] if one["verdict"] == "broken"]
    assert not found["can_train"]
    assert broken["name"] == "runtime.attention"


@pytest.mark.parametrize("words", [("--config-file", "nope"), ("runtime.device=tpu",)])
def test_a_configuration_that_is_not_one_is_refused_at_once(words, capsys):
    assert main(["doctor", *words]) == 2
    assert "dinov2 doctor: " in capsys.readouterr().err


def test_where_not_even_configurations_can_be_read_the_library_at_fault_is_named(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "omegaconf", None)  # as where its own shared objects are missing
    monkeypatch.delitem(sys.modules, "dinov2.config.load", raising=False)
    assert main(["doctor"]) == 2
    said = capsys.readouterr().err
    assert "BROKEN  omegaconf" in said
    assert "pip install --force-reinstall 'omegaconf" in said
