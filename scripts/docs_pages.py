"""Pages of the documentation that are made from the code, at build time: a hook of mkdocs (see mkdocs.yml).

In: the schemas and the comments of configs/, the parser of every command, README.md, CONTRIBUTING.md. Out: keys.md,
conversion_keys.md, shipped.md, commands.md, commands/NAME.md, tree.md, contributing.md, which exist in the site alone.
Every page also gets a rule for the browser by which it loads nothing from another host.
"""

import argparse
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from dinov2.cli import COMMANDS, GROUPS, build_parser
from dinov2.cli import EXAMPLES as HELP_ENDS
from dinov2.config.keys import describe, leaves
from dinov2.config.preprocess import PreprocessConfig
from dinov2.config.schema import Config

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / "configs"
# Files beside docs/ to which its pages link, and where the site shows them.
ELSEWHERE = {
    "../README.md#the-tree": "tree.md",
    "../README.md": "index.md",
    "../CONTRIBUTING.md": "contributing.md",
    "../configs/ssl_default_config.yaml": "keys.md",
}
ONLY_FROM_HERE = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; worker-src 'self'; base-uri 'self'; form-action 'none'"
)
FOLDERS = {"train": "training", "preprocess": "conversion", "eval": "evaluation"}
WIDTH = 96  # columns of a usage line
KEY_LINE = re.compile(r"^( *)([A-Za-z_][\w]*):(?:\s+(.*?))?\s*$")
TREE = re.compile(r"<!-- tree: begin -->\n(.*?)\n<!-- tree: end -->", re.DOTALL)


@dataclass(frozen=True)
class Key:
    """One line of a commented YAML file: a value or a section, and what its comments say."""

    name: str
    value: str  # as written; empty for a section
    meaning: str


# What mkdocs calls


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """The entry `COMMANDS` of the navigation becomes the list of commands."""
    for part in config.nav or []:
        for pages in part.values():
            for entry in pages:
                if "COMMANDS" in entry.values():
                    listed = [{f"dinov2 {name}": f"commands/{name}.md"} for name in COMMANDS]
                    entry[next(iter(entry))] = [{"All commands": "commands.md"}, *listed]
    return config


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Adds the pages that are made."""
    for name, text in made_pages().items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links to files beside docs/ lead to the pages that show them."""
    for outside, inside in ELSEWHERE.items():
        markdown = markdown.replace(f"]({outside})", f"]({inside})")
    return markdown


def on_post_page(output: str, **_: Any) -> str:
    """The browser is told to load nothing from elsewhere."""
    rule = f'<head>\n    <meta http-equiv="Content-Security-Policy" content="{ONLY_FROM_HERE}">'
    return output.replace("<head>", rule, 1)


def made_pages() -> dict[str, str]:
    """Name of a page -> its Markdown."""
    pages = {
        "keys.md": keys_page(),
        "conversion_keys.md": conversion_keys_page(),
        "shipped.md": shipped_page(),
        "commands.md": commands_page(),
        "tree.md": tree_page(),
        "contributing.md": contributing_page(),
    }
    return pages | {f"commands/{name}.md": command_page(name) for name in COMMANDS}


# Configuration


def commented_keys(text: str) -> Iterator[Key]:
    """Every key of a YAML file in order, dotted; what is said above it and behind it is its meaning."""
    above: list[str] = []
    path: list[tuple[int, str]] = []
    for line in text.splitlines():
        stripped = line.strip()
        if not stripped:
            above = []
        elif stripped.startswith("#"):
            above.append(stripped.lstrip("# "))
        else:
            code, _, behind = line.partition(" #")
            found = KEY_LINE.match(code)
            if not found:
                raise ValueError(f"a line that is no key: {line}")
            path = [part for part in path if part[0] < len(found[1])] + [(len(found[1]), found[2])]
            yield Key(".".join(name for _, name in path), found[3] or "", " ".join([*above, behind.strip()]).strip())
            above = []


def keys_page() -> str:
    """Every key of a training."""
    lines = [
        "# Every configuration key",
        "",
        f"All {len(leaves(Config))} keys of a training, made from the schema and the comments of "
        "`configs/ssl_default_config.yaml`. A run's file says only what differs from these defaults; any key can be "
        "set at the end of a command as `section.key=value`. How files, words and defaults go together: "
        "[Configuration](configuration.md).",
    ]
    return "\n".join(lines + _tables(Config, CONFIGS / "ssl_default_config.yaml"))


