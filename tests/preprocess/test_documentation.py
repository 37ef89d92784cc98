import re
from pathlib import Path

import pytest

from dinov2.config.load import load_typed
from dinov2.config.preprocess import PreprocessConfig
from dinov2.config.presets import find_config
from dinov2.preprocess.reasons import FLAG_MEANINGS, REASON_MEANINGS, Flag, Reason
from dinov2.preprocess.work import settings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "preprocess.md").read_text()
PRESETS = ("raddino", "voi", "percentile", "mimic_jpg")


def test_the_page_lists_exactly_the_reasons_and_flags_of_the_code():
    reasons = re.findall(r"^\| `(\w+)` \| (filter|duplicate|fault) \| (.+) \|$", PAGE, flags=re.MULTILINE)
    assert reasons == [(str(reason), reason.kind, reason.meaning) for reason in Reason]
    flags = re.findall(r"^\| `(\w+)` \| ([^|]+) \|$", PAGE.partition("| flag | meaning |")[2], flags=re.MULTILINE)
    assert flags == [(str(flag), flag.meaning) for flag in Flag]


def test_every_code_has_a_meaning_and_is_given_somewhere():
    assert set(REASON_MEANINGS) == set(Reason)
    assert set(FLAG_MEANINGS) == set(Flag)
    room = "".join(p.read_text() for p in (ROOT / "dinov2/preprocess").rglob("*.py") if p.name != "reasons.py")
    own = [reason for reason in Reason if reason not in set(Flag)]  # the others are given as `Reason(flag)`
    assert not [code for code in (*own, *Flag) if f"{type(code).__name__}.{code.name}" not in room]


@pytest.mark.parametrize("name", PRESETS)
def test_every_shipped_preset_loads_and_says_what_it_is(name):
    path = find_config(name, kind="preprocess")
    settings.check(load_typed(PreprocessConfig, file=path))
    header = path.read_text()
    assert all(word in header for word in ("# Command", "# Reproduces", "# Status"))
    assert f"`{name}`" in PAGE


def test_the_default_preset_is_the_default_of_the_code_with_every_key_written_down():
    path = find_config("raddino", kind="preprocess")
    assert load_typed(PreprocessConfig, file=path) == PreprocessConfig()
    for section in ("filters", "decode", "resample", "intensity", "quality", "limits", "privacy"):
        for key in vars(getattr(PreprocessConfig(), section)):
            assert re.search(rf"^  {key}: ", path.read_text(), flags=re.MULTILINE), key


def test_the_presets_differ_in_what_they_are_named_for():
    loaded = {name: load_typed(PreprocessConfig, file=find_config(name, kind="preprocess")) for name in PRESETS}
    assert loaded["voi"].decode.voi
    assert loaded["percentile"].intensity.mapping == "percentile"
    assert loaded["mimic_jpg"].intensity.mapping == "equalise"
    assert len(set(loaded.values())) == len(PRESETS)
