"""`dinov2 completion`: a script that teaches a shell what can follow `dinov2`, and what is said when a shell asks.

In: the name of a shell, or a half-written command line from the shell. Out: a script; or the words that may follow:
commands, options, choices, shipped configurations, and keys `a.b=` with their values.
"""

import argparse
import shlex
import sys
from collections.abc import Callable, Iterator
from typing import Any

from dinov2.cli import COMMANDS
from dinov2.errors import LaunchError

SHELLS = ("bash", "zsh", "fish")
INSTALL = "completion needs argcomplete, which is not installed:  pip install argcomplete"
EXAMPLES = """examples:
  dinov2 completion bash >> ~/.bashrc
  dinov2 completion zsh > ~/.zfunc/_dinov2                          a folder of $fpath, before compinit
  dinov2 completion fish > ~/.config/fish/completions/dinov2.fish

Then open a new shell and press the tab key twice: commands, options, configurations, and settings such as
runtime.precision=bf16.

Exit codes: 0 done; 2 a shell that is not known, or argcomplete is absent."""


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the sub-command."""
    parser = commands.add_parser(
        "completion",
        help=COMMANDS["completion"],
        description="Print the script that completes dinov2 in a shell; changes no file.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help=f"one of {', '.join(SHELLS)}")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Prints the script; on a terminal also says where it goes, on standard error."""
    try:
        from argcomplete.shell_integration import shellcode
    except ImportError as error:
        raise LaunchError(f"{INSTALL}.") from error
    print(shellcode(["dinov2"], shell=arguments.shell))
    if sys.stdout.isatty():
        places = [line for line in EXAMPLES.splitlines() if f"completion {arguments.shell}" in line]
        print(f"keep it:{places[0].rstrip()}", file=sys.stderr)
    return 0


def answer(line: str, build_parser: Callable[[str | None], argparse.ArgumentParser]) -> None:
    """Tells the shell what may follow `line`, and ends the process; returns where argcomplete is absent."""
    try:
        import argcomplete
    except ImportError:
        return
    words = _words(line)
    chosen = next((word for word in words[:-1] if word in COMMANDS), None)
    parser = build_parser(chosen)
    for part in _parsers(parser):
        for action in part._actions:
            if (completer := _completer(action, command=chosen)) is not None:
                action.completer = completer  # type: ignore[attr-defined]
    argcomplete.autocomplete(parser)


def _words(line: str) -> list[str]:
    try:
        words = shlex.split(line)
    except ValueError:  # a quote that is not closed yet
        words = line.split()
    return [*words, ""] if line.endswith(" ") else words


def _parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from _parsers(inner)


def _completer(action: argparse.Action, *, command: str | None) -> Callable[..., Any] | None:
    """What completes an argument's value, by its name; files where it is None."""
    kind = "preprocess" if command == "preprocess" else "train"
    if action.dest == "overrides":
        return lambda prefix, **_: settings(prefix, kind=kind)
    if action.dest == "config_file":
        return lambda prefix, **_: [*configurations(kind), *_files(prefix)]
    if command == "configs" and action.dest in ("name", "first", "second"):
        return lambda prefix, **_: [*configurations(None), *_files(prefix)]
    return None


def configurations(kind: str | None) -> list[str]:
    """Short names of the shipped configurations of a command; None: all that `dinov2 configs` takes."""
    from dinov2.config.presets import shipped_configs

    names = shipped_configs()
    return [name.rpartition("/")[2] for name in names if kind is None or name.startswith(f"{kind}/") or "/" not in name]


def settings(prefix: str, *, kind: str) -> list[str]:
    """Sections for nothing, whole keys `a.b=` for the beginning of one, `a.b=value` behind the equals sign where the
    values are few.

    Whole keys, so that a shell completes `op` to `optim.`, which they share, and adds no space behind it.
    """
    from dinov2.config import keys
    from dinov2.config.preprocess import PreprocessConfig
    from dinov2.config.schema import Config

    leaves = keys.leaves(PreprocessConfig if kind == "preprocess" else Config)
    key, equals, _ = prefix.partition("=")
    if equals:
        return [f"{key}={value}" for value in _values(leaves.get(key))]
    if not prefix:
        return list(dict.fromkeys(f"{name.partition('.')[0]}." if "." in name else f"{name}=" for name in leaves))
    return [f"{name}=" for name in leaves if name.startswith(prefix)]


def _values(hint: Any) -> list[str]:
    from typing import Literal, get_args, get_origin

    if hint is bool:
        return ["true", "false"]
    return [str(value) for value in get_args(hint)] if get_origin(hint) is Literal else []


def _files(prefix: str) -> list[str]:
    from argcomplete.completers import FilesCompleter

    return list(FilesCompleter(("yaml", "yml"))(prefix))
