import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dinov2.cli import COMMANDS, main
from dinov2.cli.completion import SHELLS, configurations, settings
from dinov2.config.keys import leaves
from dinov2.config.schema import Config

ASK = """
eval "$(dinov2 completion bash)"
ask() {
  COMP_LINE="$1"; COMP_POINT=${#1}; COMP_TYPE=9
  read -r -a COMP_WORDS <<< "$1"; [[ "$1" == *" " ]] && COMP_WORDS+=("")
  COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMPREPLY=()
  _python_argcomplete dinov2 "${COMP_WORDS[-1]}" ""
  echo "${COMPREPLY[@]}"
}
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> dict[str, str]:
    """With a `dinov2` on the path that runs this source."""
    folder = tmp_path_factory.mktemp("bin")
    program = folder / "dinov2"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m dinov2 "$@"\n')
    program.chmod(0o755)
    source = str(Path(__file__).resolve().parents[2])
    return os.environ | {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": source}


def answers(lines: list[str], environment: dict[str, str]) -> list[list[str]]:
    """What a real bash is told, for each half-written line."""
    script = ASK + "\n".join(f'ask "{line}"' for line in lines)
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, env=environment)
    return [line.split() for line in done.stdout.splitlines()]


def test_bash_completes_commands_options_configurations_keys_and_values(environment):
    commands, options, recipes, keys, values = answers(
        [
            "dinov2 ch",
            "dinov2 train --conf",
            "dinov2 train --config-file vitb14_cxr",
            "dinov2 train --config-file cpu_smoke optim.warmup_",
            "dinov2 train --config-file cpu_smoke runtime.compile=",
        ],
        environment,
    )
    assert commands == ["check", "checkpoint"]
    assert options == ["--config-file"]
    assert set(recipes) == {"vitb14_cxr", "vitb14_cxr_continue", "vitb14_cxr_maira2"}
    assert keys == ["optim.warmup_epochs=", "optim.warmup_steps="]
    assert values == ["auto", "always", "never"]


def test_bash_completes_below_a_command_and_a_conversions_own_keys(environment):
    verbs, keys, names = answers(
        ["dinov2 checkpoint ver", "dinov2 preprocess resample.s", "dinov2 configs show perc"], environment
    )
    assert verbs == ["verify"]
    assert keys == ["resample.short_side="]
    assert names == ["percentile"]


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_fish_completes_with_what_each_command_does(environment):
    script = 'dinov2 completion fish | source; complete -C "dinov2 ch"'
    done = subprocess.run(["fish", "-c", script], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.splitlines() == [f"{name}\t{COMMANDS[name]}" for name in ("check", "checkpoint")]


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh_takes_the_script(environment):
    script = 'autoload -U compinit; compinit -u -D; eval "$(dinov2 completion zsh)"; print -r -- $_comps[dinov2]'
    done = subprocess.run(["zsh", "-f", "-c", script], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "_python_argcomplete"


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_gets_a_script_that_names_the_command(shell, capsys):
    assert main(["completion", shell]) == 0
    assert "dinov2" in capsys.readouterr().out


def test_an_unknown_shell_is_refused_by_name(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["completion", "tcsh"])
    assert ended.value.code == 2
    assert "tcsh" in capsys.readouterr().err


def test_without_argcomplete_the_command_says_how_to_get_it(monkeypatch, capsys):
    for name in ("argcomplete", "argcomplete.shell_integration"):  # another test may have loaded it
        monkeypatch.setitem(sys.modules, name, None)
    assert main(["completion", "bash"]) == 2
    assert "pip install argcomplete" in capsys.readouterr().err


def test_every_key_can_be_reached_from_its_section():
    sections = settings("", kind="train")
    reached = {key for section in sections for key in settings(section, kind="train")}
    assert reached == {f"{key}=" for key in leaves(Config)}


def test_values_are_offered_where_there_are_few():
    assert settings("checkpoint.asynchronous=", kind="train") == [
        "checkpoint.asynchronous=true",
        "checkpoint.asynchronous=false",
    ]
    assert settings("optim.epochs=", kind="train") == []
    assert settings("nothing.such=", kind="train") == []


def test_each_command_is_offered_its_own_configurations():
    assert "raddino" in configurations("preprocess")
    assert "raddino" not in configurations("train")
    assert {"raddino", "cpu_smoke", "zeroshot_findings"} <= set(configurations(None))