def conversion_keys_page() -> str:
    """Every key of `dinov2 preprocess`."""
    lines = [
        "# Every key of the conversion",
        "",
        f"All {len(leaves(PreprocessConfig))} keys of `dinov2 preprocess`, made from the schema and the comments of "
        "`configs/preprocess/raddino.yaml`, the default. Other presets: [Shipped files](shipped.md). What "
        "happens to a film: [From an archive to pictures](preprocess.md).",
    ]
    return "\n".join(lines + _tables(PreprocessConfig, CONFIGS / "preprocess" / "raddino.yaml"))


def _tables(schema: type[Any], file: Path) -> list[str]:
    """A heading and a table for every section of `schema`; keys outside any section have one of their own."""
    said = {key.name: key for key in commented_keys(file.read_text())}
    kinds = leaves(schema)
    lines: list[str] = []
    for section, names in groupby(kinds, key=lambda name: name.partition(".")[0]):
        inside = [name for name in names if name != section]
        lines += ["", f"## {section if inside else 'Outside the sections'}", ""]
        if inside and said[section].meaning:
            lines += [_sentence(_prose(said[section].meaning)), ""]
        lines += ['<div class="keys" markdown>', "", "| key | default | takes | meaning |", "|---|---|---|---|"]
        for name in inside or [section]:
            key, takes = said[name], _cell(describe(kinds[name]))
            lines.append(f'| <a id="{name}"></a>{_breaking(name)} | `{key.value}` | {takes} | {_cell(key.meaning)} |')
        lines += ["", "</div>"]
    return [*lines, ""]


def shipped_page() -> str:
    """Every configuration file of the package, with its header's words on cost and state."""
    files = [path for folder in FOLDERS for path in sorted((CONFIGS / folder).glob("*.yaml"))]
    lines = [
        "# Shipped configuration files",
        "",
        "`--config-file NAME` takes any of them by name. Its header says what it reproduces, what it costs, how "
        "to start it, and whether it was run.",
        "",
        "| file | what it is | state |",
        "|---|---|---|",
    ]
    for path in files:
        what = _header(path)[0].removeprefix(f"{path.stem}: ")
        lines.append(f"| [`{path.stem}`](#{path.stem}) | {_cell(what)} | {_cell(_state(path))} |")
    for folder in FOLDERS:
        lines += ["", f"## For {FOLDERS[folder]}"]
        for path in (p for p in files if p.parent.name == folder):
            lines += ["", f"### {path.stem}", "", "```yaml", path.read_text().rstrip(), "```"]
    return "\n".join(lines) + "\n"


def _header(path: Path) -> list[str]:
    """The comment at the head of a file, line by line."""
    lines = path.read_text().splitlines()
    return [line.removeprefix("#").strip() for line in lines[: next(i for i, x in enumerate(lines) if x[:1] != "#")]]


def _state(path: Path) -> str:
    """What the header says behind `Status`, up to its first full stop."""
    said = next((line for line in _header(path) if line.startswith("Status")), "")
    return re.split(r"[.;:] |[.;:]$", said.removeprefix("Status").strip())[0]


# Commands


def commands_page() -> str:
    """All commands, a line each, by what they are for."""
    lines = [
        "# Commands",
        "",
        "Every command of `dinov2`, made from its `--help`. Settings (`a.b=c`) are [configuration keys](keys.md); "
        "completion and what else helps in a terminal: [The shell](shell.md).",
    ]
    for group, commands in GROUPS.items():
        lines += ["", f"## {_sentence(group).rstrip('.')}", "", "| command | what it does |", "|---|---|"]
        lines += [f"| [`dinov2 {name}`](commands/{name}.md) | {_cell(says)} |" for name, says in commands.items()]
    exit_codes = HELP_ENDS.partition("Exit codes: ")[2]
    return "\n".join([*lines, "", "## Exit codes", "", _sentence(_prose(exit_codes)), ""])


def command_page(name: str) -> str:
    """One command with everything below it."""
    parsers = list(_parsers(_sub_parsers(build_parser(name))[name]))
    lines = []
    for depth, parser in parsers:
        lines += [f"{'#' * min(1 + depth, 3)} {parser.prog}", "", *_parser_words(parser)]
    return "\n".join(lines) + "\n"


