"""A documentation page as what can be run of it.

In: the text of a page. Out: its blocks of Python and commands in order, each with the output that the page shows.

A comment right before a block says what its test must know, and is not seen by readers:

    <!-- not run: REASON -->   it cannot run in a test
    <!-- in: FOLDER -->        it runs in that folder of the test's work folder
    <!-- smaller: WORDS -->    words added to its last command, so that it takes seconds instead of hours
    <!-- exit code: N -->      with which its last command ends, where that is no fault
    <!-- with timm -->         it runs where timm can be imported, in a process and a namespace of its own
"""

import re
from dataclasses import dataclass, field

LANGUAGES = ("python", "bash")
OUTPUT = "text"
FENCE = re.compile(r"^```(\w*)$")
SAID = re.compile(r"^<!-- (not run|in|smaller|exit code|with timm)(?:: (.*))? -->$")


@dataclass(frozen=True, kw_only=True)
class Block:
    """One fenced block; `line` is that of its first line of code, counted from 1."""

    language: str
    code: str
    line: int
    output: str | None = None  # what the page shows that it prints; None where it shows nothing
    said: dict[str, str] = field(default_factory=dict)

    @property
    def commands(self) -> list[str]:
        """Of a block of commands: each on one line, comments left out."""
        joined = self.code.replace("\\\n", " ")
        lines = (re.sub(r"(^|\s+)#.*$", "", line).strip() for line in joined.splitlines())
        return [line for line in lines if line]


def blocks_of(text: str) -> list[Block]:
    """The blocks of a page in order; a block of `text` belongs to the one before it."""
    blocks: list[Block] = []
    said: dict[str, str] = {}
    lines = iter(enumerate(text.splitlines(), start=1))
    for number, line in lines:
        comment, fence = SAID.match(line), FENCE.match(line)
        if comment:
            said[comment[1]] = comment[2] or ""
        elif fence:
            code = "\n".join(_until_the_end(lines))
            if fence[1] in LANGUAGES:
                blocks.append(Block(language=fence[1], code=code, line=number + 1, said=said))
            elif fence[1] == OUTPUT:
                last = blocks.pop()
                if last.output is not None:
                    raise ValueError(f"line {number}: a second output of the block at line {last.line}")
                blocks.append(Block(**(vars(last) | {"output": code})))
            said = {}
        elif line.strip() and said:
            raise ValueError(f"line {number}: {said} is followed by no block")
    return blocks


def _until_the_end(lines: "enumerate[str]") -> list[str]:
    found = []
    for _, line in lines:
        if line == "```":
            return found
        found.append(line)
    raise ValueError("a block without an end")
