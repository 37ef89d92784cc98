"""Every exit code that the help names, from the command itself in a process of its own."""

import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dinov2.cli import INTERRUPTED, main

SOURCE = str(Path(__file__).resolve().parents[2])
COMMAND = [sys.executable, "-m", "dinov2"]
BROKEN = """
import sys
from dinov2.cli import configs, main
def listed(arguments):
    raise RuntimeError("a fault that nobody foresaw")
configs.ls = listed
sys.exit(main(["configs", "ls"]))
"""
COLOUR = re.compile(rb"\x1b\[(?:\d+;)*(?:3[0-8]|4[0-8]|9[0-7])(?:;\d+)*m")


def environment(**variables: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    return kept | {"PYTHONPATH": SOURCE} | variables


def told(words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, check=False, env=environment())


def on_a_terminal(words: list[str], **variables: str) -> bytes:
    """What a command writes to a terminal."""
    process, terminal = pty.fork()
    if process == 0:
        os.execve(sys.executable, [*COMMAND, *words], environment(**variables))
    written = b""
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # the terminal's other end is closed
            break
        if not part:
            break
        written += part
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0, written.decode()
    os.close(terminal)
    return written


def test_a_fault_of_ours_ends_with_1_its_traceback_and_where_to_report_it():
    done = told([sys.executable, "-c", BROKEN])
    assert done.returncode == 1
    assert "RuntimeError: a fault that nobody foresaw" in done.stderr
    assert done.stderr.index("Traceback") < done.stderr.index("dinov2 doctor --json")


def test_ctrl_c_ends_with_130_and_no_traceback(tmp_path):
    words = ["phantom", "--output", str(tmp_path / "films"), "--count", "500", "--short-side", "64"]
    running = subprocess.Popen([*COMMAND, *words], stderr=subprocess.PIPE, text=True, env=environment())
    while not list(tmp_path.glob("films/dicom/*.dcm")):
        assert running.poll() is None, running.stderr.read()
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=60)
    assert running.returncode == INTERRUPTED
    assert "Traceback" not in said
    assert "interrupted" in said


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("file/mine.yaml", "there is a file of this name already"),
        ("file/below/mine.yaml", "a part of this path is a file"),
        ("n" * 300 + ".yaml", "too long"),
    ],
    ids=["in a file", "below a file", "long"],
)
def test_a_place_that_cannot_be_written_is_one_message_and_2(tmp_path, place, said, capsys):
    (tmp_path / "file").touch()
    assert main(["configs", "copy", "cpu_smoke", str(tmp_path / place)]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_one_message_and_2(tmp_path, capsys):
    tmp_path.chmod(0o500)
    assert main(["configs", "copy", "cpu_smoke", str(tmp_path / "mine.yaml")]) == 2
    assert "permissions" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "--confg-file", "F", "--output-dir", "RUN"], "it has no --confg-file. Perhaps --config-file?"),
        (["checkpoint", "shwo", "RUN"], "Perhaps show?"),
        (["checkpoint"], "say which ACTION: ls, show, verify, consolidate."),
        (["bench", "stpe"], "Perhaps step?"),
        (["submit", "train", "--config-file", "F"], "stand behind ` -- `"),
        (["manifest", "show", "M", "more"], "not understood: more."),
    ],
)
def test_a_misspelt_word_is_one_line_with_the_nearest_one_and_2(words, said, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)
    shown = capsys.readouterr().err
    assert ended.value.code == 2
    assert said in shown
    assert shown.count("\n") == 1
    assert shown.rstrip().endswith("--help")


def test_colours_are_for_terminals_that_want_them(tmp_path):
    words = ["configs", "ls"]
    assert COLOUR.search(on_a_terminal(words, TERM="xterm-256color"))
    assert not COLOUR.search(on_a_terminal(words, TERM="xterm-256color", NO_COLOR="1"))
    assert b"\x1b" not in on_a_terminal(words, TERM="dumb")


def test_progress_on_a_plain_terminal_is_lines_without_escapes(tmp_path):
    words = ["phantom", "--output", str(tmp_path / "films"), "--count", "1", "--short-side", "64"]
    shown = on_a_terminal(words, TERM="dumb")
    assert b"\x1b" not in shown
    assert b"films 1 of 1 (100%)" in shown
