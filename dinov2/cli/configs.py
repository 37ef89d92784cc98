"""`dinov2 configs`: the shipped configurations, what a configuration comes to and where each value is from.

In: names, files, runs, and settings `a.b=c`. Out: tables on standard output; a copy to change.
"""

import argparse
import difflib
import json
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dinov2.cli import COMMANDS
from dinov2.cli.console import print_table, stdout

if TYPE_CHECKING:
    from dinov2.config.origins import Traced

FORMATTER = argparse.RawDescriptionHelpFormatter
EXAMPLES = """examples:
  dinov2 configs ls
  dinov2 configs show cpu_smoke optim.total_steps=500
  dinov2 configs diff vitb14_cxr vitb14_cxr_maira2
  dinov2 configs copy cpu_smoke mine.yaml"""
USED_BY = {
    "train": "dinov2 train --config-file NAME",
    "preprocess": "dinov2 preprocess --config-file NAME",
    "eval": "dinov2 eval zeroshot --prompts NAME",
    "": "every key of a training with its default and meaning; not a recipe",
}
WHICH = "a shipped name, a YAML file, or the folder of a run"
STYLES = {"run": "green", "not yet run": "yellow", "": "dim"}
DEFAULT = "default"


@dataclass(frozen=True)
class Recipe:
    """A shipped configuration; `status` is "run", "not yet run", or empty where its header does not say."""

    name: str
    kind: str  # the folder, which is the command that takes it
    file: Path
    about: str
    status: str
    status_words: str
    cost: str


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the sub-command and its own sub-commands."""
    parser = commands.add_parser(
        "configs",
        help=COMMANDS["configs"],
        description="Configurations that come with the package, and what one comes to.",
        epilog=EXAMPLES,
        formatter_class=FORMATTER,
    )
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    _add_ls(actions)
    _add_show(actions)
    _add_diff(actions)
    _add_copy(actions)


def _add_ls(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    words = "every shipped configuration in one line, and whether it has been run"
    epilog = "examples:\n  dinov2 configs ls\n  dinov2 configs ls --json"
    parser = actions.add_parser("ls", help=words, description=words, epilog=epilog, formatter_class=FORMATTER)
    parser.add_argument("--json", action="store_true", help="a list of objects, with cost and status in full")
    parser.set_defaults(run=ls)


def _add_show(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    words = "every value of a configuration, and where it comes from"
    epilog = (
        "examples:\n  dinov2 configs show vitb14_cxr --set\n"
        "  dinov2 configs show runs/first optim.epochs=200\n"
        "  dinov2 configs show raddino resample.short_side=1024\n\n"
        "It is checked as the command that takes it would."
    )
    parser = actions.add_parser("show", help=words, description=words, epilog=epilog, formatter_class=FORMATTER)
    parser.add_argument("name", metavar="NAME", help=WHICH)
    parser.add_argument("--set", action="store_true", help="only what the file or a setting says, no defaults")
    parser.add_argument("--json", action="store_true", help="an object of key, value and origin")
    parser.add_argument("overrides", nargs="*", metavar="a.b=c", help="settings that win over the file")
    parser.set_defaults(run=show)


def _add_diff(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    words = "the values in which two configurations differ, defaults included"
    epilog = (
        "examples:\n  dinov2 configs diff vitb14_cxr vitb14_cxr_maira2\n"
        "  dinov2 configs diff runs/first runs/second\n"
        "  dinov2 configs diff ssl_default_config mine.yaml\n\n"
        "Values are compared as they are used, so a default that is written out is no difference."
    )
    parser = actions.add_parser("diff", help=words, description=words, epilog=epilog, formatter_class=FORMATTER)
    parser.add_argument("first", metavar="A", help=WHICH)
    parser.add_argument("second", metavar="B", help=WHICH)
    parser.add_argument("--json", action="store_true", help="an object of key and both values")
    parser.set_defaults(run=diff)


def _add_copy(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    words = "a shipped configuration as a file to change, its comments kept"
    epilog = (
        "examples:\n  dinov2 configs copy cpu_smoke mine.yaml\n  dinov2 configs copy raddino films.yaml --overwrite"
    )
    parser = actions.add_parser("copy", help=words, description=words, epilog=epilog, formatter_class=FORMATTER)
    parser.add_argument("name", metavar="NAME", help=WHICH)
    parser.add_argument("file", type=Path, metavar="F.yaml", help="the new file")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is there")
    parser.set_defaults(run=copy)


def ls(arguments: argparse.Namespace) -> int:
    """A table for each command that takes configurations."""
    recipes = shipped_recipes()
    if arguments.json:
        print(json.dumps([asdict(recipe) | {"file": str(recipe.file)} for recipe in recipes], indent=1))
        return 0
    from rich.markup import escape
    from rich.table import Table

    width = max(len(recipe.name) for recipe in recipes)
    for kind, usage in USED_BY.items():
        stdout.print(usage, style="bold", markup=False)
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1))
        table.add_column(min_width=width + 2, no_wrap=True)
        table.add_column(min_width=12, no_wrap=True)
        table.add_column()
        for recipe in (one for one in recipes if one.kind == kind):
            status = f"[{STYLES[recipe.status]}]{recipe.status or '-'}[/]"
            table.add_row(f"  {escape(recipe.name)}", status, escape(recipe.about))
        print_table(table)
    stdout.print("next: dinov2 configs show NAME, or dinov2 configs copy NAME mine.yaml", markup=False)
    return 0


def show(arguments: argparse.Namespace) -> int:
    """Key, value, origin of everything; a file that is no configuration of settings is printed as it is."""
    file = find(arguments.name)
    traced = _traced(file, overrides=arguments.overrides)
    if traced is None:
        print(file.read_text(encoding="utf-8"), end="")
        return 0
    values, origins = traced.values(), traced.origins
    if arguments.set:
        values = {key: value for key, value in values.items() if key in origins}
    if arguments.json:
        rows = {key: {"value": value, "from": origins.get(key, DEFAULT)} for key, value in values.items()}
        print(json.dumps(rows, indent=1))
        return 0
    _show_values(values, origins)
    count = sum(key in origins for key in values)
    stdout.print(f"\n{file}: {count} of {len(traced.values())} values are set, the others are defaults.", markup=False)
    named = str(file) if Path(arguments.name).is_dir() else arguments.name  # of a run its file
    stdout.print(f"next: {_next_of(named, type(traced.config), overrides=arguments.overrides)}", markup=False)
    return 0


def diff(arguments: argparse.Namespace) -> int:
    """Rows of key, first and second value."""
    from dinov2.errors import ConfigError

    files = find(arguments.first), find(arguments.second)
    first, second = (_traced(file) for file in files)
    if first is None or second is None or type(first.config) is not type(second.config):
        raise ConfigError(
            f"{arguments.first} and {arguments.second}: not two configurations of the same command, so their keys "
            "cannot be compared. dinov2 configs ls says which command takes which."
        )
    before, after = first.values(), second.values()
    rows = {key: (before[key], after[key]) for key in before if before[key] != after[key]}
    if arguments.json:
        print(json.dumps({key: {"first": a, "second": b} for key, (a, b) in rows.items()}, indent=1))
    elif not rows:
        stdout.print(f"{arguments.first} and {arguments.second} come to the same values.", markup=False)
    else:
        from rich.markup import escape
        from rich.table import Table

        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("key", no_wrap=True)
        table.add_column(escape(arguments.first), overflow="fold")
        table.add_column(escape(arguments.second), overflow="fold")
        for key, pair in rows.items():
            table.add_row(key, *(escape(value_text(value)) for value in pair))
        print_table(table)
        stdout.print(f"{len(rows)} of {len(before)} values differ.", markup=False)
        stdout.print(f"next: dinov2 configs show {shlex.quote(arguments.second)} --set", markup=False)
    return 0


def copy(arguments: argparse.Namespace) -> int:
    """The file with its header, ready to be changed."""
    from dinov2.config.origins import schema_of
    from dinov2.errors import ConfigError

    source, target = find(arguments.name), arguments.file
    if target.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"{target}: give a name that ends in .yaml.")
    if target.exists() and not arguments.overwrite:
        raise ConfigError(f"{target}: is there already. Give another name, or --overwrite.")
    if target.exists() and target.samefile(source):
        raise ConfigError(f"{target}: is {source} itself. Give another name.")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    stdout.print(f"{target}: a copy of {source}", markup=False)
    if (schema := schema_of(source)) is not None:
        stdout.print(f"next: {_next_of(str(target), schema)}", markup=False)
    return 0


def _next_of(name: str, schema: type[Any], *, overrides: Sequence[str] = ()) -> str:
    """The command that takes a configuration; of a training the one that costs nothing."""
    from dinov2.config.schema import Config

    settings = list(overrides)
    if schema is Config:
        if not any(word.startswith("train.dataset_path=") for word in settings):
            settings.append("train.dataset_path=pictures/manifest.parquet")
        return shlex.join(["dinov2", "check", "--config-file", name, *settings])
    words = ["dinov2", "preprocess", "--input", "FILMS", "--output", "pictures", "--config-file", name]
    return shlex.join([*words, *settings])


def find(name: str) -> Path:
    """The file of a shipped name of any command, of a path, or of a run.  Raises ConfigError."""
    from dinov2.config.presets import configs_dir, shipped_configs
    from dinov2.errors import ConfigError

    path = Path(name).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        if (path / "config.yaml").is_file():
            return path / "config.yaml"
        raise ConfigError(
            f"{path}: a folder without config.yaml, so no run. Give a run, a YAML file or a shipped name."
        )
    plain = name.removesuffix(".yaml").removesuffix(".yml").removeprefix("configs/")
    by_name = {one.rpartition("/")[2]: one for one in shipped_configs()}
    if (found := by_name.get(plain.rpartition("/")[2])) is not None and found.endswith(plain):
        return configs_dir() / f"{found}.yaml"
    near = difflib.get_close_matches(plain, by_name, n=1)
    perhaps = f" Perhaps {near[0]}?" if near else ""
    raise ConfigError(
        f"{name}: neither a file, nor a run, nor a shipped configuration.{perhaps} dinov2 configs ls names them all."
    )


def shipped_recipes() -> list[Recipe]:
    """Every shipped configuration with what its header says, in the order of `USED_BY`."""
    from dinov2.config.presets import configs_dir, shipped_configs

    recipes = [_recipe(configs_dir() / f"{name}.yaml", name=name) for name in shipped_configs()]
    return sorted(recipes, key=lambda recipe: list(USED_BY).index(recipe.kind))


def _recipe(file: Path, *, name: str) -> Recipe:
    header = [line[1:] for line in file.read_text(encoding="utf-8").split("\n\n")[0].splitlines() if line[:1] == "#"]
    short = name.rpartition("/")[2]
    first = " ".join(" ".join(header[: _first_empty(header)]).split()).removeprefix(f"{short}: ")
    words = _field(header, "Status")
    status = "not yet run" if "not yet run" in words else "run" if words.startswith("run ") else ""
    return Recipe(short, name.rpartition("/")[0], file, first, status, words, _field(header, "Cost"))


def _first_empty(header: Sequence[str]) -> int:
    return next((number for number, line in enumerate(header) if not line.strip()), len(header))


def _field(header: Sequence[str], name: str) -> str:
    """What stands behind `name` in a header, the lines that go on below it included."""
    words: list[str] = []
    for line in header:
        if line.startswith(f" {name} "):
            words.append(line.removeprefix(f" {name} "))
        elif words and line.startswith("     "):
            words.append(line)
        elif words:
            break
    return " ".join(" ".join(words).split())


def _traced(file: Path, *, overrides: Sequence[str] = ()) -> "Traced | None":
    from dinov2.config.origins import schema_of, trace
    from dinov2.errors import ConfigError

    schema = schema_of(file)
    if schema is not None:
        return trace(file, overrides=overrides, schema=schema)
    if overrides:
        raise ConfigError(f"{file}: holds no settings, so {overrides[0]} has nothing to win over. Leave it out.")
    return None


def _show_values(values: dict[str, Any], origins: Any) -> None:
    """A block for each section; what somebody set stands out."""
    from rich.text import Text

    width = max((len(key) for key in values), default=0)
    texts = {key: value_text(value) for key, value in values.items()}
    column = min(max((len(text) for text in texts.values()), default=0), 28)
    section = None
    for key, text in texts.items():
        if section is not None and key.partition(".")[0] != section:
            stdout.print()
        section = key.partition(".")[0]
        origin = origins.get(key, DEFAULT)
        line = Text(f"{key:{width}}  ").append(f"{text:{column}}", style="" if origin == DEFAULT else "bold")
        stdout.print(line.append(f"  {origin}", style="dim" if origin == DEFAULT else "cyan"))


def value_text(value: Any) -> str:
    """A value of a configuration as it is shown: words as they are, all else as JSON."""
    return value if isinstance(value, str) and value else json.dumps(value)
