import argparse
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from dinov2.cli import COMMANDS, GROUPS, build_parser, main
from dinov2.cli.bench import SUBJECTS, subject_parser

OF_SHELL = ("|", ">", ">>", "&&", "#")


def parsers_below(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    found = [parser]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            chosen = [one for one in action.choices.values() if one.get_default("run") or one._subparsers]
            for inner in {id(one): one for one in chosen}.values():
                found += parsers_below(inner)
    return found


def every_parser() -> list[argparse.ArgumentParser]:
    found: dict[str, argparse.ArgumentParser] = {}
    for name in COMMANDS:
        found |= {parser.prog: parser for parser in parsers_below(build_parser(name)) if parser.prog != "dinov2"}
    return list(found.values())


PARSERS = every_parser()


def one_of(prog: str) -> argparse.ArgumentParser:
    return next(parser for parser in PARSERS if parser.prog == prog)


def examples_of(parser: argparse.ArgumentParser) -> list[str]:
    """Lines of the examples with what a backslash continues, in the order they are written."""
    text = re.sub(r"\\\n\s*", "", parser.epilog or "")
    return [line.strip() for line in text.splitlines() if re.match(r"  (\w+=\S+ )*(dinov2|torchrun|bash) ", line)]


def words_of(example: str) -> list[str]:
    """What the real parser is given: neither what the shell does with it, nor the remark behind it."""
    command = re.split(r"\s{3,}", example)[0]
    words = shlex.split(command, comments=True)
    words = words[: next((number for number, word in enumerate(words) if word in OF_SHELL), len(words))]
    return words[words.index("dinov2") + 1 :] if "dinov2" in words else []


@pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser.prog)
def test_help_has_a_description_and_two_examples_and_exit_codes(parser):
    assert parser.description
    assert len(examples_of(parser)) >= 2, parser.epilog
    assert re.search(r"[Ee]xit codes?\b", parser.format_help())


@pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser.prog)
def test_every_example_parses(parser):
    own = parser.prog.split()[1:]
    shown = [words for example in examples_of(parser) if (words := words_of(example))]
    for words in shown:
        chosen = next(word for word in words if not word.startswith("-"))
        build_parser(chosen).parse_args(words)
    assert any(words[: len(own)] == own for words in shown), "no example is of this command itself"


@pytest.mark.parametrize("subject", SUBJECTS)
def test_every_subject_of_bench_has_two_examples_that_parse(subject):
    parser = subject_parser(subject)
    of_all = [words_of(example) for example in examples_of(one_of("dinov2 bench"))]
    shown = [words_of(example) for example in examples_of(parser)]
    assert len(shown) >= 2
    for words in [*shown, *(words for words in of_all if words[1:2] == [subject])]:
        assert words[:2] == ["bench", subject]
        parser.parse_args(words[2:])


def test_no_option_is_without_words():
    silent = [
        f"{parser.prog} {action.option_strings or action.dest}"
        for parser in PARSERS
        for action in parser._actions
        if not action.help and not isinstance(action, argparse._SubParsersAction)
    ]
    assert silent == []


def test_every_command_stands_in_one_group():
    assert sum(map(len, GROUPS.values())) == len(COMMANDS)


def test_help_of_everything_names_every_group_and_command(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    told = capsys.readouterr().out
    assert ended.value.code == 0
    assert all(f"{heading}:" in told for heading in GROUPS)
    assert all(summary in told for summary in COMMANDS.values())


def test_no_words_at_all_show_the_help_and_end_with_2(capsys):
    assert main([]) == 2
    assert "commands:" in capsys.readouterr().out


def test_a_misspelt_command_names_the_nearest_one(capsys):
    assert main(["trian", "--help"]) == 2
    assert "Perhaps train?" in capsys.readouterr().err


def test_settings_may_stand_between_options():
    words = ["train", "a.b=1", "--config-file", "F", "c.d=2", "--output-dir", "RUN", "e.f=3"]
    assert sorted(build_parser("train").parse_args(words).overrides) == ["a.b=1", "c.d=2", "e.f=3"]


def test_an_option_that_is_not_there_is_refused(capsys):
    with pytest.raises(SystemExit) as ended:
        build_parser("train").parse_args(["train", "--config-file", "F", "--output-dir", "RUN", "--nope"])
    assert ended.value.code == 2
    assert "--nope" in capsys.readouterr().err


def test_help_imports_nothing_heavy():
    program = (
        "import sys\nfrom dinov2.cli import build_parser\nbuild_parser(None).format_help()\n"
        "print([name for name in ('torch', 'numpy', 'rich', 'yaml', 'omegaconf', 'pyarrow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "words", [["configs", "ls"], ["configs", "show", "cpu_smoke"], ["configs", "diff", "voi", "raddino"]]
)
@pytest.mark.parametrize("variables", [{}, {"NO_COLOR": "1", "TERM": "xterm-256color"}], ids=["pipe", "NO_COLOR"])
def test_no_colour_where_it_is_not_read_by_a_person(words, variables):
    environment = os.environ | {"PYTHONPATH": str(Path.cwd())} | variables
    done = subprocess.run(
        [sys.executable, "-m", "dinov2", *words], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout
    assert "\x1b" not in done.stdout + done.stderr
