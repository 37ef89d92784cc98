"""docs/using.md is true: its snippets run from top to bottom, and print what it shows."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs import running
from tests.docs.page import blocks_of
from tests.torchvision_libraries import absent, with_them

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "using.md"
NEEDS_A_NETWORK = ("pip install", "git clone")


def test_the_snippets_do_what_the_page_says(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.docs.running", PAGE, tmp_path],
        env=alone(tmp_path),
        capture_output=True,
        text=True,
        check=False,
    )
    print(done.stderr)
    assert running.RESULT in done.stdout, done.stderr
    faults = json.loads(done.stdout.rpartition(running.RESULT)[2])
    if not absent():
        faults += with_them(running.with_timm, PAGE, tmp_path)
    assert not faults, "\n\n".join(faults)


def test_only_what_needs_a_network_is_not_run() -> None:
    left_out = [block for block in blocks_of(PAGE.read_text()) if "not run" in block.said]
    assert left_out
    for block in left_out:
        assert "network" in block.said["not run"]
        assert all(any(need in command for need in NEEDS_A_NETWORK) for command in block.commands), block.code


def test_the_page_has_a_snippet_for_each_way_in_and_out() -> None:
    text = "\n".join(block.code for block in blocks_of(PAGE.read_text()))
    ways = (
        *("RadDino()", "AutoModel.from_pretrained", "pipeline(", "torch.hub.load", "DINOHead(", "strict=True"),
        *("Encoder.from_pretrained", "film.dcm", "attention_maps", ".over(", ".backward()", "onnxruntime", "timm"),
        *("dinov2 import", "dinov2 train", "--format transformers", "--format onnx", "--format timm"),
    )
    assert [way for way in ways if way not in text] == []


def test_the_links_of_the_page_lead_somewhere() -> None:
    for part in PAGE.read_text().split("](")[1:]:
        assert (PAGE.parent / part.split(")")[0].split("#")[0]).exists(), part.split(")")[0]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("```python\n1 / 0\n```", "ZeroDivisionError"),
        ("```python\nprint(1)\n```\n```text\n2\n```", "it printed\n1"),
        ("```python\nprint(1)\n```", "it prints what the page does not show"),
        ("```bash\nrm -r runs\n```", "another program"),
        ("```bash\ndinov2 export --checkpoint nothing --output-dir out\n```", "exit code 2"),
    ],
)
def test_a_page_that_is_not_true_is_noticed(
    text: str, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (told,) = running.run_blocks(blocks_of(text), work=tmp_path)
    assert fault in told
    assert told.startswith("line 2:")


def test_a_command_that_does_not_end_as_the_page_says_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = "<!-- exit code: 2 -->\n```bash\ndinov2 configs ls\n```"
    (told,) = running.run_blocks(blocks_of(text), work=tmp_path)
    assert told.startswith("line 3:")
    assert "exit code 0" in told


def test_a_page_that_is_true_has_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = "```python\nfound = 1\n```\nand\n```python\nprint(found)\n```\n\n```text\n1\n```"
    assert running.run_blocks(blocks_of(text), work=tmp_path) == []


def test_commands_are_read_as_a_shell_would_read_them() -> None:
    (block,) = blocks_of("<!-- smaller: a=1 -->\n```bash\n# first\ndinov2 train \\\n  a=2  # why\n\ndinov2 runs D\n```")
    assert block.commands == ["dinov2 train    a=2", "dinov2 runs D"]
    assert block.said == {"smaller": "a=1"}


def test_a_comment_without_its_block_is_noticed() -> None:
    with pytest.raises(ValueError, match="followed by no block"):
        blocks_of("<!-- with timm -->\nwords\n```python\n```")


def alone(work: Path) -> dict[str, str]:
    """The environment of a machine without a network and with the stand-ins in the hub's cache."""
    hub = {"HF_HOME": str(work / "home"), "HF_HUB_CACHE": str(work / "hub"), "HF_HUB_OFFLINE": "1"}
    return os.environ | hub | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
