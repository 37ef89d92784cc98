"""What the pages tell people to type: every command is one that the parser takes, every key is in the schema."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from dinov2.cli import COMMANDS, CommandParser, build_parser
from dinov2.config.keys import FOREIGN, leaves, sections
from dinov2.config.preprocess import PreprocessConfig
from dinov2.config.schema import Config
from tests.docs_site.conftest import ROOT

PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"]
KEYS = {*leaves(Config), *leaves(PreprocessConfig), *sections(Config), *sections(PreprocessConfig), *FOREIGN}
ON_PURPOSE = {
    "optim.layerwise_deca",
    "train.koleo_loss_weight",
    "crops.local_crops_numbr",
}  # misspelt where the pages show what is said of it
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.M | re.S)
PLACEHOLDER = re.compile(r"\.\.\.|\bPUBLIC\b|[{}$<>|\[\]]")


def commands_of(text: str) -> Iterator[str]:
    """Every whole `dinov2 ...` command of a page's blocks: continued lines joined, comments left out."""
    for _, language, code in FENCE.findall(text):
        if language not in ("", "bash"):
            continue
        for line in re.sub(r"\\\n\s*", " ", code).splitlines():
            found = re.match(
                r"^\s*(?:torchrun .*-m )?(dinov2 [a-z]+(?: .*)?)$", re.sub(r"\s{2,}#.*$|\s+# .*$", "", line)
            )
            if found and not PLACEHOLDER.search(re.sub(r"'[^']*'|\"[^\"]*\"", "x", found[1])):
                yield " ".join(found[1].split())


class _Refused(Exception):
    pass


def _parse(command: str) -> None:
    words = shlex.split(command)[1:]
    chosen = next(word for word in words if word in COMMANDS)
    build_parser(chosen).parse_args(words)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_every_command_that_a_page_shows_is_one_that_the_parser_takes(
    page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(parser: CommandParser, message: str) -> None:
        raise _Refused(message)

    monkeypatch.setattr(CommandParser, "error", refuse)
    faults = []
    for command in commands_of(page.read_text()):
        try:
            _parse(command)
        except (_Refused, StopIteration, ValueError) as error:
            faults.append(f"{command}: {error}")
    assert faults == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_every_key_that_a_page_names_is_in_the_schema(page: Path) -> None:
    names = "|".join({key.partition(".")[0] for key in KEYS if "." in key})
    written = re.findall(rf"(?<![\w./-])((?:{names})\.[A-Za-z_][\w.]*[\w])=", page.read_text())
    if page.parent.name == "docs":  # the tree of README.md names modules the same way
        written += re.findall(rf"`((?:{names})\.[a-z_][\w.]*)`", page.read_text())
    unknown = {
        key for key in written if key not in KEYS | ON_PURPOSE and not key.endswith((".py", ".md", ".yaml", ".csv"))
    }
    assert unknown == set()


def test_a_command_that_no_parser_takes_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    test_it = test_every_command_that_a_page_shows_is_one_that_the_parser_takes
    page = ROOT / "docs" / "start.md"
    text = page.read_text().replace("dinov2 export --checkpoint", "dinov2 export --chekpoint")
    assert text != page.read_text()
    monkeypatch.setattr(Path, "read_text", lambda *_: text)
    with pytest.raises(AssertionError, match="chekpoint"):
        test_it(page, monkeypatch)


def test_commands_are_found_in_blocks_with_continued_lines_and_comments() -> None:
    ours = "```\ndinov2 train --config-file F \\\n   a.b=1   # why\nls\n```"
    others = "```python\ndinov2 no\n```\n```bash\ndinov2 train ...\n```"
    text = f"{ours}\n{others}"
    assert list(commands_of(text)) == ["dinov2 train --config-file F a.b=1"]