def _sub_parsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The commands right below a parser, in order; empty where it has none."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _parsers(parser: argparse.ArgumentParser, depth: int = 0) -> Iterator[tuple[int, argparse.ArgumentParser]]:
    """A parser and all below it, with their depth."""
    yield depth, parser
    for below in _sub_parsers(parser).values():
        yield from _parsers(below, depth + 1)


def _parser_words(parser: argparse.ArgumentParser) -> list[str]:
    formatter = argparse.HelpFormatter(parser.prog, width=WIDTH)
    formatter.add_usage(parser.usage, parser._actions, parser._mutually_exclusive_groups)
    lines = [_sentence(_prose(parser.description or "")), "", "```text", formatter.format_help().strip(), "```", ""]
    for group in parser._action_groups:
        shown = [action for action in group._group_actions if action.help != argparse.SUPPRESS]
        shown = [action for action in shown if not isinstance(action, argparse._HelpAction)]
        if not shown:
            continue
        if isinstance(shown[0], argparse._SubParsersAction):
            shown = list(shown[0]._choices_actions)
        title = group.title or ""
        lines += [
            f"**{title[:1].upper()}{title[1:]}**" + (f": {_prose(group.description)}" if group.description else "")
        ]
        lines += ["", '<div class="options" markdown>', "", "| | |", "|---|---|"]
        lines += [f"| {_invocation(formatter, action)} | {_option_words(formatter, action)} |" for action in shown]
        lines += ["", "</div>", ""]
    return lines + _epilogue(parser.epilog or "")


def _invocation(formatter: argparse.HelpFormatter, action: argparse.Action) -> str:
    written = formatter._format_action_invocation(action)
    return f"`{written.replace('|', chr(92) + '|')}`"


def _option_words(formatter: argparse.HelpFormatter, action: argparse.Action) -> str:
    words = _cell(formatter._expand_help(action)) if action.help else ""
    return f"{words} **required**" if action.required and action.option_strings else words


def _epilogue(text: str) -> list[str]:
    """Examples as commands to copy, and the rest as prose."""
    lines: list[str] = []
    for part in re.split(r"\n\s*\n", text.strip("\n")):
        rows = part.splitlines()
        head = [rows[0]] if rows and rows[0].rstrip().endswith(":") and not rows[0].startswith(" ") else []
        body = rows[len(head) :]
        if body and all(row.startswith("  ") for row in body):
            lines += [*(f"**{row[:1].upper()}{row[1:].rstrip(':')}**" for row in head), ""]
            lines += ["```bash", textwrap.dedent("\n".join(body)), "```", ""]
        elif part.strip():
            lines += [_prose(" ".join(part.split())), ""]
    return lines


# The repository


def tree_page() -> str:
    """The tree of README.md."""
    found = TREE.search((ROOT / "README.md").read_text())
    assert found, "README.md has lost the markers of its tree"
    tree = found[1].replace("```", "```text", 1)
    last_in_searches = "---\nsearch: { boost: 0.05 }\n---\n"  # a name of a file is rarely what a word is looked for
    return f"{last_in_searches}# The tree, file by file\n\nEach line is the first sentence of the file.\n\n{tree}\n"


def contributing_page() -> str:
    """CONTRIBUTING.md."""
    return (ROOT / "CONTRIBUTING.md").read_text().replace("](docs/", "](")


# Words


def _breaking(name: str) -> str:
    """A dotted name as code that may be broken behind its dots."""
    return f"<code>{name.replace('.', '.<wbr>')}</code>"


def _cell(text: str) -> str:
    """Text as a cell of a table: what Markdown would take for a sign of its own is kept as it is."""
    return _prose(text).replace("|", "&#124;")


def _prose(text: str) -> str:
    """Words as they are, but for what stands between two backticks, which is code."""
    plain = re.sub(r"([<*_\[\]`])", lambda sign: f"&#{ord(sign[1])};", " ".join(text.replace("&", "&amp;").split()))
    return re.sub(r"&#96;(.+?)&#96;", r"<code>\1</code>", plain)


def _sentence(text: str) -> str:
    """With a capital and a full stop."""
    return f"{text[:1].upper()}{text[1:]}{'' if text[-1:] in '.:?' else '.'}" if text else ""
